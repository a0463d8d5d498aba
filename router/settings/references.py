"""Names in one part of the configuration that must exist in another.

Errors, unlike `advice`: a request could not be served as the configuration says. Looks at what is
written, valid or not, so that these are told together with all other mistakes. Pure.
"""

from collections.abc import Iterator

from router.settings.fallbacks import wrong_fallbacks
from router.settings.problems import KeyPath

BACKENDS = ("serverless", "pool")
"""The keys of a model that say where it can run."""


def wrong_references(data: object) -> Iterator[tuple[KeyPath, str]]:
    """Names of models that are not configured, and fallbacks that lead nowhere, each with its key.

    Nothing is told of parts that are no lists and mappings: others say so.
    """
    models = list(_entries(data, "models"))
    if not models:
        return
    chains = {index: _texts(model.get("fallback")) for index, model in models}
    names = {index: model.get("name") for index, model in models}
    known = {index: name for index, name in names.items() if isinstance(name, str)}
    yield from wrong_fallbacks(known, chains)
    yield from _empty_backends(models)
    yield from _sized_twice(models)
    yield from _unwatched(data, models)
    for path, name in (*_named_by_rules(data), *_named_by_triggers(data)):
        if name not in known.values():
            yield path, "is not the name of a configured model"


def _empty_backends(models: list[tuple[int, dict[str, object]]]) -> Iterator[tuple[KeyPath, str]]:
    """Backends whose lines are all commented out: left in, they look as if they served."""
    for index, model in models:
        for key in BACKENDS:
            if key in model and model[key] is None:
                yield ("models", index, key), "is empty: leave it out, or say what it is"


def _sized_twice(models: list[tuple[int, dict[str, object]]]) -> Iterator[tuple[KeyPath, str]]:
    """Deployments that two models' pools would size, each against the other."""
    sized: dict[tuple[str, str, str], object] = {}
    for index, model in models:
        pool = model.get("pool")
        if not isinstance(pool, dict) or pool.get("size") == "external":
            continue
        deployment = pool.get("deployment")
        if not isinstance(deployment, str):
            continue
        where = (str(pool.get("kubeconfig")), str(pool.get("namespace")), deployment)
        first = sized.setdefault(where, model.get("name"))
        if first != model.get("name"):
            yield ("models", index, "pool", "deployment"), f"is sized for model {first} already"


def _named_by_rules(data: object) -> Iterator[tuple[KeyPath, str]]:
    for index, rule in _entries(data, "rules"):
        for key in ("canary", "shadow"):
            other = rule.get(key)
            name = other.get("model") if isinstance(other, dict) else None
            if isinstance(name, str):
                yield ("rules", index, key, "model"), name


def _named_by_triggers(data: object) -> Iterator[tuple[KeyPath, str]]:
    for index, trigger in _entries(data, "triggers"):
        name = trigger.get("model")
        if isinstance(name, str):
            yield ("triggers", index, "model"), name


def _unwatched(
    data: object, models: list[tuple[int, dict[str, object]]]
) -> Iterator[tuple[KeyPath, str]]:
    """Canaries to be judged by quality although nobody watches one of the two models."""
    watched = {str(model.get("name")) for _, model in models if model.get("quality") is not None}
    for index, rule in _entries(data, "rules"):
        canary, match = rule.get("canary"), rule.get("match")
        rollback = canary.get("rollback") if isinstance(canary, dict) else None
        if not isinstance(canary, dict) or not isinstance(rollback, dict):
            continue
        stable = match.get("model") if isinstance(match, dict) else None
        stable = stable[0] if isinstance(stable, list) and stable else stable
        for key in ("accuracy", "drift"):
            both = {str(stable), str(canary.get("model") or stable)}
            if key in rollback and not both <= watched:
                path: KeyPath = ("rules", index, "canary", "rollback", key)
                yield path, f"needs quality settings of {' and '.join(sorted(both - watched))}"


def _entries(data: object, key: str) -> Iterator[tuple[int, dict[str, object]]]:
    """The mappings in a list at the top of the document, with their places."""
    entries = data.get(key) if isinstance(data, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield index, entry


def _texts(value: object) -> dict[int, str]:
    items = enumerate(value if isinstance(value, list) else ())
    return {place: item for place, item in items if isinstance(item, str)}
