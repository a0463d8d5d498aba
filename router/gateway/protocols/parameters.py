"""The few parameters of an OIP request that change where it runs; they are inside the body.

Read only for models that ask for it (`read_parameters`), and of binary requests only the JSON part.
What is compressed is unpacked bit by bit, looked at and forgotten.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from router.domain.errors import InvalidRequestError
from router.domain.request import Priority
from router.gateway.protocols.json_fields import PART_BYTES, find_fields_in_turns, parts_of

_MAX_UNPACKED_BYTES = 64 * 1024 * 1024
"""As much as a body has by default that comes unpacked; a second's work, done bit by bit."""
_FREE_BYTES = 1024 * 1024
_MAX_RATIO = 100
"""JSON of numbers shrinks to a tenth; what shrinks more may do so up to `_FREE_BYTES`."""
_JUDGED = frozenset({"parameters"})

_CLASSES = {1: Priority.HIGH, 2: Priority.NORMAL}
"""All larger numbers are low."""


class Parameters(msgspec.Struct, frozen=True):
    """Reserved request parameters; `timeout` is in microseconds, priority 1 is the highest."""

    timeout: int | None = None
    priority: Annotated[int, msgspec.Meta(ge=0)] = 0
    sequence_id: int | str | None = None

    @property
    def class_(self) -> Priority | None:
        """The class that the priority is in, None for 0: the protocol's word for the default."""
        if self.priority == 0:
            return None
        return _CLASSES.get(self.priority, Priority.LOW)


async def read_parameters(body: bytes, headers: Mapping[str, str]) -> Parameters:
    """The parameters of a body. Raises InvalidRequestError."""
    try:
        fields = await find_fields_in_turns(_json_parts(body, headers), _JUDGED)
        given = fields.get("parameters")
        if given is None:
            return Parameters()
        return msgspec.json.decode(given.value, type=Parameters)
    except (msgspec.DecodeError, ValueError, zlib.error) as error:
        raise InvalidRequestError(f"the body is not a valid inference request: {error}") from None


def _json_parts(body: bytes, headers: Mapping[str, str]) -> Iterator[bytes]:
    length = headers.get("inference-header-content-length")
    if length is not None and (not length.isdecimal() or len(length) > 12):
        raise ValueError("Inference-Header-Content-Length is not a number")
    size_bytes = int(length) if length is not None else None
    if size_bytes == 0:
        return iter((b"{}",))  # the whole body is one raw tensor
    coding = headers.get("content-encoding", "").strip().lower()
    if coding in {"", "identity"}:
        return parts_of(body if size_bytes is None else body[:size_bytes])
    return _unpacked(body, coding, size_bytes)


def _unpacked(body: bytes, coding: str, size_bytes: int | None) -> Iterator[bytes]:
    """The first bytes, or all, of what was compressed. Raises ValueError where that is too much."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32 if coding == "gzip" else zlib.MAX_WBITS)
    most = max(_FREE_BYTES, min(_MAX_UNPACKED_BYTES, _MAX_RATIO * len(body)))
    left = most + 1 if size_bytes is None else size_bytes
    if size_bytes is not None and size_bytes > most:
        raise _too_much(most)
    for packed in parts_of(body):
        unread = packed
        while left and not inflater.eof:
            limit = min(PART_BYTES, left)
            part = inflater.decompress(unread, limit)
            unread = inflater.unconsumed_tail
            left -= len(part)
            yield part
            if not unread and len(part) < limit:
                break
    if not left and size_bytes is None:
        raise _too_much(most)


def _too_much(most: int) -> ValueError:
    return ValueError(f"what it holds compressed has more than {most} bytes of JSON")
