"""Whether fallback chains can be followed: known models, each once, and no way back. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from router.settings.problems import KeyPath
from router.settings.schema import ModelSettings


def wrong_fallbacks(models: Sequence[ModelSettings]) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong, each with its key."""
    chains = {model.name: model.fallback for model in models}
    for index, model in enumerate(models):
        for place, name in enumerate(model.fallback):
            path: KeyPath = ("models", index, "fallback", place)
            if name not in chains:
                yield path, "is not a configured model"
            elif name == model.name:
                yield path, "is the model itself"
            elif name in model.fallback[:place]:
                yield path, "is named before"
            elif model.name in _reached_from(name, chains):
                yield path, f"leads back to {model.name}: a chain must not loop"


def _reached_from(name: str, chains: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [name]
    while ahead:
        for following in chains.get(ahead.pop(), ()):
            if following not in found:
                found.add(following)
                ahead.append(following)
    return found
