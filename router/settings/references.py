"""Names in one part of the configuration that must exist in another.

Errors, unlike `advice`: a request could not be served as the configuration says. Pure.
"""

from collections.abc import Iterator

from router.settings.document import Document
from router.settings.problems import KeyPath, Problem
from router.settings.schema import Settings


def dangling(settings: Settings, document: Document) -> list[Problem]:
    """A problem for each name of a model that is not configured."""
    known = {model.name for model in settings.models}
    return [
        document.problem(path, "is not the name of a configured model")
        for path, name in _named_models(settings)
        if name not in known
    ]


def _named_models(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    for index, rule in enumerate(settings.rules):
        for key, other in (("canary", rule.canary), ("shadow", rule.shadow)):
            if other is not None and other.model is not None:
                yield ("rules", index, key, "model"), other.model
