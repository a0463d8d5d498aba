"""What differs between two configurations, key by key, with secrets masked. Pure.

Says what changed, never what follows from it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from router.settings.keys import KeyRing
from router.settings.masking import MASK
from router.settings.schema import Settings
from router.turns import at_once

MAX_VALUE = 100
_ABSENT = "absent"
_PRESENT = "configured"


class Change(NamedTuple):
    """A key, and its value before and after as text."""

    key: str
    old: str
    new: str


def changes(old: Settings, new: Settings, old_keys: KeyRing, new_keys: KeyRing) -> list[Change]:
    """Every key whose value is another one now; a model that came or went is one change."""
    old, new = _without_the_same(old, new), _without_the_same(new, old)
    found = _changes((_raw(old), old.masked()), (_raw(new), new.masked()))
    return found + _changes(_keys(old_keys), _keys(new_keys))


def _without_the_same(one: Settings, other: Settings) -> Settings:
    """Less the models that both have alike: there may be a thousand."""
    others = {model.name: model for model in other.models}
    models = tuple(model for model in one.models if others.get(model.name) != model)
    return one.model_copy(update={"models": models})


def _raw(settings: Settings) -> Mapping[str, Any]:
    return at_once(settings.dumping())


def _keys(ring: KeyRing) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    raw = [key.model_dump(mode="json") for key in ring]
    return {"api_keys": raw}, {"api_keys": [{**key, "sha256": MASK} for key in raw]}


def _changes(
    old: tuple[Mapping[str, Any], Mapping[str, Any]],
    new: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> list[Change]:
    """Found by the values themselves, the first of each pair, and told by the second."""
    (before, told_before), (after, told_after) = (
        (dict(_flat(raw)), dict(_flat(masked))) for raw, masked in (old, new)
    )
    found = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and not _is_in_one(key, before, after):
            was, now = (told.get(key, _ABSENT) for told in (told_before, told_after))
            found.append(
                Change(key, _cut(was), _cut(now) if now != was else f"another {_cut(now)}")
            )
    return found


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 3]}..."


def _is_in_one(key: str, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether the key is inside of a named entry that only one side has."""
    end = key.find("]")
    while end != -1:
        entry = key[: end + 1]
        if entry != key and (entry in before) != (entry in after):
            return True
        end = key.find("]", end + 1)
    return False


def _flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Keys as messages have them (`models[m].pool.kind`), with their values as short JSON."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value and all(_is_named(item) for item in value):
        for item in value:
            entry = f"{path}[{item['name']}]"
            yield entry, _PRESENT
            yield from _flat(item, entry)
    elif value != []:  # an empty list of entries with names is no value beside them
        yield path, msgspec.json.encode(value).decode()


def _is_named(item: object) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("name"), str)
