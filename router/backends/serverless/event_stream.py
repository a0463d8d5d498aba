"""Frames of `application/vnd.amazon.eventstream`, in which AWS streams a function's answer. Pure.

A frame is a prelude (its length, its headers' length, a checksum of both), headers, a payload and
a checksum of it all. Decides nothing about what the payloads mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, error
from zlib import crc32

from router.domain.errors import UpstreamBrokenError

_PRELUDE = Struct(">III")
_CHECKSUM = Struct(">I")
_SHORT = Struct(">H")
_MAX_HEADERS_BYTES = 128 * 1024
_MAX_FRAME_BYTES = 24 * 1024 * 1024
_STRING = 7
_VALUE_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Length of a header's value by its type; those of types 6 and 7 begin with theirs."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: its headers that are strings, and its payload."""

    headers: dict[str, str]
    payload: bytes

    @property
    def kind(self) -> str:
        """The event's name; empty for what is no event, such as an exception."""
        is_event = self.headers.get(":message-type") == "event"
        return self.headers.get(":event-type", "") if is_event else ""


class FrameReader:
    """Cuts a byte stream into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that end within these bytes. Raises UpstreamBrokenError on damage."""
        self._buffer += data
        return list(self._complete())

    def _complete(self) -> Iterator[Frame]:
        while len(self._buffer) >= _PRELUDE.size:
            total, headers_bytes, checksum = _PRELUDE.unpack_from(self._buffer)
            fits = headers_bytes + _PRELUDE.size + _CHECKSUM.size <= total <= _MAX_FRAME_BYTES
            is_intact = crc32(self._buffer[: _PRELUDE.size - _CHECKSUM.size]) == checksum
            if not (is_intact and fits and headers_bytes <= _MAX_HEADERS_BYTES):
                raise _damaged()
            if len(self._buffer) < total:
                return
            frame = bytes(self._buffer[:total])
            del self._buffer[:total]
            yield _frame(frame, headers_bytes)


def _frame(frame: bytes, headers_bytes: int) -> Frame:
    (checksum,) = _CHECKSUM.unpack_from(frame, len(frame) - _CHECKSUM.size)
    if crc32(memoryview(frame)[: -_CHECKSUM.size]) != checksum:
        raise _damaged()
    payload_at = _PRELUDE.size + headers_bytes
    return Frame(_headers(frame[_PRELUDE.size : payload_at]), frame[payload_at : -_CHECKSUM.size])


def _headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            kind = data[name_end]
            begin = name_end + 1
            if kind in _VALUE_BYTES:
                end = begin + _VALUE_BYTES[kind]
            else:
                begin += _SHORT.size
                end = begin + _SHORT.unpack_from(data, begin - _SHORT.size)[0]
            if kind == _STRING:
                headers[data[at + 1 : name_end].decode()] = data[begin:end].decode()
            at = end
    except (IndexError, error, UnicodeDecodeError):
        raise _damaged() from None
    if at != len(data):
        raise _damaged()
    return headers


def _damaged() -> UpstreamBrokenError:
    return UpstreamBrokenError("the platform's event stream is damaged")
