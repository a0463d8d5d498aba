"""Finds the fields of a multipart form that decide; what its files hold is not looked at.

As with JSON, what parsers might read in different ways is refused: a field twice, in another case,
with a coding of its own, or a form with text before its first boundary or after its last.
"""

import asyncio
import re
from typing import NamedTuple

FORM = "multipart/form-data"
_MAX_PARTS = 256
_MAX_PART_HEAD_BYTES = 4096
_MAX_VALUE_BYTES = 1024
_WINDOW_BYTES = 1 << 20
"""What is searched without a pause."""
_BOUNDARY = re.compile(r'boundary=(?:"([^"\\]{1,70})"|([0-9A-Za-z\'()+_,./:?-]{1,70}))')
_DISPOSITION = re.compile(
    r'content-disposition:[ \t]*form-data;[ \t]*name="([^"\\]*)"([ \t]*;[ \t]*filename\*?=.+)?',
    re.IGNORECASE,
)


class FormField(NamedTuple):
    """The text of a field, and where it stands."""

    value: str
    start: int
    end: int


class FormError(ValueError):
    """The body is no such form, or one that parsers may read in different ways."""


async def find_form_fields(
    body: bytes, content_type: str, names: frozenset[str]
) -> dict[str, FormField]:
    """The fields of a form called `names`; other work has its turn meanwhile. Raises FormError."""
    # Some parsers take a line feed alone for the end of a line, so that is looked for.
    delimiter = b"\n--" + _boundary_of(content_type)
    if not body.startswith(delimiter[1:]):
        raise FormError("it does not begin with its boundary")
    found: dict[str, FormField] = {}
    at = len(delimiter) - 1
    for _ in range(_MAX_PARTS):
        if body[at : at + 2] == b"--" and body[at + 2 :] in {b"", b"\r\n"}:
            return found
        start = body.find(b"\r\n\r\n", at, at + _MAX_PART_HEAD_BYTES) + 4
        if body[at : at + 2] != b"\r\n" or start < 4:
            raise FormError("a part has no valid head")
        line_feed = await _find(body, delimiter, start)
        end = line_feed - 1
        if end < start or body[end:line_feed] != b"\r":
            raise FormError("where a part ends is in doubt")
        name = _deciding_name(body[at + 2 : start - 4], names)
        if name in found:
            raise FormError(f"{name} must be there once")
        if name is not None:
            if end - start > _MAX_VALUE_BYTES:
                raise FormError("a value that decides is too long")
            found[name] = FormField(body[start:end].decode(), start, end)
        at = line_feed + len(delimiter)
    raise FormError(f"it has more than {_MAX_PARTS} parts")


def _boundary_of(content_type: str) -> bytes:
    found = [
        match
        for part in content_type.split(";")[1:]
        if (match := _BOUNDARY.fullmatch(part.strip())) is not None
    ]
    if len(found) != 1 or content_type.lower().count("boundary") != 1:
        raise FormError("its content-type names no boundary that is valid")
    return (found[0][1] or found[0][2]).encode()


async def _find(body: bytes, delimiter: bytes, start: int) -> int:
    while start < len(body):
        found = body.find(delimiter, start, start + _WINDOW_BYTES + len(delimiter))
        if found >= 0:
            return found
        start += _WINDOW_BYTES
        await asyncio.sleep(0)
    raise FormError("it ends too early")


def _deciding_name(head: bytes, names: frozenset[str]) -> str | None:
    """The name of the part, if that field was asked for."""
    lines = head.decode().split("\r\n")
    places = [match for line in lines if (match := _DISPOSITION.fullmatch(line)) is not None]
    others = [line.partition(":")[0].lower() for line in lines]
    has_breaks = any(mark in line for line in lines for mark in "\r\n\0")
    if has_breaks or len(places) != 1 or others.count("content-disposition") != 1:
        raise FormError("a part does not say plainly what it is")
    name, file = places[0].groups()
    like = name.partition("\0")[0].strip().casefold()
    if like not in names:
        return None
    if name != like or file or set(others) - {"content-disposition", "content-type"}:
        raise FormError(f"{like} must be a plain field, and written so")
    return like
