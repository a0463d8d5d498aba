"""One client connection: aiohttp's protocol class, with the fast path before it.

Everything that reaches into aiohttp's server internals is in this file (and a contract test holds
it against the installed release). Framing is decided by aiohttp's hardened parser.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast
from typing import Protocol as Interface

from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from router.domain.errors import InvalidRequestError
from router.domain.request import Protocol
from router.gateway.client_limits import ClientLimits, Wait
from router.gateway.fast_attempt import Attempt, Carried
from router.gateway.fast_path import MAX_BODY_BYTES, FastPath
from router.gateway.fast_route import KnownHead
from router.gateway.relay import error_reply
from router.gateway.responses import error_answer

_log = logging.getLogger(__name__)

Message = tuple[RawRequestMessage, StreamReader]

_PATIENCE_S = 0.25
"""How long the fast path waits for the rest of a small body."""
_MALFORMED = InvalidRequestError("the request is not valid HTTP, or its head is too large")


class Data(Interface):
    """What a connection needs of the data plane."""

    fast_path: FastPath | None
    limits: ClientLimits
    is_draining: bool

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer an ordinary request."""
        ...


class GatewayServer(web.Server):
    """aiohttp's server, making the gateway's connections."""

    def __init__(self, data: Data, **options: Any) -> None:  # noqa: ANN401  aiohttp's
        # Without a time-out of its own, aiohttp notes when a connection became idle, and no more.
        super().__init__(data.handle, keepalive_timeout=0.0, **options)
        self._data = data

    def __call__(self) -> RequestHandler:
        """A connection for a client that was accepted."""
        return ClientConnection(self, self._data, loop=self._loop, **self._kwargs)


