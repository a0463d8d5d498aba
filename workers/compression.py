"""Content codings of bodies: gzip and deflate, both ways.

Decides how far a body may inflate (decompression bombs) and which coding a client gets. Never
looks inside a body.
"""

import zlib
from typing import Final

from workers.protocol import InvalidRequest, PayloadTooLarge, UnsupportedEncoding

_WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# Below this size the coding's own header and the time cost more than is saved.
MIN_COMPRESSED_BYTES: Final = 1024
# Tensors compress poorly; higher levels only cost time.
_LEVEL: Final = 1


def decompress(body: bytes | bytearray, encoding: str, limit_bytes: int) -> bytes | bytearray:
    """The body without its Content-Encoding; "" and "identity" return it untouched.

    Raises UnsupportedEncoding for other codings than gzip and deflate, PayloadTooLarge as soon
    as the output exceeds `limit_bytes` (nothing beyond that is inflated), InvalidRequest for
    corrupt or truncated data.
    """
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _WINDOW_BITS:
        raise UnsupportedEncoding(
            f"Content-Encoding {encoding[:40]!r} is not supported; use gzip, deflate or identity"
        )
    try:
        return _inflate(body, coding, limit_bytes)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not valid {coding}: {error}") from error


def _inflate(body: bytes | bytearray, coding: str, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    room = limit_bytes
    rest: bytes = bytes(body)
    while True:
        # gzip allows several members one after the other; each needs its own state.
        inflater = zlib.decompressobj(_WINDOW_BITS[coding])
        part = inflater.decompress(rest, room + 1)
        if len(part) > room:
            raise PayloadTooLarge(
                f"the {coding} body inflates to more than the limit of {limit_bytes} bytes"
            )
        if not inflater.eof:
            raise InvalidRequest(f"the {coding} body ends before its stream does")
        parts.append(part)
        room -= len(part)
        rest = inflater.unused_data
        if not rest:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        if coding != "gzip":
            raise InvalidRequest("the deflate body has bytes after the end of its stream")


def choose_coding(accept_encoding: str) -> str | None:
    """gzip or deflate if the Accept-Encoding value allows it (gzip first), else None."""
    weights = dict(
        _weighted(token) for token in accept_encoding.lower().split(",") if token.strip()
    )
    ranked = [(weights.get(coding, 0.0), coding) for coding in ("gzip", "deflate")]
    weight, coding = max(ranked, key=lambda pair: pair[0])
    return coding if weight > 0 else None


def _weighted(token: str) -> tuple[str, float]:
    coding, _, parameter = token.partition(";")
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return coding.strip(), 1.0
    try:
        return coding.strip(), float(value)
    except ValueError:
        return coding.strip(), 0.0


def compress(body: bytes, coding: str) -> bytes:
    """The body in `coding`, one of those `choose_coding` returns."""
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS[coding])
    return deflater.compress(body) + deflater.flush()
