"""One HTTP/1.1 connection, one exchange at a time, entirely by callbacks.

Decides when an exchange has ended, how, and whether the connection may carry another. Never opens
itself (the pool does), never retries, never awaits.
"""

import asyncio
from typing import Protocol, cast

from router.domain.errors import (
    AttemptError,
    ResponseLostError,
    UpstreamBrokenError,
    UpstreamTimeoutError,
)
from router.upstream.acknowledged import acknowledged_bytes
from router.upstream.deadlines import DeadlineWheel
from router.upstream.response_head import ResponseHead
from router.upstream.response_reader import ResponseReader
from router.upstream.simple_response import read_simple

ONE_WRITE_BYTES = 64 * 1024
"""Head and body below this go out in one write; a larger body goes in slices."""
_SLICE_BYTES = 256 * 1024
_ROUND_TRIP_S = 0.1
"""A peer that had closed the connection says so within a round trip; later, it was at work."""


class Sink(Protocol):
    """Where an exchange's answer goes. Callbacks must not block and must not raise.

    Either `on_answer`, or `on_head` once, `on_data` any number of times, then `on_done` exactly
    once; after an error or `Connection.cancel` nothing more comes.
    """

    def on_answer(self, head: ResponseHead, body: bytes) -> None:
        """The whole answer came at once."""
        ...

    def on_head(self, head: ResponseHead) -> None:
        """The final answer's head is known."""
        ...

    def on_data(self, data: bytes) -> None:
        """More of the body, never empty."""
        ...

    def on_done(self, error: AttemptError | None) -> None:
        """The whole answer has been given, or `error` says why it never will be."""
        ...


class Owner(Protocol):
    """Who a connection belongs to: the pool of its address."""

    def connection_idle(self, connection: "Connection") -> None:
        """An exchange ended well and the connection may carry another one."""
        ...

    def connection_closed(self, connection: "Connection") -> None:
        """The socket is closed; called exactly once if it was ever open."""
        ...


