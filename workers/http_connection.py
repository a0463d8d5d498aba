"""One client connection: aiohttp's protocol class, with the shortest way before it.

Decides which requests are offered to that way: plain ones that have come whole, while the client
waits for nothing else. Framing is the business of aiohttp's hardened parser. All that reaches into
aiohttp's server is here (the tests of the front hold it against the installed release).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from multidict import istr

from workers.lanes import ASIDE_BYTES
from workers.operations import json_reply
from workers.protocol import Reply
from workers.service import SERVER_NAME

_log = logging.getLogger(__name__)

AtOnce = Callable[[str, Mapping[str, str], bytes], Reply | None]
"""The reply to a POST of that path, headers and body, or None if it is not for this way."""
Message = tuple[RawRequestMessage, StreamReader]

# Clients do not retry a POST on a connection that was closed while idle: let them close first.
KEEP_ALIVE_S: Final = 3600.0
# How long a refused body is read and thrown away, so that its sender sees the reply.
LINGER_S: Final = 2.0
MAX_HEADER_BYTES: Final = 32 * 1024
_ERROR_CHARACTERS: Final = 200
# Looked up in less time than strings, whose case is not known.
_CONTENT_ENCODING: Final = istr("content-encoding")
_EXPECT: Final = istr("expect")


class Connection(RequestHandler):
    """aiohttp's connection, with the protocol's error body also for bytes that are no HTTP."""

    __slots__ = ("_at_once",)

    def __init__(self, server: web.Server, at_once: AtOnce) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            # Bodies are inflated by us, with a bound.
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGER_S,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            access_log=None,  # type: ignore[arg-type]  # off: the annotation forgets None
        )
        self._at_once = at_once
        self._parser: Any = _Tap(self._parser, self._take)

    def _take(self, messages: Sequence[Message]) -> bool:
        """Whether the request that was just read has been answered; else aiohttp has it."""
        waiter = self._waiter
        if len(messages) != 1 or waiter is None or waiter.done() or self._messages or self._paused:
            return False
        message, payload = messages[0]
        if (
            message.method != "POST"
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or not payload.is_eof()
            or not 0 < payload.total_bytes < ASIDE_BYTES
        ):
            return False
        headers = message.headers
        if _CONTENT_ENCODING in headers or _EXPECT in headers:
            return False  # what it inflates to is unknown: never on the loop
        # Looked at, not taken: it is aiohttp's again if the request is declined.
        body = b"".join(payload._buffer)  # noqa: SLF001
        reply = self._at_once(message.path, headers, body)
        if reply is None or self.transport is None:
            return False
        self.transport.write(to_bytes(reply))
        self._next_keepalive_close_time = self._loop.time() + KEEP_ALIVE_S
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response to a request that could not be parsed; closes the connection."""
        _log.info("refused a malformed HTTP request: %s", type(exc).__name__)
        text = " ".join((message or "bad request").split())[:_ERROR_CHARACTERS]
        response = to_response(json_reply({"error": text}, status))
        response.force_close()
        return response


class _Tap:
    """Stands before aiohttp's parser, and keeps back what `take` has taken."""

    __slots__ = ("_parser", "_take")

    def __init__(self, parser: Any, take: Callable[[Sequence[Message]], bool]) -> None:  # noqa: ANN401
        self._parser = parser
        self._take = take

    def feed_data(self, data: bytes) -> tuple[Sequence[Message], bool, bytes]:
        """As the parser's, without what was taken."""
        messages, upgraded, tail = self._parser.feed_data(data)
        if messages and not upgraded and self._take(messages):
            self._parser.message_consumed()
            return (), False, tail
        return messages, upgraded, tail

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the parser has
        return getattr(self._parser, name)


def to_response(reply: Reply) -> web.Response:
    """The reply as aiohttp sends it, without aiohttp's and Python's versions."""
    headers = {**reply.headers, "server": SERVER_NAME}
    return web.Response(status=reply.status, body=reply.body, headers=headers)


def to_bytes(reply: Reply) -> bytes:
    """The reply as bytes for a connection that stays open."""
    status, body, headers = reply
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = (
        f"{_status_line(status)}{lines}content-length: {len(body)}\r\n"
        f"date: {rfc822_formatted_time()}\r\nserver: {SERVER_NAME}\r\n\r\n"
    )
    return head.encode("latin-1") + body


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
