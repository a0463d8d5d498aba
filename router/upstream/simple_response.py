"""A shortcut for the answer that nearly always comes: one segment, one Content-Length, nothing odd.

It recognises a small strict subset of HTTP/1.1 and says None to everything else, which the real
parser then reads from the first byte. Whatever it accepts the parser reads as exactly the same
(a differential test proves it); it costs a sixth of the parser, because header lines repeat from
answer to answer and are looked up instead of read.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from router.upstream.response_head import EVENT_STREAMS, MAX_HEADERS, ResponseHead, is_hop_by_hop

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-9][0-9]{2}) ([!-~](?:[ -~]*[!-~])?)")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([!-~](?:[ -~]*[!-~])?)")
_LENGTH = re.compile(r"[0-9]{1,15}")
_MAX_KNOWN_BYTES = 1024
_MAX_LINE_BYTES = 256  # bounds the memory of the caches
_BODYLESS = frozenset({204, 304})
_REFUSED = frozenset({"sec-websocket-key1"})  # the parser does not accept an answer with it


class _Line(NamedTuple):
    header: tuple[str, str] | None
    content_length: int | None


def read_simple(data: bytes, max_head_bytes: int) -> tuple[ResponseHead, bytes] | None:
    """Return the head and body if `data` is exactly one simple answer, else None.

    Equal heads give the same head object, so whoever needs more of it can remember that too.
    """
    end = data.find(b"\r\n\r\n", 0, max_head_bytes)
    if end < 0:
        return None
    head = _read_known_head(data[:end]) if end <= _MAX_KNOWN_BYTES else _read_head(data[:end])
    if head is None or head.content_length is None:
        return None
    body = data[end + 4 :]
    return (head, body) if len(body) == head.content_length else None


def _read_head(block: bytes) -> ResponseHead | None:
    lines = block.split(b"\r\n")
    status_line = _read_status_line(lines[0])
    if status_line is None or len(lines) > MAX_HEADERS:
        return None
    headers: list[tuple[str, str]] = []
    content_length = None
    for raw in lines[1:]:
        read = _read_known_line if len(raw) <= _MAX_LINE_BYTES else _read_header_line
        line = read(raw)
        if line is None:
            return None
        header, length = line
        if header is not None:
            headers.append(header)
        if length is not None:
            if content_length is not None:
                return None
            content_length = length
    if content_length is None:
        return None
    status, reason = status_line
    return ResponseHead(status, reason, tuple(headers), content_length, is_event_stream=False)


@lru_cache(maxsize=256)
def _read_known_head(block: bytes) -> ResponseHead | None:
    """Answers of one upstream mostly repeat their head to the letter."""
    return _read_head(block)


@lru_cache(maxsize=256)
def _read_status_line(line: bytes) -> tuple[int, str] | None:
    match = _STATUS_LINE.fullmatch(line)
    if match is None or len(line) > _MAX_LINE_BYTES or int(match[1]) in _BODYLESS:
        return None
    return int(match[1]), match[2].decode("ascii")


@lru_cache(maxsize=1024)
def _read_known_line(line: bytes) -> _Line | None:
    """Short lines mostly repeat. Long ones rarely do: the log that AWS Lambda sends with a call."""
    return _read_header_line(line)


def _read_header_line(line: bytes) -> _Line | None:
    match = _HEADER_LINE.fullmatch(line)
    if match is None:
        return None
    name, value = match[1].decode("ascii"), match[2].decode("ascii")
    key, folded = name.lower(), value.lower()
    if key == "connection" and folded == "keep-alive":
        return _Line(None, None)
    if key == "content-length":
        return _Line((name, value), int(value)) if _LENGTH.fullmatch(value) else None
    if key == "content-type" and folded.startswith(EVENT_STREAMS):
        return None
    if is_hop_by_hop(key) or key in _REFUSED:
        return None
    return _Line((name, value), None)
