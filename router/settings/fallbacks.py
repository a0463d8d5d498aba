"""Whether fallback chains can be followed: known models, each once, and no way back. Pure."""

from collections.abc import Collection, Iterator, Mapping

from router.settings.problems import KeyPath


def wrong_fallbacks(
    names: Mapping[int, str], chains: Mapping[int, Mapping[int, str]]
) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong, each with its key. Both are by place in the list of models.

    A chain is the names in a model's list, by their places there.
    """
    following = {name: chains[index].values() for index, name in names.items()}
    for index, chain in chains.items():
        own, before = names.get(index), set[str]()
        for place, name in chain.items():
            path: KeyPath = ("models", index, "fallback", place)
            if name not in following:
                yield path, "is not a configured model"
            elif name == own:
                yield path, "is the model itself"
            elif name in before:
                yield path, "is named before"
            elif own in _reached_from(name, following):
                yield path, f"leads back to {own}: a chain must not loop"
            before.add(name)


def _reached_from(name: str, following: Mapping[str, Collection[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [name]
    while ahead:
        for one in following.get(ahead.pop(), ()):
            if one not in found:
                found.add(one)
                ahead.append(one)
    return found
