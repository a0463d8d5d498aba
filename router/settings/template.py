"""A small template: JSON whose texts may refer to fields of an event. No code, no loops.

A text that is one reference, as "{{ data.image.url }}", stands for the field as it is; within a
longer text a reference stands for a text, number or truth value.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from router.settings.quantities import wrong
from router.settings.values import MAX_TEXT_CHARS

_PART = r"[A-Za-z0-9_@$:-]{1,200}"
_REFERENCE = re.compile(rf"\{{\{{ ?({_PART}(?:\.{_PART}){{0,15}}) ?\}}\}}")
_MAX_DEPTH = 16
_MAX_NODES = 1000
_MAX_REFERENCES = 100

Path = tuple[str, ...]
Look = Callable[[Path], object]
"""Finds what a reference refers to. Raises LookupError."""


@dataclass(frozen=True, slots=True)
class Template:
    """What becomes the body of a request."""

    tree: Any

    range = (
        'a mapping or list whose texts may hold references such as "{{ data.detail.key }}":'
        " attributes of the event, or data and what is in it"
    )
    wanted = f"must be {range}"

    def filled(self, look: Look) -> object:
        """The document that it makes. Raises LookupError for a field that is not there."""
        return _filled(self.tree, look)

    @classmethod
    def read(cls, value: object) -> "Template":
        """`value` as a template, or the error saying what was wanted."""
        if isinstance(value, Template):
            return value
        counts = [0, 0]
        if not isinstance(value, dict | list) or not _is_valid(value, 1, counts):
            raise wrong(
                f"{cls.wanted}; {_MAX_DEPTH} levels, {_MAX_NODES} values and {_MAX_REFERENCES}"
                " references at most"
            )
        return cls(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda template: template.tree, when_used="json"
            ),
        )


def _is_valid(node: object, depth: int, counts: list[int]) -> bool:
    counts[0] += 1
    if depth > _MAX_DEPTH or counts[0] > _MAX_NODES:
        return False
    if isinstance(node, dict):
        return all(_is_valid(one, depth + 1, counts) for one in node.values())
    if isinstance(node, list):
        return all(_is_valid(one, depth + 1, counts) for one in node)
    if not isinstance(node, str):
        return True
    counts[1] += len(_REFERENCE.findall(node))
    # What looks like a reference and is none would reach the model as it is.
    is_whole = "{{" not in _REFERENCE.sub("", node)
    return len(node) <= MAX_TEXT_CHARS and is_whole and counts[1] <= _MAX_REFERENCES


def _filled(node: Any, look: Look) -> object:  # noqa: ANN401  JSON
    if isinstance(node, dict):
        return {key: _filled(one, look) for key, one in node.items()}
    if isinstance(node, list):
        return [_filled(one, look) for one in node]
    if not isinstance(node, str) or "{{" not in node:
        return node
    if alone := _REFERENCE.fullmatch(node):
        return look(tuple(alone[1].split(".")))
    return _REFERENCE.sub(lambda found: _text(found[1], look), node)


def _text(reference: str, look: Look) -> str:
    value = look(tuple(reference.split(".")))
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    raise LookupError(f"{reference} is no text, number or truth value, and stands within a text")
