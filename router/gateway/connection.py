"""One client connection: aiohttp's protocol class, with the fast path before it.

Everything that reaches into aiohttp's server internals is in this file (and a contract test holds
it against the installed release). Framing is decided by aiohttp's hardened parser.
"""

import asyncio
import logging
from collections import deque
from typing import Any, cast
from typing import Protocol as Interface

from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from router.domain.errors import HeadTooLargeError, InvalidRequestError, RouterError
from router.gateway.body import WINDOW_BYTES, BodyBudget
from router.gateway.client_limits import ClientLimits, Wait
from router.gateway.direct import Client, Direct
from router.gateway.fast_attempt import CLOSE, Attempt, Carried
from router.gateway.fast_path import MAX_BODY_BYTES, FastPath, Known
from router.gateway.fast_route import KnownHead
from router.gateway.fast_upload import Upload
from router.gateway.framing import Framing, RefusedError
from router.gateway.function_call import FunctionCall
from router.gateway.known_heads import Sorted
from router.gateway.relay import Headers, error_bytes, error_reply
from router.gateway.responses import ErrorAnswer
from router.telemetry.repeats import BY_STRANGERS

_log = logging.getLogger(__name__)

_PATIENCE_S = 0.25
"""How long the fast path waits for the rest of a small body, or the first part of a long one."""
_MAX_LATER = 16
"""A client that has sent so many segments beyond its request is not read until it is answered."""
_MAX_FIRST_BYTES = 1 << 20
"""More than a first part and what one read adds to it; the ordinary path would have it."""
LINGER_S = 2.0
"""How long an unread body is drained so that its sender can read our refusal."""
_MALFORMED = InvalidRequestError("the request is not valid HTTP")
_TOO_LONG = HeadTooLargeError("a line of the request is too long")


