"""Finds a few fields of a JSON object without reading the rest: part by part, bounded throughout.

What decides about a request must be what the server behind reads of it. Parsers differ where a name
stands twice, in another case, behind an escape or before a NUL; so a field that is asked for is
found once and spelled as it is, or the body is refused. Values of other fields are not looked at,
but what could end a string or a value for one parser only (comments, other quotes) is refused.
"""

import asyncio
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

PART_BYTES = 64 * 1024
"""What is looked at without a pause: well under a millisecond."""
MAX_DEPTH = 128
MAX_FIELDS = 256
_MAX_KEPT_BYTES = 64 * 1024
_SPACE = b" \t\r\n"
_AFTER_BACKSLASH = b'"\\/bfnrtu'
_LETTER, _BACKSLASH, _QUOTE = b'a\\"'
_FIRST_PRINTABLE = ord(" ")

_PLAIN = _SPACE + b'"0123456789+-.eEtrufalsn'
_MARKS = b"{}[],:"
"""What gives a text its shape outside of strings; nothing but this and `_PLAIN` is JSON there."""
_NOT_JSON = len(_MARKS) + 1
_CLASSES = bytes(0 if byte in _PLAIN else _MARKS.find(byte) + 1 or _NOT_JSON for byte in range(256))
_STEPS = np.array([0, 1, -1, 1, -1, 0, 0, 0], np.int8)
"""By class: how the character changes the depth."""
_LEVELS = np.array([-1, 1, 0, 1, 0, 1, 1, -1], np.int8)
"""By class: the depth at which it separates fields; what opens the object has led to depth 1."""

Bytes = npt.NDArray[np.uint8]
Text = TypeVar("Text", bytes, memoryview)


class Field(NamedTuple):
    """The JSON of a value, and where it stands."""

    value: bytes
    start: int
    end: int


class FieldsError(ValueError):
    """The text is not a JSON object, or one that parsers may read in different ways."""


class _At(Enum):
    START = auto()
    NAME = auto()
    VALUE = auto()
    END = auto()