class Connection(asyncio.Protocol):
    """The protocol of one connection. `idle_since` is the owner's to set."""

    __slots__ = (
        "_before_bytes",
        "_deadline",
        "_deadline_tick",
        "_exchanges",
        "_is_aborted",
        "_is_head_request",
        "_is_unread",
        "_looks_at",
        "_loop",
        "_max_head_bytes",
        "_owner",
        "_reader",
        "_reading_paused",
        "_saw_bytes",
        "_sent_bytes",
        "_sink",
        "_to_come",
        "_transport",
        "_unsent",
        "_wheel",
        "_writable",
        "_writing_paused",
        "idle_since",
    )

    def __init__(
        self,
        owner: Owner,
        wheel: DeadlineWheel,
        loop: asyncio.AbstractEventLoop,
        max_head_bytes: int,
    ) -> None:
        self.idle_since = 0.0
        self._owner = owner
        self._wheel = wheel
        self._loop = loop
        self._max_head_bytes = max_head_bytes
        self._transport: asyncio.Transport | None = None
        self._sink: Sink | None = None
        self._reader: ResponseReader | None = None
        self._unsent: memoryview | None = None
        self._deadline: float | None = None
        self._deadline_tick: int | None = None
        self._looks_at = 0.0
        self._exchanges = 0
        self._is_head_request = False
        self._is_aborted = False
        self._saw_bytes = False
        self._sent_bytes = self._before_bytes = 0
        self._is_unread = False
        self._reading_paused = False
        self._to_come = 0
        self._writable: asyncio.Future[None] | None = None
        self._writing_paused = False

    @property
    def is_open(self) -> bool:
        """Whether a request may be written, as far as this side knows."""
        return self._transport is not None and not self._transport.is_closing()

    def was_no_attempt(self, took_s: float, *, is_idempotent: bool) -> bool:
        """Whether the exchange that broke after `took_s` says nothing: the peer had closed before.

        Such a connection was a reused one, gave no byte of an answer, and broke within a round trip
        (RFC 9112 section 9.3.1). A peer that reads a request and closes at once looks the same, so
        what must not run twice was no attempt only if the peer's kernel took no byte of it.
        """
        is_stale = self._exchanges > 1 and not self._saw_bytes
        return is_stale and took_s < _ROUND_TRIP_S and (is_idempotent or self._is_unread)

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._sink is not None

    @property
    def expects_body(self) -> bool:
        """Whether an exchange is under way whose body has not been sent to its end."""
        return self._to_come > 0 and self.is_open

    # -- what the caller of an exchange uses

    def start(
        self,
        head: bytes,
        body: bytes,
        sink: Sink,
        deadline: float | None,
        *,
        is_head: bool = False,
        to_come: int = 0,
    ) -> None:
        """Send a request; its answer, or its failure by `deadline`, goes to `sink`.

        `is_head` says that its answer has no body; `to_come` bytes of its own are sent later, by
        `send_part`. The connection must be open and idle: else RuntimeError.
        """
        transport = self._transport
        if transport is None or self._sink is not None:
            raise RuntimeError("the connection is closed or busy")
        self._sink = sink
        self._exchanges += 1
        self._saw_bytes = False
        self._before_bytes = self._sent_bytes
        self._sent_bytes += len(head) + len(body)
        self._is_head_request = is_head
        self._to_come = to_come
        if deadline is not None:
            self.set_deadline(deadline)
        if len(body) <= ONE_WRITE_BYTES:
            transport.write(head + body)
            return
        view = memoryview(body)
        self._unsent = view[_SLICE_BYTES:] if len(view) > _SLICE_BYTES else None
        transport.writelines([head, view[:_SLICE_BYTES]])
        self._send_more(transport)

    def send_part(self, data: bytes) -> None:
        """Send more of the body of an exchange that `expects_body`; then wait for `writable`.

        Raises RuntimeError for more than was announced, or before it is writable.
        """
        if len(data) > self._to_come or self._transport is None or self._unsent is not None:
            raise RuntimeError("nobody expects that much of a body")
        self._to_come -= len(data)
        self._sent_bytes += len(data)
        self._transport.write(data)

    def writable(self) -> asyncio.Future[None] | None:
        """What to await before the next part, None if it may be sent now.

        Never resolved once the exchange has ended: whoever waits is to be cancelled then.
        """
        if not self._writing_paused:
            return None
        self._writable = self._loop.create_future()
        return self._writable

    def redirect(self, sink: Sink) -> None:
        """Give `sink` the answer of the exchange under way, of which nothing has been given yet."""
        self._sink = sink

    def set_deadline(self, deadline: float) -> None:
        """Let the exchange under way fail after `deadline`."""
        self._deadline = deadline
        # The wheel looks again when it is time, so most exchanges need not tell it anything.
        if self._deadline_tick is None or deadline < self._looks_at:
            self._look_at(deadline)

    def lift_deadline(self) -> None:
        """Let the exchange go on without the deadline it was started with."""
        self._deadline = None

    def cancel(self) -> None:
        """Give up the exchange, if there is one, without a callback, and close the connection."""
        self._end_exchange()
        self.abort()

    def fail(self, error: AttemptError) -> None:
        """End the exchange with `error` and close the connection."""
        sink = self._end_exchange()
        self.abort()
        if sink is not None:
            sink.on_done(error)

    def pause_reading(self) -> None:
        """Stop taking bytes from the socket until `resume_reading`."""
        if not self._reading_paused and self.is_open:
            self._reading_paused = True
            cast(asyncio.Transport, self._transport).pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._reading_paused and self.is_open:
            self._reading_paused = False
            cast(asyncio.Transport, self._transport).resume_reading()

    def abort(self) -> None:
        """Close the socket at once, whatever is in flight; one still being opened, once it is."""
        self._is_aborted = True
        if self._transport is not None:
            self._transport.abort()

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open (and TLS agreed upon)."""
        self._transport = cast(asyncio.Transport, transport)
        if self._is_aborted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Give the sink what these bytes mean, or fail if they mean nothing."""
        sink, reader = self._sink, self._reader
        if sink is None:
            # Nobody asked for these bytes: what they answer, or whom, cannot be known.
            self.abort()
            return
        self._saw_bytes = True
        if reader is None:
            simple = None
            if not self._is_head_request:
                simple = read_simple(data, self._max_head_bytes)
            if simple is not None:
                self._leave_exchange(keep_alive=True)
                sink.on_answer(*simple)
                return
            reader = self._reader = ResponseReader(
                self._loop,
                max_head_bytes=self._max_head_bytes,
                is_head_request=self._is_head_request,
            )
        try:
            head, body, is_complete = reader.feed(data)
        except UpstreamBrokenError as error:
            self.fail(error)
            return
        if head is not None:
            sink.on_head(head)
        if body and self._sink is sink:
            sink.on_data(body)
        if is_complete and self._sink is sink:
            self._finish(keep_alive=reader.keep_alive)

    def eof_received(self) -> None:
        """End the exchange: well if the close marks the end of the body, else not."""
        reader = self._reader
        if self._sink is None:
            self.abort()
            return
        if reader is None:
            self._note_what_was_read()
            self.fail(ResponseLostError("the upstream closed the connection without an answer"))
            return
        try:
            reader.feed_eof()
        except ResponseLostError as error:
            self.fail(error)
            return
        self._finish(keep_alive=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: whatever was in flight is lost."""
        if self._sink is not None:
            self._note_what_was_read()
        self._transport = None
        sink = self._end_exchange()
        self._stop_looking()
        self._owner.connection_closed(self)
        if sink is not None:
            error = ResponseLostError("the connection to the upstream broke during the exchange")
            error.__cause__ = exc
            sink.on_done(error)

    def pause_writing(self) -> None:
        """The transport holds enough: no more slices."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The transport has room: send on."""
        self._writing_paused = False
        if self._unsent is not None and self._transport is not None:
            self._send_more(self._transport)
        waiter, self._writable = self._writable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def expire(self) -> None:
        """Look whether the deadline has passed (called by the wheel)."""
        self._deadline_tick = None
        if self._deadline is None:
            return
        if self._deadline > self._looks_at:
            self._look_at(self._deadline)
        else:
            self.fail(UpstreamTimeoutError("the upstream did not answer in time"))

    # -- inside

    def _note_what_was_read(self) -> None:
        """Find out, while the socket can still tell, whether the peer has any of the request."""
        if self._saw_bytes or self._transport is None:
            return
        taken = acknowledged_bytes(self._transport)
        self._is_unread = taken is not None and taken <= self._before_bytes

    def _look_at(self, deadline: float) -> None:
        self._stop_looking()
        self._looks_at = deadline
        self._deadline_tick = self._wheel.arm(deadline, self)

    def _stop_looking(self) -> None:
        if self._deadline_tick is not None:
            self._wheel.disarm(self._deadline_tick, self)
            self._deadline_tick = None

    def _send_more(self, transport: asyncio.Transport) -> None:
        """Hand slices to the transport until it says stop, so that it never holds a whole body."""
        unsent = self._unsent
        while unsent is not None and not self._writing_paused and not transport.is_closing():
            transport.write(unsent[:_SLICE_BYTES])
            unsent = unsent[_SLICE_BYTES:] if len(unsent) > _SLICE_BYTES else None
        self._unsent = unsent

    def _finish(self, *, keep_alive: bool) -> None:
        sink = self._sink
        self._leave_exchange(keep_alive=keep_alive)
        if sink is not None:
            sink.on_done(None)

    def _leave_exchange(self, *, keep_alive: bool) -> None:
        """The whole answer is here: wait for another exchange, or close."""
        transport = self._transport
        # An answer may overtake the body it answers (413): who knows if the rest is ever read.
        can_go_on = (
            keep_alive
            and transport is not None
            and self._unsent is None
            and not self._to_come
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )
        self._end_exchange()
        if can_go_on:
            if self._reading_paused:
                self.resume_reading()
            self._owner.connection_idle(self)
        else:
            self.abort()

    def _end_exchange(self) -> Sink | None:
        sink, self._sink = self._sink, None
        self._deadline = self._reader = self._unsent = self._writable = None
        self._to_come = 0
        return sink
