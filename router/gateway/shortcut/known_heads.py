"""Heads that were understood before, found again by those of their lines that decide something.

Clients send a head of its own with each request: trace ids, request ids, lengths. None of that
decides where a request goes, so a head is remembered by its other lines alone. Of the rest each
line is checked and passed on as it came; an id, a length and a deadline are read.

Whatever is found here, aiohttp's parser would have read in the same way: the lines that decide
stood together in a head that it did read, and all others are of a strict grammar, have names that
mean nothing to a parser, and stand once where they may stand only once.
"""

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

from router.domain.errors import InvalidRequestError
from router.gateway.head import HOP_BY_HOP, MAX_ID_LENGTH, OURS, read_deadline_ms

MAX_HEAD_BYTES = 4096
_MAX_LINES = 64
_MAX_HEADS = 2048
_MAX_NAMES = 256
_MAX_VALUES = 16
"""Of a name with more values than that, the next one most likely never comes again."""
_MAX_KEPT_BYTES = 256

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_IN_VALUES = bytes([*b"\t", *range(0x20, 0x7F), *range(0x80, 0x100)])
_IN_IDS = bytes(range(0x21, 0x7F))
_MAX_DIGITS = 15
_BLANKS = b" \t"


class Line(IntEnum):
    """What a line of a head is to the gateway; those from AGENT on may stand only once."""

    DECIDES = 1
    PASSES = 2
    AGENT = 3
    LENGTH = 4
    REQUEST_ID = 5
    DEADLINE = 6
    TENSORS = 7
    TRACE = 8
    STATE = 9


TENSORS = "inference-header-content-length"
_TENSORS = TENSORS.encode()
_PASSES, _DECIDES = Line.PASSES, Line.DECIDES  # an enum's own look-up costs more than a line's
_KINDS_OF_LINES = max(Line) + 1
_KINDS: dict[str, Line] = {
    "user-agent": Line.AGENT,
    "content-length": Line.LENGTH,
    "x-request-id": Line.REQUEST_ID,
    "x-router-deadline-ms": Line.DEADLINE,
    TENSORS: Line.TENSORS,
    "traceparent": Line.TRACE,
    "tracestate": Line.STATE,
} | dict.fromkeys(
    # What a parser acts upon or refuses to see twice, and what says who calls and what the body is.
    HOP_BY_HOP
    | {
        "authorization", "content-encoding", "content-location", "content-range", "content-type",
        "etag", "expect", "host", "max-forwards", "server", "via", "x-api-key",
    },
    Line.DECIDES,
)  # fmt: skip
_SPECIAL = "prefer"
"""A head with it is not among the common ones: its client may want to be answered later."""
_DECIDING_STARTS = (OURS, "proxy-", "sec-websocket-")

T = TypeVar("T")


class Sorted(NamedTuple):
    """A head's lines, sorted. Heads with the same `key` are understood alike.

    The body begins at `start`. `passing` are whole lines for the backend. `request_id` is None
    where the client sent none that can be used. `trace` are the lines that say which trace the
    request is part of, whole and `traceparent` first; they are not among those that pass. `told`
    are those that go on in their place: others only where the request is traced.
    """

    key: bytes
    start: int
    body_bytes: int
    passing: bytes
    request_id: bytes | None
    deadline_ms: float | None
    trace: bytes = b""
    told: bytes = b""


class KnownHeads(Generic[T]):
    """What was understood of heads, by their deciding lines; bounded, the oldest goes first.

    `names` are the headers (lower case) that the configuration in force decides by; longer heads
    than `max_bytes` are special.
    """

    def __init__(self, names: Iterable[str] = (), max_bytes: int = MAX_HEAD_BYTES) -> None:
        self._kinds = _KINDS | dict.fromkeys(names, Line.DECIDES)
        self._max_bytes = min(max_bytes, MAX_HEAD_BYTES)
        self._heads: dict[bytes, T] = {}
        self._lines: dict[bytes, Line] = {}
        self._names: dict[bytes, Line] = {}
        self._values: dict[bytes, int] = {}

    def get(self, head: Sorted) -> T | None:
        """What was remembered of heads like this one."""
        return self._heads.get(head[0])

    def remember(self, head: Sorted, known: T) -> None:
        """Keep what was understood of heads like this one."""
        if len(self._heads) >= _MAX_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[head.key] = known

    def sort(self, data: bytes) -> Sorted | None:
        """Sort the lines of the head that `data` begins with; None if it is special in any way."""
        end = data.find(b"\r\n\r\n", 0, self._max_bytes)
        first, *lines = data[: max(end, 0)].split(b"\r\n")
        if not lines or len(lines) > _MAX_LINES:
            return None
        key, passing = [first], []
        values = [b""] * _KINDS_OF_LINES
        known = self._lines
        for line in lines:
            kind = known.get(line) or self._kind(line)
            if kind is _PASSES:
                passing.append(line)
            elif kind is _DECIDES:
                key.append(line)
            elif kind is None or values[kind]:
                return None
            else:
                values[kind] = line
        return _sorted(key, passing, values, end + 4)

    def kind_of(self, name: str) -> Line:
        """What lines with that name (lower case) are."""
        kind = self._kinds.get(name)
        if kind is not None:
            return kind
        return _DECIDES if name.startswith(_DECIDING_STARTS) else _PASSES

    def decides(self, name: str) -> bool:
        """Whether headers of that name (lower case) are among what is remembered of a head."""
        return self.kind_of(name) in {Line.DECIDES, Line.TENSORS}

    def _kind(self, line: bytes) -> Line | None:
        """What a line is; remembered if others of its name do not differ too often."""
        name, colon, value = line.partition(b":")
        kind = self._names.get(name) or self._kind_of_name(name)
        # Deleting what may be there is the quickest way to see that nothing else is.
        if kind is None or not colon or value.translate(None, _IN_VALUES):
            return None
        seen = self._values.get(name, 0)
        if seen < _MAX_VALUES and len(line) <= _MAX_KEPT_BYTES and name in self._names:
            self._values[name] = seen + 1
            self._lines[line] = kind
        return kind

    def _kind_of_name(self, name: bytes) -> Line | None:
        if not _TOKEN.fullmatch(name):
            return None
        lower = name.decode("ascii").lower()
        if lower == _SPECIAL:
            return None
        kind = self.kind_of(lower)
        if len(self._names) < _MAX_NAMES:
            self._names[name] = kind
        return kind


def _sorted(
    key: list[bytes], passing: list[bytes], values: list[bytes], start: int
) -> Sorted | None:
    """Read the lines whose values are the request's own; None if one of them is no such value."""
    _, _, _, agent, length, given_id, deadline, tensors, trace, state = values
    if agent:
        passing.append(agent)
    if tensors:  # that there is such a line decides; which number it has does not
        key.append(_TENSORS)
        passing.append(tensors)
    digits = _value(length)
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return None
    request_id: bytes | None = _value(given_id)
    if not request_id or len(request_id) > MAX_ID_LENGTH or request_id.translate(None, _IN_IDS):
        request_id = None
    deadline_ms = None
    if deadline:
        try:
            deadline_ms = read_deadline_ms(_value(deadline).decode("latin-1"))
        except InvalidRequestError:
            return None  # the ordinary path says so
    passing.append(b"")
    lines = b"\r\n".join(passing)
    traced = trace + b"\r\n" if trace else b""
    if state:
        traced += state + b"\r\n"
    return Sorted(
        b"\r\n".join(key), start, int(digits), lines, request_id, deadline_ms, traced, traced
    )


def _value(line: bytes) -> bytes:
    return line[line.find(b":") + 1 :].strip(_BLANKS)
