"""The few parameters of an OIP request that change where it runs; they are inside the body.

Read only for models that ask for it (`read_parameters`), and of binary requests only the JSON part.
"""

import zlib
from collections.abc import Mapping
from typing import Annotated

import msgspec

from router.domain.errors import InvalidRequestError
from router.domain.request import Priority

_MAX_JSON_BYTES = 16 * 1024 * 1024


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


class _Request(msgspec.Struct):
    parameters: Parameters = Parameters()


def read_parameters(body: bytes, headers: Mapping[str, str]) -> Parameters:
    """The parameters of a body. Raises InvalidRequestError."""
    try:
        json = _json_part(_decompressed(body, headers.get("content-encoding", "")), headers)
        return msgspec.json.decode(json, type=_Request).parameters
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, zlib.error) as error:
        raise InvalidRequestError(f"the body is not a valid inference request: {error}") from None


def _json_part(body: bytes, headers: Mapping[str, str]) -> bytes:
    length = headers.get("inference-header-content-length")
    if length is None:
        return body
    if not length.isdecimal() or len(length) > 12:
        raise ValueError("Inference-Header-Content-Length is not a number")
    # 0 means that the whole body is one raw tensor: there is no JSON and no parameter.
    return body[: int(length)] or b"{}"


def _decompressed(body: bytes, coding: str) -> bytes:
    if coding in {"", "identity"}:
        return body
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32 if coding == "gzip" else zlib.MAX_WBITS)
    plain = inflater.decompress(body, _MAX_JSON_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError(f"it is larger than {_MAX_JSON_BYTES} bytes when decompressed")
    return plain