class Data(Interface):
    """What a connection needs of the data plane."""

    fast_path: FastPath | None
    limits: ClientLimits
    bodies: BodyBudget
    is_draining: bool

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer an ordinary request."""
        ...

    def direct(
        self, client: Client, known: KnownHead, head: Sorted, body: bytes, carried: Carried | None
    ) -> Direct:
        """Answer a request with a known head and all of its body; `carried` if it has begun."""
        ...

    def refuse(self, error: RouterError) -> tuple[ErrorAnswer, Headers]:
        """Record what has not become a request; returns its answer and the headers to it."""
        ...


class ClientConnection(RequestHandler):
    """One client connection; framing is the business of aiohttp's hardened parser.

    Between requests, what is read is offered to the fast path first. What is kept of it before it
    is a request counts into the budget of bodies.
    """

    __slots__ = (
        "_attempt", "_begun", "_charged", "_data", "_fast", "_head_since", "_held",
        "_is_closing_after", "_is_cut_short", "_is_lingering", "_is_turning", "_later", "_limits",
        "_patience", "_raw", "_stalled_since", "_stops", "_upload", "_wait_tick", "_was_patient",
        "carried",
    )  # fmt: skip
    _parser: Any
    """A `Framing`; None once the client has gone."""

    def __init__(self, server: web.Server, data: Data, **options: Any) -> None:  # noqa: ANN401
        super().__init__(server, **options)
        self._data = data
        self._fast = data.fast_path
        self._limits = data.limits
        self._keepalive_handle = _NO_TIMER
        self._head_since = 0.0
        self._stalled_since = 0.0
        self._wait_tick: int | None = None
        self._attempt: Attempt | FunctionCall | Direct | None = None
        self._begun: Known | None = None
        self._is_turning = False
        self._upload: Upload | None = None
        self._is_cut_short = False
        self._is_lingering = False
        self._was_patient = False
        self._stops = False
        self._raw = b""
        self._held = b""
        self._later: deque[bytes] = deque()
        self._charged = 0
        self._is_closing_after = False
        self._patience: asyncio.TimerHandle | None = None
        self.carried: Carried | None = None
        self._parser = self._new_parser()

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
            if self._upload is not None:
                self._pass_on(self._upload, data)
            else:
                self._keep_for_later(data)
        elif self._is_turning:
            self._keep_for_later(data)
        else:
            self._receive(data, may_turn=True)

    def _receive(self, data: bytes, *, may_turn: bool) -> None:
        held = self._held
        whole = held + data if held else data
        self._held = b""
        if self._fast is not None and (may_turn or self._is_between_requests()):
            known = self._fast.known(whole)
            if known is not None and self._is_between_requests():
                if self._begin(whole, *known):
                    return
            elif known is not None and self._is_about_to_wait():
                self._is_turning = True
                self._keep_for_later(whole)
                self._loop.call_soon(self._receive_turned)
                return
        if self._is_cut_short:
            return  # the rest of a body, after its answer
        self._stop_patience()
        self._feed(whole)

    def _is_about_to_wait(self) -> bool:
        """Whether aiohttp will have answered, or begun, in the loop's next turn.

        Without that turn, a connection that was once on the ordinary path would often stay there.
        """
        is_busy = self._waiter is not None or self._current_request is not None or self._messages
        return not (is_busy or self._paused or self._held or self._data.is_draining)

    def _receive_turned(self) -> None:
        self._is_turning = False
        if self.transport is None or not self._later:
            return
        data = self._later.popleft()
        self._account()
        self._receive(data, may_turn=False)
        self._go_on()

    def _feed(self, data: bytes) -> None:
        """Give bytes to aiohttp."""
        super().data_received(data)
        if self._parser is not None and self._parser.refusal is not None:
            super().data_received(b"")  # it is told after the requests that came before it
        self._account()
        if self._head_since <= self._next_keepalive_close_time and self._expects_head():
            self._wait_for_head()  # only a part of it has come

    def _is_between_requests(self) -> bool:
        return self._is_idle() and bool(self._parser.is_between_requests)

    def _is_idle(self) -> bool:
        """Whether aiohttp waits for the next request and the client reads our answers."""
        waiter = self._waiter
        return (
            waiter is not None
            and not waiter.done()
            and not self._messages
            and not self._paused
            and not self._data.is_draining
        )

    def _account(self) -> None:
        """Have the budget know what is held here before it is a request."""
        size = len(self._held) + sum(map(len, self._later))
        if self._parser is not None:
            size += len(self._parser.held)
        self._data.bodies.held_bytes += size - self._charged
        self._charged = size

    def _begin(self, data: bytes, known: KnownHead, head: Sorted) -> bool:
        """Whether the fast path has the request, or waits for the rest of it."""
        start = head.start
        missing = head.body_bytes - (len(data) - start)
        if len(data) - start < _first_part(head.body_bytes):
            if self._was_patient or not self._data.bodies.has_room(len(data) - self._charged):
                return False  # the ordinary path waits longer, or refuses it
            self._held = data
            self._account()
            if self._patience is None:  # one for all of a body that comes bit by bit
                self._patience = self._loop.call_later(_PATIENCE_S, self._give_to_aiohttp)
            return True
        if missing < 0 or len(data) > _MAX_FIRST_BYTES or self._fast is None:
            return False
        body, head = data[start:], self._fast.completed(known, head, self.transport)
        self._attempt = self._fast.begin(self, known, head, body)
        if self._attempt is None and head.body_bytes <= MAX_BODY_BYTES:
            self._attempt = self._fast.call(self, known, head, body)
            if self._attempt is None:
                self._attempt = self._data.direct(self, known, head, body, None)
        if self._attempt is None:
            return False
        self._begun = known, head
        self._stop_patience()
        if self._charged:
            self._account()
        if missing and isinstance(self._attempt, Upload):
            self._upload = self._attempt
        self._raw = data
        return True

    def _pass_on(self, upload: Upload, data: bytes) -> None:
        """Give the upload what is its; what follows its body waits for its answer."""
        self._raw = b""
        size = upload.to_come
        if len(data) < size:
            upload.more(data)
            return
        self._upload = None
        upload.more(data[:size])
        if len(data) > size:
            self._later.appendleft(data[size:])  # before what has come since

    def _give_to_aiohttp(self) -> None:
        """The rest of a body is late: the ordinary path knows how to wait, and for how long."""
        data, self._held = self._held, b""
        self._patience = None
        self._was_patient = True
        self._feed(data)
        self._was_patient = False

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _keep_for_later(self, data: bytes) -> None:
        """Keep what a client sends before it has its answer, as it came; a bounded amount of it."""
        self._later.append(data)
        self._account()
        is_much = len(data) >= MAX_BODY_BYTES or not self._data.bodies.has_room(0)
        if is_much or len(self._later) >= _MAX_LATER:
            self.stop_reading()

    def _leave_parser(self) -> None:
        """Start with a new parser after this request: the old one waits for its body."""
        self._parser = self._new_parser()
        if self._reading_paused:  # for the sake of a payload that nobody reads
            self._reading_paused = False
            if not self._stops:
                self._resume_transport_reading()

    def _new_parser(self) -> Any:  # noqa: ANN401  a tap stands in
        parser = HttpRequestParser(
            self, self._loop, self._read_bufsize, max_line_size=self.max_line_size,
            max_field_size=self.max_field_size, max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError, auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )  # fmt: skip
        return Framing(
            parser, self._offer, self._on_refused, self._data.bodies.has_room,
            max_head=self.max_line_size, max_queue=self._max_msg_queue_size,
        )  # fmt: skip

    def _offer(self, message: RawRequestMessage, head: bytes, length: int, rest: bytes) -> bool:
        """Whether the fast path takes a request whose head aiohttp's parser has just read."""
        if self._fast is None or self.carried is not None or message.method != "POST":
            return False
        if message.should_close or message.version != HttpVersion11:
            return False
        missing = length - len(rest)
        if missing < 0 or (missing and length <= MAX_BODY_BYTES) or not self._is_idle():
            return False  # one that is small and not complete: its head is not worth learning
        known = self._fast.understand(message, head)
        if known is None or not self._begin(head + rest, *known):
            return False
        self._leave_parser()
        return True

    # -- the fast path's answers -----------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends with the answer under way."""
        return self._is_closing_after or self._is_cut_short or self._data.is_draining

    @property
    def takes_more(self) -> bool:
        """Whether the client reads as fast as we send."""
        return not self._paused

    def send_part(self, data: bytes) -> None:
        """Send a part of a response."""
        if self.transport is not None:
            self.transport.write(data)

    def stop_reading(self) -> None:
        """Leave what the client sends in its socket."""
        self._stops = True
        self._pause_transport_reading()

    def go_on_reading(self) -> None:
        """Take it again."""
        if self._stops:
            self._stops = False
            self._resume_transport_reading()

    def cut_short(self) -> None:
        """The rest of the body under way is not wanted: close after the answer to it."""
        self._is_cut_short = True

    def abort(self) -> None:
        """Break off the response under way."""
        self._attempt = self._upload = None
        if self.transport is not None:
            self.transport.abort()

    def reply(self, data: bytes) -> None:
        """Send a response, or its end, and go on with what the client has sent meanwhile."""
        self._attempt = self._upload = self._begun = None
        self._raw = b""
        if self.transport is not None:
            self.transport.write(data)
        if self._is_cut_short:
            self._linger()
            return
        if self._is_closing_after or self._data.is_draining:
            self._close_between_requests()
            return
        self._next_keepalive_close_time = self._loop.time()
        if self._later:
            self._go_on()

    def hand_over(self, carried: Carried) -> None:
        """Let the director have the request; of a long one aiohttp reads the body again."""
        data, self._raw = self._raw, b""
        self._attempt = self._upload = None
        assert self._begun is not None  # noqa: S101  it was begun here
        known, head = self._begun
        if head.body_bytes <= MAX_BODY_BYTES:
            self._attempt = self._data.direct(self, known, head, data[head.start :], carried)
            return
        self.carried = carried
        self._feed(data)
        if self._is_closing_after:
            super().close()
        self._go_on()

    def _go_on(self) -> None:
        while self._later and (self._attempt is None or self._upload is not None):
            data = self._later.popleft()
            self._account()
            if not self._later:
                self.go_on_reading()
            self.data_received(data)

    def _linger(self) -> None:
        """Throw away what comes for a while, so that its sender can read the answer."""
        self._parser.stop()
        self._held = b""
        self._later.clear()
        self._account()
        self.go_on_reading()
        if self.transport is None or not self._limits.may_linger:
            self._close_between_requests()
            return
        self._limits.lingering += 1
        self._is_lingering = True
        self._patience = self._loop.call_later(LINGER_S, self.force_close)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # -- the connection's end --------------------------------------------------------------------

    def close(self) -> None:
        """Close once the request under way has been answered, also if its head has just begun."""
        if self._attempt is not None:
            self._is_closing_after = True
        elif not self._expects_head():
            super().close()
        elif not self._held and self._wait(self._loop.time())[0] is Wait.IDLE:
            self._close_between_requests()

    def _close_between_requests(self) -> None:
        super().close()
        if self.transport is not None:
            self.transport.close()  # aiohttp does only once it has served something

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
        self._limits.lingering -= self._is_lingering
        self._is_lingering = False
        self._held = b""
        self._later.clear()
        self._account()

    def _on_refused(self, exc: BaseException) -> bool:
        """Answer at once what the parser refused, if there is nothing to be answered before it."""
        has_asked = self._request_count > 0 and not self._is_idle()
        if has_asked or self._paused or self.transport is None:
            return False
        answer, headers = self._data.refuse(_refusal(exc))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.transport.write(error_bytes(answer, lines.encode("ascii") + CLOSE))
        self._is_cut_short = True
        self._linger()
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused; the connection is closed afterwards."""
        del status, message  # which quotes the client's bytes
        request._version = HttpVersion11  # noqa: SLF001  aiohttp makes one up, of HTTP/1.0
        reply = error_reply(*self._data.refuse(_refusal(exc)))
        reply.force_close()
        return reply

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401  aiohttp's
        """Log what went wrong; of a client's broken body, no more than that."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            _log.info("a client's body broke before its end", extra=BY_STRANGERS)
        else:
            super().log_exception(*args, **kw)


def _first_part(size_bytes: int) -> int:
    """What has to be there of a body before a slot is taken for it."""
    return min(size_bytes, WINDOW_BYTES)


def _refusal(exc: BaseException | None) -> RouterError:
    if exc is not None:
        exc.__traceback__ = None  # its frames hold what came, and aiohttp holds it in a circle
    # Its name alone: it quotes the client's bytes.
    _log.info("refused what a client sent: %s", type(exc).__name__, extra=BY_STRANGERS)
    if isinstance(exc, RefusedError):
        return exc.error
    return _TOO_LONG if isinstance(exc, LineTooLong) else _MALFORMED


class _NoTimer:
    """Stands where aiohttp would keep a timer for each connection; see `ClientLimits`."""

    def cancel(self) -> None:
        """Nothing to cancel."""


_NO_TIMER: Any = _NoTimer()
