"""The configuration reference: every key with its type, default, range and help, from the schema.

`python -m router.settings.reference` prints it as a Markdown table.
"""

import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from router.settings.keys import ApiKey
from router.settings.prices import PriceBook
from router.settings.quantities import Quantity
from router.settings.schema import Settings
from router.settings.shape import (
    Annotation,
    annotation_of,
    choices,
    constraint,
    fields_by_key,
    union_members,
    unwrap,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One key, described in words."""

    key: str
    type: str
    default: str
    range: str
    help: str


def reference(group: type[BaseModel] = Settings) -> list[Row]:
    """A row for each key of a group, in order; `[]` is any list item, `NAME` any key."""
    return list(_rows("", group, None))


def _rows(prefix: str, group: type[BaseModel], default: str | None) -> Iterator[Row]:
    for key, info in fields_by_key(group).items():
        filled = info.json_schema_extra or {}
        note = str(filled["default"]) if isinstance(filled, dict) and filled else default
        yield from _field_rows(f"{prefix}{key}", info, note)


def _field_rows(key: str, info: FieldInfo, default: str | None) -> Iterator[Row]:
    annotation = annotation_of(info)
    plain = unwrap(annotation)
    members = union_members(plain)
    if members and constraint(annotation) is None:
        yield from _kinds_rows(f"{key}.", members)
        return
    if _origin(plain) is tuple and _is_group(typing.get_args(plain)[0]):
        plain, key = typing.get_args(plain)[0], f"{key}[]"
    if _origin(plain) is Mapping and _is_group(typing.get_args(plain)[1]):
        plain, key = typing.get_args(plain)[1], f"{key}.NAME"
    if _is_group(plain):
        yield from _rows(f"{key}.", plain, default)
        return
    yield Row(key, _type(annotation), default or _default(info), _range(annotation), _help(info))


def _kinds_rows(prefix: str, members: dict[str, Annotation]) -> Iterator[Row]:
    """The rows of all kinds; what only one kind has says so, and `kind` lists them all."""
    kind = f"{prefix}kind"
    yield Row(kind, "word", "required", ", ".join(members), "what this backend is")
    by_kind = {tag: list(_rows(prefix, group, None)) for tag, group in members.items()}
    for row in dict.fromkeys(row for rows in by_kind.values() for row in rows):
        owners = [tag for tag, rows in by_kind.items() if row in rows]
        if row.key == kind:
            continue
        only = "" if len(owners) == len(members) else f"({', '.join(owners)}) "
        yield replace(row, help=only + row.help)


def _is_group(annotation: Annotation) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _type(annotation: Annotation) -> str:
    found = constraint(annotation)
    if isinstance(found, Quantity):
        return found.unit.noun.split(" (")[0].removeprefix("a ").removesuffix(" with a unit")
    plain = unwrap(annotation)
    if plain is bool:
        return "true or false"
    if found is None and choices(plain):
        return "word"
    if _origin(plain) is Mapping:
        return "mapping"
    if _origin(plain) is tuple:
        return "list of words" if choices(typing.get_args(plain)[0]) else "list of texts"
    return "text"


def _origin(annotation: Annotation) -> Any:  # noqa: ANN401 - typing's own untyped answer
    return typing.get_origin(annotation)


def _range(annotation: Annotation) -> str:
    if found := constraint(annotation):
        return found.range
    plain = unwrap(annotation)
    if words := choices(plain):
        return ", ".join(words)
    if _origin(plain) is tuple:
        item = typing.get_args(plain)[0]
        inner = constraint(item)
        return f"each {inner.range}" if inner else ", ".join(choices(item))
    arguments = typing.get_args(plain)
    ranges = [found.range for argument in arguments if (found := constraint(argument))]
    return " to ".join(ranges) if ranges else "true, false" if plain is bool else ""


def _default(info: FieldInfo) -> str:
    value: Any = info.default
    if value is PydanticUndefined:
        return "required"
    found = constraint(annotation_of(info))
    if isinstance(found, Quantity) and value is not None:
        shown = found.show(value)
        return shown if isinstance(shown, str) else f"{shown:.12g}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple) and value:
        return f"[{', '.join(map(str, value))}]"
    return str(value) if value else "none"


def _help(info: FieldInfo) -> str:
    return info.description or ""


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (f"`{row.key}`", row.type, row.default, row.range, row.help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the reference of the configuration, the prices file and the keys file."""
    for title, group in (
        ("Configuration", Settings),
        ("Prices file", PriceBook),
        ("API keys file (a list of)", ApiKey),
    ):
        sys.stdout.write(f"### {title}\n\n{markdown(reference(group))}\n\n")


if __name__ == "__main__":
    main()
