"""Bytes of one answer in, its head and body out: the only place that names aiohttp's parser.

Framing is decided by llhttp, in its C form inside aiohttp; this module adds what a relay needs on
top: one final answer per exchange, no byte after it, strict names and values, hop-by-hop headers
removed. It never touches a socket, so every split of the same bytes can be tested.
"""

import asyncio
import re
from typing import NamedTuple

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser, RawResponseMessage
from aiohttp.streams import StreamReader

from router.domain.errors import ResponseLostError, UpstreamBrokenError
from router.upstream.response_head import (
    EVENT_STREAMS,
    MAX_HEADERS,
    ResponseHead,
    is_hop_by_hop,
)

_NEVER = 2**30  # the mark at which aiohttp's stream would pause; it is emptied long before
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_HTTP_VERSIONS = frozenset({(1, 0), (1, 1)})
_MORE_THAN_ONE = "the upstream sent more than one answer"
_SWITCHING, _OK, _NO_CONTENT, _NOT_MODIFIED = 101, 200, 204, 304


class Piece(NamedTuple):
    """What one segment added: the head (once), body bytes, and whether that was the end."""

    head: ResponseHead | None
    body: bytes
    is_complete: bool


class ResponseReader:
    """Reads one answer; a new exchange takes a new reader.

    After the end, `keep_alive` says whether the connection may carry another exchange.
    """

    __slots__ = (
        "_head_room", "_is_head_request", "_loop", "_max_head_bytes", "_parser", "_payload",
        "_until_close", "keep_alive",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, max_head_bytes: int, is_head_request: bool
    ) -> None:
        self._loop = loop
        self._max_head_bytes = max_head_bytes
        self._is_head_request = is_head_request
        self._parser: HttpResponseParser | None = None
        self._head_room = max_head_bytes
        self._payload: StreamReader | None = None
        self._until_close = False
        self.keep_alive = False

    def feed(self, data: bytes) -> Piece:
        """Take the next bytes, in any segmentation. Raises UpstreamBrokenError."""
        if self._parser is None:
            self._parser = self._make_parser()
        return self._feed_parser(self._parser, data)

    def _feed_parser(self, parser: HttpResponseParser, data: bytes) -> Piece:
        if self._payload is not None:
            head = self._parse(parser, data)
        elif len(data) <= self._head_room:
            self._head_room -= len(data)
            head = self._parse(parser, data)
        else:
            head = self._parse_across_head_limit(parser, data)
        payload = self._payload
        if payload is None:
            return Piece(None, b"", is_complete=False)
        is_complete = payload.is_eof()
        if is_complete:
            _require_nothing_left(parser)
        return Piece(head, payload.read_nowait(), is_complete)

    def _make_parser(self) -> HttpResponseParser:
        return HttpResponseParser(
            _NoFlowControl(self._loop),
            self._loop,
            _NEVER,
            max_line_size=self._max_head_bytes,
            max_headers=MAX_HEADERS,
            max_field_size=self._max_head_bytes,
            response_with_body=not self._is_head_request,
            read_until_eof=True,
            auto_decompress=False,
        )

    def feed_eof(self) -> None:
        """Take the end of the connection as the end of the body; raises ResponseLostError."""
        if not self._until_close:
            raise ResponseLostError("the upstream closed the connection before its answer ended")

    def _parse_across_head_limit(
        self, parser: HttpResponseParser, data: bytes
    ) -> ResponseHead | None:
        head = self._parse(parser, data[: self._head_room])
        if head is None:
            raise UpstreamBrokenError(
                f"the head of the upstream's answer is longer than {self._max_head_bytes} bytes"
            )
        self._parse(parser, data[self._head_room :])
        return head

    def _parse(self, parser: HttpResponseParser, data: bytes) -> ResponseHead | None:
        try:
            messages, _, _ = parser.feed_data(data)
        except HttpProcessingError as error:
            raise UpstreamBrokenError("the upstream's answer is not valid HTTP/1.1") from error
        head = None
        for message, payload in messages:
            if 100 <= message.code < _OK and message.code != _SWITCHING:
                continue  # interim: the final answer follows
            if self._payload is not None:
                raise UpstreamBrokenError(_MORE_THAN_ONE)
            head = self._accept(message, payload)
        return head

    def _accept(self, message: RawResponseMessage, payload: StreamReader) -> ResponseHead:
        self._payload = payload
        head = _read_head(message, has_body=not self._is_head_request)
        # The parser has seen the end, or it will: by length, by the last chunk, or by the close.
        has_end = head.content_length is not None or bool(message.chunked)
        self._until_close = not has_end
        self.keep_alive = has_end and not message.should_close
        return head


