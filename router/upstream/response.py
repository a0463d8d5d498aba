"""What an exchange gives back: the whole answer, or its head and a stream of the rest.

Decides when an answer stops being collected and becomes a stream, and how much of a stream is
held for a slow reader. Never touches a socket except to pause or close its connection.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.domain.clock import Clock
from router.domain.errors import AttemptError, UpstreamTimeoutError
from router.upstream.connection import Connection
from router.upstream.deadlines import DeadlineWheel
from router.upstream.response_head import ResponseHead

STREAM_HIGH_WATER_BYTES = 128 * 1024
"""A stream that holds more than this stops its connection from reading."""


class Rest(Protocol):
    """The rest of a body, for one reader."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None:
        """Abandon what has not been read."""
        ...


@dataclass(slots=True)
class UpstreamResponse:
    """An answer. `body` is all of it, or what came before `rest` when `rest` is not None.

    Who gets a `rest` must exhaust it or `aclose` the response: until then it holds a connection.
    """

    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    rest: Rest | None = None

    async def aclose(self) -> None:
        """Abandon what has not been read: closes the connection if the answer is not complete."""
        if self.rest is not None:
            await self.rest.aclose()


class BodyStream(AsyncIterator[bytes]):
    """The rest of a body, for one reader, with backpressure to the upstream.

    Raises the AttemptError that ended the answer early, after the bytes that came before it.
    """

    __slots__ = (
        "_chunks", "_clock", "_connection", "_error", "_idle_s", "_is_complete", "_progress_at",
        "_tick", "_waiter", "_wheel", "buffered_bytes",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, wheel: DeadlineWheel, clock: Clock, idle_s: float
    ) -> None:
        self.buffered_bytes = 0
        self._connection = connection
        self._wheel = wheel
        self._clock = clock
        self._idle_s = idle_s
        self._chunks: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: AttemptError | None = None
        self._is_complete = False
        self._progress_at = clock()
        self._tick = wheel.arm(self._progress_at + idle_s, self)

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._is_complete:
                raise StopAsyncIteration
            await self._wait()
        chunk = self._chunks.popleft()
        self.buffered_bytes -= len(chunk)
        self._progress_at = self._clock()
        if not self._is_complete and self.buffered_bytes <= STREAM_HIGH_WATER_BYTES // 2:
            self._connection.resume_reading()
        return chunk

    async def aclose(self) -> None:
        """Abandon the rest; the connection is closed if the answer is not complete."""
        self.abandon()

    def abandon(self) -> None:
        """As `aclose`, for callers that cannot await."""
        self._chunks.clear()
        self.buffered_bytes = 0
        if not self._is_complete:
            self.finish(None)
            self._connection.cancel()

    def push(self, data: bytes) -> None:
        """Take bytes from the connection."""
        self._chunks.append(data)
        self.buffered_bytes += len(data)
        self._progress_at = self._clock()
        if self.buffered_bytes > STREAM_HIGH_WATER_BYTES:
            self._connection.pause_reading()
        self._wake()

    def finish(self, error: AttemptError | None) -> None:
        """Take the end of the answer from the connection."""
        self._is_complete = True
        self._error = error
        self._wheel.disarm(self._tick, self)
        self._wake()

    def expire(self) -> None:
        """Give up if nothing has moved for too long, else wait on (called by the wheel)."""
        deadline = self._progress_at + self._idle_s
        if self._clock() < deadline:
            self._tick = self._wheel.arm(deadline, self)
            return
        self._connection.fail(UpstreamTimeoutError("the upstream's answer stood still"))

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("a body stream has one reader")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Collector:
    """The sink behind `UpstreamClient.send`: resolves `result` with the answer or its failure."""

    __slots__ = (
        "_buffer_bytes", "_chunks", "_connection", "_head", "_is_done", "_make_stream", "_size",
        "_stream", "result",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        buffer_bytes: int,
        make_stream: Callable[[Connection], BodyStream],
        result: asyncio.Future[UpstreamResponse],
    ) -> None:
        self.result = result
        self._connection = connection
        self._buffer_bytes = buffer_bytes
        self._make_stream = make_stream
        self._head: ResponseHead | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._stream: BodyStream | None = None
        self._is_done = False

    def on_answer(self, head: ResponseHead, body: bytes) -> None:
        """Give it out."""
        self._is_done = True
        if not self.result.done():
            answer = UpstreamResponse(head.status, head.reason, head.headers, body, None)
            self.result.set_result(answer)

    def on_head(self, head: ResponseHead) -> None:
        """Keep the head; an answer that will not be collected is given out right away."""
        if self.result.done():
            return  # cancelled; the caller is about to say so
        self._head = head
        if head.is_event_stream or (head.content_length or 0) > self._buffer_bytes:
            self._become_stream(head)

    def on_data(self, data: bytes) -> None:
        """Collect, or pass on to the stream."""
        if self._stream is not None:
            self._stream.push(data)
            return
        if self.result.done():
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > self._buffer_bytes and self._head is not None:
            self._become_stream(self._head)

    def on_done(self, error: AttemptError | None) -> None:
        """Give out the answer, or say why there is none."""
        self._is_done = True
        if self._stream is not None:
            self._stream.finish(error)
        elif self.result.done():
            return
        elif error is not None or self._head is None:
            self.result.set_exception(error or RuntimeError("an answer ended without a head"))
        else:
            self.result.set_result(self._response(self._head, None))

    def cancel(self) -> None:
        """Drop the answer, wanted by nobody any more, and what is still under way of it."""
        if self._stream is not None:
            self._stream.abandon()
        elif not self._is_done:
            self._is_done = True
            self._connection.cancel()

    def _become_stream(self, head: ResponseHead) -> None:
        self._connection.lift_deadline()
        self._stream = self._make_stream(self._connection)
        self.result.set_result(self._response(head, self._stream))

    def _response(self, head: ResponseHead, rest: BodyStream | None) -> UpstreamResponse:
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        return UpstreamResponse(head.status, head.reason, head.headers, body, rest)
