"""One client connection: aiohttp's protocol class, on which each request has a life of ours.

Everything that reaches into aiohttp's server internals is in this file (and a contract test holds
it against the installed release). Framing is decided by aiohttp's hardened parser.
"""

import asyncio
import logging
from collections import deque
from typing import Any, cast
from typing import Protocol as Interface

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser
from aiohttp.web_protocol import RequestHandler

from router.domain.errors import HeadTooLargeError, InvalidRequestError, RouterError
from router.gateway.body import STREAM_ABOVE_BYTES, WINDOW_BYTES, BodyBudget
from router.gateway.direct import Client, Direct
from router.gateway.http.client_limits import ClientLimits, Wait
from router.gateway.http.client_wait import ClientWait
from router.gateway.http.framing import Arrival, Framing, RefusedError
from router.gateway.relay import Headers, error_bytes
from router.gateway.responses import ErrorAnswer
from router.gateway.shortcut.fast_attempt import CLOSE, Attempt, Carried
from router.gateway.shortcut.fast_path import FastPath, Known
from router.gateway.shortcut.fast_route import KnownHead
from router.gateway.shortcut.fast_upload import Upload
from router.gateway.shortcut.known_heads import Sorted
from router.telemetry.repeats import BY_STRANGERS

_log = logging.getLogger(__name__)

_PATIENCE_S = 0.25
"""How long the fast path waits for the rest of a small body, or the first part of a long one."""
_MAX_LATER = 16
"""A client that has sent so many segments beyond its request is not read until it is answered."""
_MAX_FIRST_BYTES = 1 << 20
"""More than a first part and what one read adds to it; it is read bit by bit."""
LINGER_S = 2.0
"""How long an unread body is drained so that its sender can read our answer."""
_MALFORMED = InvalidRequestError("the request is not valid HTTP")
_TOO_LONG = HeadTooLargeError("a line of the request is too long")


