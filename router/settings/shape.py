"""What the schema looks like at a place: the type there, the keys known there, the valid range.

Turns the places pydantic names into the places a user wrote, and every constraint into words. Both
error messages and the reference table come from here. Validates nothing itself.
"""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Discriminator, Tag
from pydantic.fields import FieldInfo

from router.settings.problems import KeyPath

Annotation = Any
"""A type, possibly Annotated; typing has no better word for it."""


class Constraint(Protocol):
    """What every scalar type of ours tells about itself."""

    @property
    def range(self) -> str:
        """The valid values."""

    @property
    def wanted(self) -> str:
        """What an error says."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the schema: the user's path to it, its type, and the group of keys it is in."""

    path: KeyPath
    annotation: Annotation
    group: type[BaseModel] | None

    @property
    def known_keys(self) -> tuple[str, ...]:
        """The keys allowed beside the last one of the path."""
        return tuple(fields_by_key(self.group)) if self.group else ()


def fields_by_key(group: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a group under the user's keys."""
    return {info.alias or name: info for name, info in group.model_fields.items()}


def locate(root: Annotation, location: tuple[str | int, ...]) -> Place:
    """The place pydantic's `location` names, without the tags of unions and markers of keys."""
    place = Place((), root, None)
    for step in location:
        place = _step(place, step)
    return place


def _step(place: Place, step: str | int) -> Place:
    annotation = unwrap(place.annotation)
    if members := union_members(annotation):
        return Place(place.path, members.get(str(step)), place.group)
    if step == "[key]":
        return Place(place.path, None, place.group)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _key_of(annotation, place.path, str(step))
    path = (*place.path, step)
    if _origin(annotation) is tuple:
        return Place(path, typing.get_args(annotation)[0], None)
    if _origin(annotation) is Mapping:
        return Place(path, typing.get_args(annotation)[1], None)
    return Place(path, None, None)


def _key_of(group: type[BaseModel], parent: KeyPath, step: str) -> Place:
    # A default that is wrong beside other values is named by its field, not by the user's key.
    named = group.model_fields.get(step)
    key = (named.alias or step) if named else step
    info = fields_by_key(group).get(key)
    return Place((*parent, key), annotation_of(info) if info else None, group)


def annotation_of(info: FieldInfo) -> Annotation:
    """A field's annotation with the metadata that pydantic took out of it."""
    kept = tuple(m for m in info.metadata if not isinstance(m, Discriminator))
    return Annotated[info.annotation, *kept] if kept else info.annotation


def _origin(annotation: Annotation) -> Any:  # noqa: ANN401 - typing's own untyped answer
    return typing.get_origin(annotation)


def _options(annotation: Annotation) -> tuple[Annotation, ...]:
    return typing.get_args(annotation) if _origin(annotation) in (typing.Union, UnionType) else ()


def _layers(annotation: Annotation) -> Iterator[Annotation]:
    """The annotation, then what is left as Annotated and `| None` are taken off one by one."""
    while annotation is not None:
        yield annotation
        others = [option for option in _options(annotation) if option is not NoneType]
        if _origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        else:
            annotation = others[0] if len(others) == 1 else None


def unwrap(annotation: Annotation) -> Annotation:
    """The type without Annotated and without `| None`."""
    return list(_layers(annotation))[-1] if annotation is not None else None


def union_members(annotation: Annotation) -> dict[str, Annotation]:
    """The members of a tagged union by tag; empty for every other type."""
    members = {}
    for option in _options(annotation):
        tag = _tag(option)
        if tag is not None:
            members[tag] = option
    return members


def _tag(option: Annotation) -> str | None:
    for item in _metadata(option):
        if isinstance(item, Tag):
            return item.tag
    if isinstance(option, type) and issubclass(option, BaseModel) and "kind" in option.model_fields:
        return choices(option.model_fields["kind"].annotation)[0]
    return None


def _metadata(annotation: Annotation) -> tuple[Any, ...]:
    return typing.get_args(annotation)[1:] if _origin(annotation) is Annotated else ()


def choices(annotation: Annotation) -> tuple[str, ...]:
    """The words of an enum or Literal; empty for every other type."""
    plain = unwrap(annotation)
    if isinstance(plain, type) and issubclass(plain, Enum):
        return tuple(str(member.value) for member in plain)
    if _origin(plain) is Literal:
        return tuple(str(word) for word in typing.get_args(plain))
    return ()


def constraint(annotation: Annotation) -> Constraint | None:
    """The object that knows the range of this type, if it has one of ours."""
    for layer in _layers(annotation):
        for item in (*_metadata(layer), layer):
            if hasattr(item, "range") and hasattr(item, "wanted"):
                return typing.cast("Constraint", item)
    return None


def wanted(annotation: Annotation) -> str:
    """What a value here must be: `must be ...`."""
    if found := constraint(annotation):
        return found.wanted
    if words := choices(annotation):
        return f"must be one of {', '.join(words)}"
    plain = unwrap(annotation)
    if plain is bool:
        return "must be true or false"
    if members := union_members(plain):
        return f"must be a mapping with kind: one of {', '.join(members)}"
    if _origin(plain) is tuple:
        return "must be a list"
    needed = ", ".join(_required_keys(plain))
    return "must be a mapping (key: value)" + (f" with {needed}" if needed else "")


def _required_keys(annotation: Annotation) -> list[str]:
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return []
    return [key for key, found in fields_by_key(annotation).items() if found.is_required()]
