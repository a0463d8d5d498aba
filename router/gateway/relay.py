"""The way of an answer back to the client: which headers are passed on, and in which form."""

from collections.abc import Sequence
from http import HTTPStatus

from router.gateway.head import HOP_BY_HOP, OURS
from router.gateway.responses import ErrorAnswer
from router.upstream.head import encode_lines

Headers = Sequence[tuple[str, str]]

SERVER = ("server", "hybrid-router")
"""Sent with every answer, so that no software versions are told."""
_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_SET_BY_US = HOP_BY_HOP | {"content-length", "x-request-id", "server-timing", "server"}


LAST_CHUNK = b"0\r\n\r\n"


def chunk(part: bytes) -> bytes:
    """A part of an answer whose length is not known, as it goes on the wire."""
    return b"%x\r\n%b\r\n" % (len(part), part)


def is_relayed(name: str) -> bool:
    """Whether a header of the backend is passed on; not what another gateway says of itself."""
    lower = name.lower()
    return lower not in _SET_BY_US and not lower.startswith(OURS)


def reply_head(status: int, headers: Headers) -> bytes:
    """Status line and headers as they go on the wire, without the empty line."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in (*headers, SERVER)]
    return encode_lines(lines)


def error_bytes(answer: ErrorAnswer, own_lines: bytes) -> bytes:
    """An error as it goes on the wire, with whole header lines of ours."""
    fields = [*answer.headers, SERVER, ("content-length", str(len(answer.body)))]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
    start = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n".encode()
    return b"".join((start, lines, own_lines, b"\r\n", answer.body))