class Data(Interface):
    """What a connection needs of the data plane."""

    fast_path: FastPath | None
    limits: ClientLimits
    bodies: BodyBudget
    is_draining: bool

    def serve(self, client: Client, arrival: Arrival, carried: Carried | None) -> Direct:
        """Answer a request whose body may still be to come; `carried` if it has begun before."""
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

    One request at a time: what comes after it waits, as it came, until it is answered. What is kept
    of a request before it is one counts into the budget of bodies.
    """

    __slots__ = (
        "_arrival", "_attempt", "_begun", "_charged", "_closes", "_data", "_fast", "_held",
        "_is_closing_after", "_is_cut_short", "_is_lingering", "_is_skipping",
        "_is_throwing_away", "_later", "_limits",
        "_patience", "_raw", "_stops", "_upload", "_wait",
    )  # fmt: skip
    _parser: Any
    """A `Framing`; None once the client has gone."""

    def __init__(self, server: web.Server, data: Data, **options: Any) -> None:  # noqa: ANN401
        super().__init__(server, **options)
        self._data = data
        self._fast = data.fast_path
        self._limits = data.limits
        self._keepalive_handle = _NO_TIMER
        self._wait = ClientWait(self, data.limits, self._loop.time)
        self._attempt: Attempt | Direct | None = None
        self._arrival: Arrival | None = None
        self._begun: Known | None = None
        self._upload: Upload | None = None
        self._closes = False
        self._is_cut_short = False
        self._is_lingering = False
        self._is_skipping = False
        self._is_throwing_away = False
        self._stops = False
        self._raw = b""
        self._held = b""
        self._later: deque[bytes] = deque()
        self._charged = 0
        self._is_closing_after = False
        self._patience: asyncio.TimerHandle | None = None
        self._parser = Framing(self._new_parser, data.bodies.has_room, max_head=self.max_line_size)

    def _new_parser(self) -> HttpRequestParser:
        return HttpRequestParser(
            self, self._loop, self._read_bufsize, max_line_size=self.max_line_size,
            max_field_size=self.max_field_size, max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError, auto_decompress=False,
        )  # fmt: skip

    # -- waiting for the client ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there, unless it is one too many."""
        if not self._limits.enter(cast(asyncio.Transport, transport)):
            return
        super().connection_made(transport)
        self._wait.for_head()

    async def start(self) -> None:
        """Nothing: what aiohttp would do in a task for each connection, callbacks do here."""

    def pause_writing(self) -> None:
        """The client does not read; it has some time to go on."""
        super().pause_writing()
        self._wait.to_send()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._wait.stalled_since = 0.0
        super().resume_writing()
        if self._attempt is not None:
            self._attempt.on_client_ready()
        else:
            self._go_on()

    @property
    def expects_head(self) -> bool:
        """Whether the next byte is to begin a request, or to go on with its head."""
        return self._attempt is None and not (self._is_skipping or self._is_lingering)

    def give_up(self) -> None:
        """The client has had its time."""
        if self.transport is not None:
            self.transport.abort()

    # -- reading ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what comes; without bytes, go on with what the parser has kept of a body."""
        if not data:
            if self._parser is not None and not self._parser.is_between_requests:
                self._read_body(data)
        elif self._later:
            self._keep_for_later(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Give bytes to what they belong to: a body, or the next request."""
        if self._is_cut_short:
            return  # the rest of a body, after its answer
        if self._upload is not None:
            self._pass_on(self._upload, data)
        elif self._parser.is_owed:
            self._read_body(data)
        elif self._is_free:
            self._receive(data)
        else:
            self._keep_for_later(data)

    @property
    def _is_free(self) -> bool:
        """Whether a request can begin: the last one is over, and the client reads our answers."""
        return not (self._attempt is not None or self._is_skipping or self._paused)

    def _receive(self, data: bytes) -> None:
        """Begin a request, if enough of it has come."""
        held = self._held
        whole = held + data if held else data
        self._held = b""
        if self._fast is not None and not self._parser.held:
            known = self._fast.known(whole)
            if known is not None and self._begin(whole, *known):
                return
        self._read_head(whole)

    def _read_head(self, data: bytes) -> None:
        """Let aiohttp's parser read the head, if all of it has come."""
        was_patient = self._patience is not None
        self._stop_patience()
        try:
            found = self._parser.head(data)
        except HttpProcessingError as error:
            self._refuse(error)
            return
        self._account()
        if found is None:
            if self._wait.head_since <= self._wait.idle_since:
                self._wait.for_head()  # only a part of it has come
            return
        arrival, rest = found
        if not was_patient and self._learn(arrival, rest):
            self._parser.renew()
            return
        self._serve(arrival, rest, None)

    def _learn(self, arrival: Arrival, rest: bytes) -> bool:
        """Whether the fast path takes a request whose head is new."""
        fast, message = self._fast, arrival.message
        if fast is None or message.method != "POST" or arrival.closes or arrival.is_old:
            return False
        known = fast.understand(message, arrival.raw)
        return known is not None and self._begin(arrival.raw + rest, *known)

    def _serve(self, arrival: Arrival, rest: bytes, carried: Carried | None) -> None:
        """Have the request answered while its body comes."""
        self._arrival, self._closes = arrival, arrival.closes
        self._attempt = self._data.serve(self, arrival, carried)
        if not self._parser.is_between_requests:
            self._read_body(rest)
        elif rest:
            self._put_back(rest)

    def _read_body(self, data: bytes) -> None:
        rest = self._parser.body(data)
        if rest:
            self._put_back(rest)
        if self._is_skipping:
            self._skip()

    def _put_back(self, rest: bytes) -> None:
        """Keep what came after a request's end; what has come since comes after it."""
        self._later.appendleft(rest)
        self._look_at_later(len(rest))

    def _begin(self, data: bytes, known: KnownHead, head: Sorted) -> bool:
        """Whether a request with a known head has begun, or waits for the rest of its body."""
        start, fast = head.start, self._fast
        if len(data) - start < _first_part(head.body_bytes):
            return self._waits_for_body(data)
        if len(data) > _MAX_FIRST_BYTES or fast is None:
            return False
        body, rest = data[start : start + head.body_bytes], data[start + head.body_bytes :]
        head = fast.completed(known, head, self.transport)
        attempt = self._attempt = self._attempted(fast, known, head, body)
        if attempt is None:
            return False
        self._begun = known, head
        self._stop_patience()
        if self._charged:
            self._account()
        if len(body) < head.body_bytes and isinstance(attempt, Upload):
            self._upload = attempt
        self._raw = data[: start + len(body)]
        if rest:
            self._put_back(rest)
        return True

    def _attempted(
        self, fast: FastPath, known: KnownHead, head: Sorted, body: bytes
    ) -> "Attempt | Direct | None":
        """By the first that takes it; None for a long body that has to be read bit by bit."""
        attempt = fast.begin(self, known, head, body)
        if attempt is not None or head.body_bytes > STREAM_ABOVE_BYTES:
            return attempt
        return self._data.direct(self, known, head, body, None)

    def _waits_for_body(self, data: bytes) -> bool:
        """Whether there is room to wait a little for the rest of a body."""
        if not self._data.bodies.has_room(len(data) - self._charged):
            return False  # it is refused
        self._held = data
        self._account()
        if self._patience is None:  # one for all of a body that comes bit by bit
            self._patience = self._loop.call_later(_PATIENCE_S, self._lose_patience)
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
            self._put_back(data[size:])

    def _lose_patience(self) -> None:
        """Stop holding the first part of a body whose rest is late: it is read as it comes.

        Up to then the whole of a short body was expected at once, which is cheaper.
        """
        data, self._held = self._held, b""
        self._read_head(data)

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _keep_for_later(self, data: bytes) -> None:
        """Keep what a client sends before it has its answer, as it came; a bounded amount of it."""
        self._later.append(data)
        self._look_at_later(len(data))

    def _look_at_later(self, size: int) -> None:
        self._account()
        is_much = size >= STREAM_ABOVE_BYTES or not self._data.bodies.has_room(0)
        if is_much or len(self._later) >= _MAX_LATER:
            self.stop_reading()

    def _account(self) -> None:
        """Have the budget know what is held here before it is a request."""
        size = len(self._held) + sum(map(len, self._later))
        if self._parser is not None:
            size += len(self._parser.held)
        self._data.bodies.held_bytes += size - self._charged
        self._charged = size

    def _go_on(self) -> None:
        """Go on with what the client has sent meanwhile."""
        while self._later and (self._is_free or self._upload is not None or self._parser.is_owed):
            data = self._later.popleft()
            self._account()
            if not self._later:
                self.go_on_reading()
            self._take(data)

    # -- the answer ------------------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends with the answer under way."""
        return (
            self._is_closing_after or self._closes or self._is_cut_short or self._data.is_draining
        )

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
        """Want no more of the body under way: the connection closes after the answer to it."""
        self._is_cut_short = True

    def abort(self) -> None:
        """Break off the response under way."""
        self._attempt = self._upload = self._arrival = None
        if self.transport is not None:
            self.transport.abort()

    def reply(self, data: bytes) -> None:
        """Send a response, or its end, and go on with what the client has sent meanwhile."""
        arrival, is_closing = self._arrival, self.is_closing
        self._attempt = self._upload = self._begun = self._arrival = None
        self._raw = b""
        if self.transport is None:
            return
        self.transport.write(data)
        if self._is_cut_short:
            self._linger()
        elif arrival is not None and not self._parser.is_between_requests:
            self._leave_body(arrival, is_closing=is_closing)
        elif is_closing:
            self._close_now()
        else:
            self._wait.idle()
            if self._later:
                self._go_on()

    def hand_over(self, carried: Carried) -> None:
        """Let the director have the request; of a long one the body is read again."""
        data, self._raw = self._raw, b""
        self._attempt = self._upload = None
        assert self._begun is not None  # noqa: S101  it was begun here
        known, head = self._begun
        if head.body_bytes <= STREAM_ABOVE_BYTES:
            self._attempt = self._data.direct(self, known, head, data[head.start :], carried)
            return
        found = self._parser.head(data)  # once more, for its body
        assert found is not None  # noqa: S101  it is whole
        arrival, rest = found
        self._serve(arrival, rest, carried)
        self._go_on()

    def _leave_body(self, arrival: Arrival, *, is_closing: bool) -> None:
        """A body was answered before its end: of a short one the rest is read, and thrown away."""
        is_long = (arrival.length or 0) > STREAM_ABOVE_BYTES
        if is_long or is_closing or arrival.payload.exception() is not None:
            self._linger()
            return
        self._is_skipping = True
        self._arrival = arrival
        self._patience = self._loop.call_later(LINGER_S, self.force_close)
        self._skip()

    def _skip(self) -> None:
        arrival = self._arrival
        if arrival is None or self._is_throwing_away:
            return
        if arrival.payload.exception() is not None:
            self._linger()
            return
        # To read may have the parser go on, and this be called: what that brings is read here.
        self._is_throwing_away = True
        try:
            while arrival.payload.exception() is None and arrival.payload.read_nowait():
                continue
        finally:
            self._is_throwing_away = False
        if arrival.payload.exception() is not None:
            self._linger()
        elif self._parser.is_between_requests and self._arrival is arrival:
            self._is_skipping, self._arrival = False, None
            self._stop_patience()
            self._wait.idle()
            self._go_on()

    def _linger(self) -> None:
        """Throw away what comes for a while, so that its sender can read the answer."""
        self._is_cut_short = True
        self._is_skipping, self._arrival = False, None
        self._stop_patience()
        self._parser.renew()
        self._parser.held = self._held = b""
        self._later.clear()
        self._account()
        self._stops, self._reading_paused = False, False
        self._resume_transport_reading()
        if self.transport is None or not self._limits.may_linger:
            self._close_now()
            return
        self._limits.lingering += 1
        self._is_lingering = True
        self._patience = self._loop.call_later(LINGER_S, self.force_close)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # -- the connection's end --------------------------------------------------------------------

    def close(self) -> None:
        """Close once the request under way has been answered, also if its head has just begun."""
        if not self.expects_head or self._held or self._later:
            self._is_closing_after = True
        elif self._wait.current()[0] is Wait.IDLE:
            self._close_now()

    def _close_now(self) -> None:
        if self.transport is not None:
            self.transport.close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  aiohttp's
        """End the connection, and what is still under way on it."""
        self._abandon()
        await super().shutdown(timeout)

    def _abandon(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.client_gone()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone: so is the reason for its attempt."""
        self._limits.leave()
        self._wait.end()
        self._stop_patience()
        self._abandon()
        super().connection_lost(exc)
        self._limits.lingering -= self._is_lingering
        self._is_lingering = self._is_skipping = False
        self._arrival = self._begun = self._upload = None
        self._held = self._raw = b""
        self._later.clear()
        self._account()

    def _refuse(self, error: HttpProcessingError) -> None:
        """Answer what is no request; nothing that follows it can be understood."""
        answer, headers = self._data.refuse(_refusal(error))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.send_part(error_bytes(answer, lines.encode("ascii") + CLOSE))
        self._linger()


def _first_part(size_bytes: int) -> int:
    """What has to be there of a body before a slot is taken for it."""
    return min(size_bytes, WINDOW_BYTES)


def _refusal(error: HttpProcessingError) -> RouterError:
    error.__traceback__ = None  # its frames hold what came
    # Its name alone: it quotes the client's bytes.
    _log.info("refused what a client sent: %s", type(error).__name__, extra=BY_STRANGERS)
    if isinstance(error, RefusedError):
        return error.error
    return _TOO_LONG if isinstance(error, LineTooLong) else _MALFORMED


class _NoTimer:
    """Stands where aiohttp would keep a timer for each connection; see `ClientLimits`."""

    def cancel(self) -> None:
        """Nothing to cancel."""


_NO_TIMER: Any = _NoTimer()