class FieldScanner:
    """Reads one object. The fields in `names` (lower case) are kept; `feed` and `end` raise."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._found: dict[str, Field] = {}
        self._at = _At.START
        self._name = ""
        self._count = 0
        self._text = bytearray()
        self._passed_bytes = 0
        self._begin = 0
        self._depth = 0
        self._is_inside = False
        self._is_escaped = False

    def feed(self, part: bytes) -> None:
        """Read on. Raises FieldsError."""
        if not part:
            return
        marks = self._marks(part)
        if self._count + len(marks) // 2 > MAX_FIELDS:
            raise FieldsError(f"it has more than {MAX_FIELDS} fields")
        since = 0
        for mark in marks:
            self._take(part[since:mark])
            self._turn(part[mark : mark + 1], self._passed_bytes + mark)
            since = mark + 1
        self._take(part[since:])
        self._passed_bytes += len(part)

    def end(self) -> dict[str, Field]:
        """The fields that were found. Raises FieldsError if the object has not come to its end."""
        if self._at is not _At.END:
            raise FieldsError("it ends too early")
        return self._found

    # -- what a part consists of ------------------------------------------------------------------

    def _marks(self, part: bytes) -> list[int]:
        """Where fields and names end in it, and the object begins and ends."""
        data = np.frombuffer(part, np.uint8)
        if self._is_escaped or b"\\" in part:
            data = self._without_escapes(data)
        inside = self._inside(data)
        controls = data < _FIRST_PRINTABLE
        if (controls & inside).any():
            raise FieldsError("a string contains control characters")
        if inside.all():
            return []
        outside = np.where(inside, np.uint8(_QUOTE), data)
        classes = np.frombuffer(outside.tobytes().translate(_CLASSES), np.uint8)
        places = np.flatnonzero(classes)
        if not places.size:
            return []
        classes = classes[places]
        if classes.max() == _NOT_JSON:
            raise FieldsError("it contains what is not JSON")
        marks: list[int] = places[_LEVELS[classes] == self._depths(classes)].tolist()
        return marks

    def _without_escapes(self, data: Bytes) -> Bytes:
        """The part with a letter in place of each escaped character."""
        if self._is_escaped:
            data = data.copy()
            _check_escaped(data[:1])
            data[0], self._is_escaped = _LETTER, False
        slashes = np.flatnonzero(data == _BACKSLASH)
        if not slashes.size:
            return data
        # In a row of backslashes the first escapes the second, and the third one what follows.
        begins_row = np.diff(slashes, prepend=-2) != 1
        row = np.maximum.accumulate(np.where(begins_row, slashes, 0))
        escaped = slashes[(slashes - row) & 1 == 0] + 1
        if escaped[-1] == data.size:
            self._is_escaped = True
            escaped = escaped[:-1]
        _check_escaped(data[escaped])
        data = data.copy()
        data[escaped] = _LETTER
        return data

    def _inside(self, data: Bytes) -> npt.NDArray[np.bool_]:
        """What belongs to a string, its opening quote included."""
        quotes = data == _QUOTE
        if not quotes.any():
            return np.full(data.size, self._is_inside)
        # Sums of bytes overflow, which leaves their parity as it is.
        inside = (np.cumsum(quotes, dtype=np.uint8) & 1).view(np.bool_)
        if self._is_inside:
            np.logical_not(inside, out=inside)
        self._is_inside = bool(inside[-1])
        return inside

    def _depths(self, classes: Bytes) -> npt.NDArray[np.int32]:
        """How deep the text is nested after each of these characters."""
        depths = np.cumsum(_STEPS[classes], dtype=np.int32)
        depths += self._depth
        self._depth = int(depths[-1])
        if depths.min() < 0:
            raise FieldsError("a bracket closes nothing")
        if depths.max() > MAX_DEPTH:
            raise FieldsError(f"it is nested more than {MAX_DEPTH} levels deep")
        return depths

    # -- what it means ----------------------------------------------------------------------------

    def _take(self, text: bytes) -> None:
        """Keep a piece of a name or value, if it is one that matters."""
        if self._at in {_At.START, _At.END}:
            if text.strip(_SPACE):
                raise FieldsError("it is not one JSON object")
        elif self._name or self._at is _At.NAME:
            self._text += text
            if len(self._text) > _MAX_KEPT_BYTES:
                raise FieldsError("a name, or a value that decides, is too long")

    def _turn(self, mark: bytes, position: int) -> None:
        text = bytes(self._text)
        self._text.clear()
        match self._at, mark:
            case _At.START, b"{":
                self._at = _At.NAME
            case _At.NAME, b":":
                self._at, self._begin = _At.VALUE, position + 1
                self._name = self._asked_name(text)
            case _At.NAME, b"}" if not text.strip(_SPACE) and not self._count:
                self._at = _At.END
            case _At.VALUE, b"," | b"}":
                self._end_field(text)
                self._at = _At.NAME if mark == b"," else _At.END
            case _:
                raise FieldsError("it is not one JSON object")

    def _asked_name(self, text: bytes) -> str:
        """The name, if that field was asked for."""
        try:
            name = msgspec.json.decode(text, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise FieldsError("a field has no valid name") from None
        # Some parsers take any case for a name, and those in C end it at a NUL.
        like = name.partition("\0")[0].casefold()
        if like not in self._names:
            return ""
        if name != like or like in self._found:
            raise FieldsError(f"{like} must be there once, and written so")
        return name

    def _end_field(self, text: bytes) -> None:
        self._count += 1
        if self._name:
            value = text.strip(_SPACE)
            start = self._begin + len(text) - len(text.lstrip(_SPACE))
            self._found[self._name] = Field(value, start, start + len(value))


def _check_escaped(characters: Bytes) -> None:
    if characters.tobytes().translate(None, _AFTER_BACKSLASH):
        raise FieldsError("a string contains an escape that does not exist")


def parts_of(text: Text) -> Iterator[Text]:
    """A text in parts of a size to be looked at without a pause."""
    return (text[start : start + PART_BYTES] for start in range(0, len(text), PART_BYTES))


def find_fields(text: bytes, names: frozenset[str]) -> dict[str, Field]:
    """The fields called `names` of a small object. Raises FieldsError."""
    scanner = FieldScanner(names)
    for part in parts_of(text):
        scanner.feed(part)
    return scanner.end()


async def find_fields_in_turns(parts: Iterable[bytes], names: frozenset[str]) -> dict[str, Field]:
    """The fields called `names` of an object of any length; other work runs after each part.

    Not in a thread: what holds the interpreter's lock there stands in everybody's way too, for
    longer, and goes on when the client has gone. Raises FieldsError.
    """
    scanner = FieldScanner(names)
    for number, part in enumerate(parts):
        if number:
            await asyncio.sleep(0)
        scanner.feed(part)
    return scanner.end()