class ClientConnection(RequestHandler):
    """One client connection; framing is the business of aiohttp's hardened parser.

    Between requests, what is read is offered to the fast path first. `_owed` is how much of an
    ordinary request is still to come: 0 between requests; None once that cannot be told from the
    bytes any more, after which every request of the connection is an ordinary one.
    """

    __slots__ = (
        "_attempt", "_data", "_fast", "_head_since", "_held", "_is_closing_after", "_limits",
        "_owed", "_patience", "_raw", "_stalled_since", "_wait_tick", "carried",
    )  # fmt: skip

    def __init__(self, server: web.Server, data: Data, **options: Any) -> None:  # noqa: ANN401
        super().__init__(server, **options)
        self._data = data
        self._fast = data.fast_path
        self._limits = data.limits
        self._keepalive_handle = _NO_TIMER
        self._head_since = 0.0
        self._stalled_since = 0.0
        self._wait_tick: int | None = None
        self._attempt: Attempt | None = None
        self._raw = b""
        self._held = b""
        self._owed: int | None = 0
        self._is_closing_after = False
        self._patience: asyncio.TimerHandle | None = None
        self.carried: Carried | None = None
        if self._fast is not None:
            self._parser = _ParserTap(self._parser, self)  # type: ignore[assignment]  # stands in

    # -- waiting for the client ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there, unless it is one too many."""
        if not self._limits.enter(cast(asyncio.Transport, transport)):
            return
        super().connection_made(transport)
        self._wait_for_head()

    def pause_writing(self) -> None:
        """The client does not read; it has some time to go on."""
        super().pause_writing()
        self._stalled_since = self._loop.time()
        self._look_within(self._limits.allowed_s(Wait.SEND))

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stalled_since = 0.0
        super().resume_writing()
        if self._attempt is not None:
            self._attempt.on_client_ready()

    def expire(self) -> None:
        """Look whether the client has kept us waiting for too long, and look again if not yet."""
        self._wait_tick = None
        if self.transport is None:
            return
        now = self._loop.time()
        wait, since = self._wait(now)
        left_s = since + self._limits.allowed_s(wait) - now
        if left_s > 0:
            self._look_within(left_s)
            return
        self._limits.timed_out[wait] += 1
        self.transport.abort()

    def _wait(self, now: float) -> tuple[Wait, float]:
        """What we wait for, and since when. While we are at work ourselves, it is for nothing."""
        if self._stalled_since:
            return Wait.SEND, self._stalled_since
        if not self._expects_head():
            return Wait.IDLE, now
        idle_since = self._next_keepalive_close_time  # the end of the last answer, or 0
        if self._head_since > idle_since:
            return Wait.HEADER, self._head_since
        return Wait.IDLE, idle_since

    def _expects_head(self) -> bool:
        waiter = self._waiter
        is_idle = waiter is not None and not waiter.done() and not self._messages
        return is_idle and self._attempt is None

    def _wait_for_head(self) -> None:
        self._head_since = self._loop.time()
        self._look_within(self._limits.allowed_s(Wait.HEADER))

    def _look_within(self, delay_s: float) -> None:
        if self._wait_tick is not None:
            self._limits.wheel.disarm(self._wait_tick, self)
        self._wait_tick = self._limits.wheel.arm(self._limits.clock() + delay_s, self)

    # -- reading ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Offer a request to the fast path; what it declines goes to aiohttp."""
        if self._attempt is not None:
            self._hold(data)
            return
        if self._held:
            data, self._held = self._held + data, b""
            self._stop_patience()
        if self._fast is not None and self._owed == 0 and self._is_between_requests():
            known = self._fast.known(data)
            if known is not None and self._begin(data, *known):
                return
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Give bytes to aiohttp; end a body in whose middle the framing broke, as it does not."""
        super().data_received(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            request = self._current_request
            if request is not None and not request.content.is_eof():
                request.content.set_exception(web.RequestPayloadError("the framing is broken"))
        elif self._head_since <= self._next_keepalive_close_time and self._expects_head():
            self._wait_for_head()  # only a part of it has come

    def _is_between_requests(self) -> bool:
        """Whether aiohttp waits for the next request and the client reads our answers."""
        waiter = self._waiter
        return (
            waiter is not None
            and not waiter.done()
            and not self._messages
            and not self._paused
            and not self._data.is_draining
        )

    def _begin(self, data: bytes, head: KnownHead, start: int) -> bool:
        """Whether the fast path has the request, or waits for the rest of it."""
        missing = head.body_bytes - (len(data) - start)
        if missing > 0:
            self._held = data
            self._patience = self._loop.call_later(_PATIENCE_S, self._give_to_aiohttp)
            return True
        if missing < 0 or self._fast is None:
            return False
        self._attempt = self._fast.begin(self, head, data[start:])
        if self._attempt is None:
            return False
        self._raw = data
        return True

    def _give_to_aiohttp(self) -> None:
        """The rest of a body is late: the ordinary path knows how to wait, and for how long."""
        data, self._held = self._held, b""
        self._feed(data)

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _hold(self, data: bytes) -> None:
        """Keep what a client sends before it has its answer; a bounded amount of it."""
        self._held += data
        if len(self._held) > MAX_BODY_BYTES:
            self.pause_reading()

    def parsed(self, messages: Sequence[Message], data: bytes, *, upgraded: bool) -> bool:
        """aiohttp's parser has read `data`; whether the fast path takes what was in it."""
        if not data:  # aiohttp goes on with what its parser had kept
            return self._passed_on(messages)
        owed, self._owed = self._owed, None
        if owed is None or upgraded:
            return False
        if owed > 0:
            if not messages and len(data) <= owed:
                self._owed = owed - len(data)
            return False
        start = data.find(b"\r\n\r\n") + 4
        length = _declared_length(messages[0][0]) if len(messages) == 1 else None
        if start < 4 or length is None:
            return False
        missing = length - (len(data) - start)
        if messages[0][1].is_eof() != (missing == 0) or missing < 0:
            return False
        self._owed = missing
        return missing == 0 and self._offer(messages[0][0], data, start)

    def _passed_on(self, messages: Sequence[Message]) -> bool:
        if messages:
            self._owed = None
        return False

    def _offer(self, message: RawRequestMessage, data: bytes, start: int) -> bool:
        if self._fast is None or self.carried is not None or message.method != "POST":
            return False
        if message.should_close or message.version != HttpVersion11:
            return False
        if not self._is_between_requests() or len(data) - start > MAX_BODY_BYTES:
            return False
        head = self._fast.understand(message, data[:start], len(data) - start)
        return head is not None and self._begin(data, head, start)

    # -- the fast path's answers -----------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends with the answer under way."""
        return self._is_closing_after or self._data.is_draining

    @property
    def takes_more(self) -> bool:
        """Whether the client reads as fast as we send."""
        return not self._paused

    def send_part(self, data: bytes) -> None:
        """Send a part of a response."""
        if self.transport is not None:
            self.transport.write(data)

    def abort(self) -> None:
        """Break off the response under way."""
        self._attempt, self._raw = None, b""
        if self.transport is not None:
            self.transport.abort()

    def reply(self, data: bytes) -> None:
        """Send a response, or its end, and go on with what the client has sent meanwhile."""
        self._attempt, self._raw = None, b""
        if self.transport is not None:
            self.transport.write(data)
        if self.is_closing:
            super().close()
            return
        self._next_keepalive_close_time = self._loop.time()
        self._go_on()

    def hand_over(self, carried: Carried) -> None:
        """Let aiohttp read the request again, for the ordinary path."""
        data = self._raw
        self._attempt, self._raw = None, b""
        self.carried = carried
        self._feed(data)
        if self._is_closing_after:
            super().close()
        self._go_on()

    def _go_on(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self.resume_reading()
            self.data_received(data)

    # -- the connection's end --------------------------------------------------------------------

    def close(self) -> None:
        """Close once the attempt under way has been answered."""
        if self._attempt is not None:
            self._is_closing_after = True
        else:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  aiohttp's
        """End the connection, and what is still under way on it."""
        self._abandon()
        super().close()
        await super().shutdown(timeout)

    def _abandon(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.client_gone()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone: so is the reason for its attempt."""
        self._limits.leave()
        if self._wait_tick is not None:
            self._limits.wheel.disarm(self._wait_tick, self)
            self._wait_tick = None
        self._stop_patience()
        self._abandon()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused; the connection is closed afterwards."""
        _log.info("malformed request from a client: status %d, %s", status, type(exc).__name__)
        del message  # quotes the client's bytes
        reply = error_reply(error_answer(_MALFORMED, Protocol.OIP))
        reply.force_close()
        return reply


class _NoTimer:
    """Stands where aiohttp would keep a timer for each connection; see `ClientLimits`."""

    def cancel(self) -> None:
        """Nothing to cancel."""


_NO_TIMER: Any = _NoTimer()


class _ParserTap:
    """Stands before aiohttp's parser, and shows the connection what it has read."""

    __slots__ = ("_connection", "_parser")

    def __init__(self, parser: Any, connection: ClientConnection) -> None:  # noqa: ANN401
        self._parser = parser
        self._connection = connection

    def feed_data(self, data: bytes) -> tuple[Sequence[Message], bool, bytes]:
        """As the parser's, without what the fast path has taken."""
        messages, upgraded, tail = self._parser.feed_data(data)
        if self._connection.parsed(messages, data, upgraded=upgraded):
            self._parser.message_consumed()
            return (), False, b""
        return messages, upgraded, tail

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the parser has
        return getattr(self._parser, name)


def _declared_length(message: RawRequestMessage) -> int | None:
    """The length of a body that nothing but one Content-Length frames."""
    lengths = message.headers.getall("content-length", [])
    if message.chunked or message.upgrade or len(lengths) > 1:
        return None
    if not lengths:
        return 0
    return int(lengths[0]) if lengths[0].isascii() and lengths[0].isdecimal() else None