def _require_nothing_left(parser: HttpResponseParser) -> None:
    """Refuse the beginning of another answer: the parser holds it without a word.

    `feed_eof` after a complete message answers None unless a next one has begun.
    """
    try:
        has_more = parser.feed_eof() is not None
    except HttpProcessingError as error:
        raise UpstreamBrokenError(_MORE_THAN_ONE) from error
    if has_more:
        raise UpstreamBrokenError(_MORE_THAN_ONE)


class _NoFlowControl(BaseProtocol):
    """Stands where aiohttp expects its own protocol; the connection does its own flow control."""

    __slots__ = ()

    def pause_reading(self) -> None:
        """Nothing to pause: the stream is emptied after every segment."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing was paused."""


def _read_head(message: RawResponseMessage, *, has_body: bool) -> ResponseHead:
    status = message.code
    if status == _SWITCHING or status < _OK or message.version not in _HTTP_VERSIONS:
        raise UpstreamBrokenError("the upstream answered with a status or version that is not HTTP")
    if "\0" in message.reason:
        raise UpstreamBrokenError("the reason phrase of the upstream's answer contains NUL")
    received = [_decode(name, value) for name, value in message.raw_headers]
    _require_plain_framing(received, message)
    dropped = _connection_options(received)
    if status == _NO_CONTENT:  # no body, so no length of it either (RFC 9110 section 8.6)
        dropped.add("content-length")
    headers = tuple(
        (name, value)
        for key, name, value in received
        if key not in dropped and not is_hop_by_hop(key)
    )
    is_event_stream = any(
        key == "content-type" and value.lower().startswith(EVENT_STREAMS)
        for key, _, value in received
    )
    lengths = [int(value) for key, _, value in received if key == "content-length"]
    length = lengths[0] if lengths else None
    if not has_body or status in {_NO_CONTENT, _NOT_MODIFIED}:
        length = 0
    return ResponseHead(status, message.reason, headers, length, is_event_stream)


def _require_plain_framing(
    received: list[tuple[str, str, str]], message: RawResponseMessage
) -> None:
    """Allow one Transfer-Encoding, chunked, in HTTP/1.1; conflicts of lengths stop the parser."""
    codings = [value.lower() for key, _, value in received if key == "transfer-encoding"]
    if codings and (codings != ["chunked"] or message.version != (1, 1)):
        raise UpstreamBrokenError(
            "the upstream's answer has a Transfer-Encoding other than chunked"
        )


def _decode(raw_name: bytes, raw_value: bytes) -> tuple[str, str, str]:
    """Return a header's lower-case key, its name and its value.

    The parser runs in a lenient mode, so what it lets through (blanks in names, control
    characters in values) is refused here.
    """
    if not _NAME.fullmatch(raw_name) or not _VALUE.fullmatch(raw_value):
        raise UpstreamBrokenError("the upstream's answer has a malformed header")
    name = raw_name.decode("ascii")
    return name.lower(), name, raw_value.decode("utf-8", "surrogateescape")


def _connection_options(received: list[tuple[str, str, str]]) -> set[str]:
    return {
        option.strip().lower()
        for key, _, value in received
        if key == "connection"
        for option in value.split(",")
    }
