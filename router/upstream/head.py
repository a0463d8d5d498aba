"""The head of a request, as bytes: the only place that writes a request line or a header.

Decides framing (Content-Length, always ours) and refuses whatever could smuggle a second header
or request in. Never looks at the body.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from router.domain.errors import InvalidRequestError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"/[!-~]*")
_OURS = "content-length"
_CONNECTION_HEADERS = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_BODYLESS_METHODS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})


def build_head(
    method: str,
    target: str,
    host: str,
    headers: Sequence[tuple[str, str]],
    body_bytes: int,
) -> bytes:
    """Return the request line and headers, up to and including the empty line.

    As `open_head`, with a Content-Length of ours: `body_bytes`.
    """
    return closed_head(open_head(method, target, host, headers), method, body_bytes)


def closed_head(lines: bytes, method: str, body_bytes: int) -> bytes:
    """A head that was left open, with its length and the empty line."""
    if body_bytes or method not in _BODYLESS_METHODS:
        return b"%bContent-Length: %d\r\n\r\n" % (lines, body_bytes)
    return lines + b"\r\n"


def whole_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Lines to add to an open head. Raises InvalidRequestError as `open_head`."""
    lines = []
    for name, value in headers:
        _checked_name(name)
        lines.append(f"{name}: {value}")
    return encode_lines(lines) if lines else b""


def open_head(method: str, target: str, host: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return the request line and headers, without a length and the empty line.

    A Host among `headers` replaces `host`; a Content-Length among them is left out. Values are sent
    as UTF-8, surrogate escapes as the bytes they stand for.
    Raises InvalidRequestError for a method, target, name or value that HTTP/1.1 does not allow,
    and for headers that manage a connection, which is never the caller's.
    """
    if not _is_token(method):
        raise InvalidRequestError("the request method is not an HTTP token")
    if not _TARGET.fullmatch(target):
        raise InvalidRequestError("the request target must be a path of printable ASCII")
    lines = [f"{method} {target} HTTP/1.1"]
    has_host = False
    for name, value in headers:
        key = _checked_name(name)
        if key == _OURS:
            continue
        if key == "host":
            if has_host:
                raise InvalidRequestError("the request has more than one Host header")
            has_host = True
        lines.append(f"{name}: {value}")
    if not has_host:
        lines.insert(1, f"Host: {host}")
    return encode_lines(lines)


def encode_lines(lines: list[str]) -> bytes:
    """The lines of a head as bytes, each with its end. Raises InvalidRequestError."""
    text = "\r\n".join(lines) + "\r\n"
    # Counting the whole head once is cheaper than looking into each value: every line ending
    # that is not one of ours came in with a value.
    endings = len(lines)
    if text.count("\n") != endings or text.count("\r") != endings or "\0" in text:
        raise InvalidRequestError("a header value contains CR, LF or NUL")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidRequestError("a header value is not valid text") from error


@lru_cache(maxsize=64)
def _is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def _checked_name(name: str) -> str:
    """Return the name in lower case, or raise; cached because the same few come every time."""
    if _TOKEN.fullmatch(name) is None:
        raise InvalidRequestError("a header name is not an HTTP token")
    key = name.lower()
    if key in _CONNECTION_HEADERS or key.startswith("proxy-"):
        raise InvalidRequestError(f"the header {key} is not passed on to an upstream")
    return key
