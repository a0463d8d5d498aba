"""Reads request bodies: within the size limit, the memory budget and the time limit.

A body is kept whole, so that an attempt can be repeated, or read part by part and passed on.
Nothing looks inside.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

from aiohttp import MultipartReader, web

from router.domain.clock import Clock
from router.domain.errors import (
    BodyTimeoutError,
    BrokenBodyError,
    PayloadTooLargeError,
    ShedError,
)
from router.gateway.http.framing import Arrival, RefusedError

STREAM_ABOVE_BYTES = 64 * 1024
"""A longer body need not be kept."""
WINDOW_BYTES = 256 * 1024
"""About what is held of a body that is passed on as it comes."""
PACE_BYTES = 1 << 20
"""What a client has to send of a body in each time-out, after the first one."""
_JOIN_IN_THREAD_BYTES = 1024 * 1024
"""From here on `bytes.join` lets go of the interpreter's lock."""
_FREED_AT_ONCE = 16


def allowed_s(timeout_s: float, received_bytes: int) -> float:
    """How long a client may have let us wait for a body of which so much has come.

    The time-out, and once more for each PACE_BYTES: a body of any length may take its time, but no
    slot and no memory is held by one that drips.
    """
    return timeout_s * (1.0 + received_bytes / PACE_BYTES)


def slow_body(timeout_s: float) -> BodyTimeoutError:
    """The error for a client that falls behind what `allowed_s` allows."""
    return BodyTimeoutError(
        f"the body did not arrive in time; send at least {PACE_BYTES} bytes in {timeout_s:g} s"
    )


async def joined(parts: list[bytes]) -> bytes:
    """All of them in one; the list is used up.

    Of many bytes nobody notices: they are joined in a thread, which needs no interpreter for it,
    and the parts are given back in turns, because the system takes milliseconds for that.
    """
    if len(parts) == 1:
        return parts.pop()
    if sum(map(len, parts)) < _JOIN_IN_THREAD_BYTES:
        return b"".join(parts)
    whole = await asyncio.to_thread(b"".join, parts)
    while parts:
        del parts[-_FREED_AT_ONCE:]
        await asyncio.sleep(0)
    return whole


class BodyBudget:
    """Bytes of all bodies held at once; a body reserves before it is read."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0

    def has_room(self, size_bytes: int) -> bool:
        """Whether that much may be taken now."""
        return self.held_bytes + size_bytes <= self.max_bytes

    def check_room(self, size_bytes: int) -> None:
        """Raise ShedError if that much may not be taken now."""
        if not self.has_room(size_bytes):
            raise ShedError("the gateway holds as many body bytes as it may; try again soon")

    def reserve(self, size_bytes: int) -> None:
        """Take that much. Raises ShedError when it is not there."""
        self.check_room(size_bytes)
        self.held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Give it back."""
        self.held_bytes -= size_bytes


class Body:
    """One request's body; leaving the block gives its bytes back to the budget.

    `write` sends the client what makes it send its body, if it waits for that. `waited_s` is how
    long the client has let us wait for it.
    """

    def __init__(
        self,
        arrival: Arrival | None,
        budget: BodyBudget,
        clock: Clock,
        write: Callable[[bytes], None] | None = None,
    ) -> None:
        self._given = arrival
        self._write = write
        self._budget = budget
        self._clock = clock
        self._reserved = 0
        self._read_bytes = 0
        self._ahead: deque[bytes] = deque()
        self._is_passed_on = False
        self.waited_s = 0.0

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *exception: object) -> None:
        self._budget.release(self._reserved)

    @property
    def is_held(self) -> bool:
        """Whether it was here from the beginning, so that there is nothing to read."""
        return self._given is None

    def form(self) -> MultipartReader:
        """The parts of a form, as they come. Raises ValueError for what is none."""
        self._say_continue()
        return MultipartReader(self._arrival.message.headers, self._arrival.payload)

    @property
    def _arrival(self) -> Arrival:
        assert self._given is not None  # noqa: S101  a held body is not read
        return self._given

    @property
    def declared_bytes(self) -> int | None:
        """What the head says; None for a chunked body, whose length only its end tells."""
        return self._arrival.length

    @property
    def is_complete(self) -> bool:
        """Whether all of a body whose length was declared has come."""
        return self._read_bytes == self.declared_bytes

    @property
    def is_untouched(self) -> bool:
        """Whether nothing of it has been given to anybody."""
        return not self._is_passed_on

    @staticmethod
    def check_size(size_bytes: int, max_bytes: int) -> None:
        """Raise PayloadTooLargeError if a body of that size is over the limit."""
        if size_bytes > max_bytes:
            raise PayloadTooLargeError(
                f"the body has {size_bytes} bytes, this gateway takes at most {max_bytes}"
            )

    def hold(self, size_bytes: int) -> None:
        """Reserve that much in all, if it is not reserved yet. Raises ShedError."""
        missing = max(0, size_bytes - self._reserved)
        self._budget.reserve(missing)
        self._reserved += missing

    async def read(self, max_bytes: int, timeout_s: float, left_s: float = inf) -> bytes:
        """The whole body.

        The client has the time of `allowed_s`, and `left_s` in all. Raises PayloadTooLargeError
        (from the declared length where there is one, without reading), BodyTimeoutError,
        BrokenBodyError, HeadTooLargeError, ShedError.
        """
        declared = self.declared_bytes
        if declared == 0:
            return b""
        if declared is not None:
            self.check_size(declared, max_bytes)
            # Not reserved: what a client only announces must not keep others' bodies out.
            self._budget.check_room(declared - self._reserved)
        await self._collect(max_bytes, timeout_s, left_s)
        chunks = list(self._ahead)
        self._ahead.clear()
        return await joined(chunks)

    async def read_ahead(self, timeout_s: float, left_s: float) -> None:
        """Wait for the first WINDOW_BYTES of the body, or for all of a shorter one. As `read`."""
        await self._collect(WINDOW_BYTES, timeout_s, left_s, is_window=True)

    async def read_part(self, timeout_s: float) -> bytes:
        """The next bytes of the body, b"" at its end. The client has the time of `allowed_s`.

        Raises as `read`.
        """
        self._is_passed_on = True
        if self._ahead:
            return self._ahead.popleft()
        if self._arrival.payload.at_eof():
            return b""
        began = self._clock()
        try:
            async with asyncio.timeout(allowed_s(timeout_s, self._read_bytes) - self.waited_s):
                return await self._next()
        except TimeoutError:
            raise slow_body(timeout_s) from None
        finally:
            self.waited_s += self._clock() - began

    async def _collect(
        self,
        most: int,
        timeout_s: float,
        left_s: float,
        *,
        is_window: bool = False,
    ) -> None:
        """Read on into `_ahead`, to the end or, for a window, until so much is there."""
        began, now = self._clock(), asyncio.get_running_loop().time()
        until = now + allowed_s(timeout_s, self._read_bytes) - self.waited_s
        try:
            async with asyncio.timeout_at(min(until, now + left_s)) as limit:
                while not is_window or self._read_bytes < most:
                    chunk = await self._next()
                    if not chunk:
                        break
                    self._ahead.append(chunk)
                    if not is_window:
                        self.check_size(self._read_bytes, most)
                        self.hold(self._read_bytes)
                    if self._read_bytes > STREAM_ABOVE_BYTES:
                        until += timeout_s * len(chunk) / PACE_BYTES
                        limit.reschedule(min(until, now + left_s))
        except TimeoutError:
            raise slow_body(timeout_s) from None
        finally:
            self.waited_s += self._clock() - began

    async def _next(self) -> bytes:
        if not self._read_bytes:
            self._say_continue()
        try:
            chunk = await self._arrival.payload.readany()
        except web.RequestPayloadError as error:
            if isinstance(error.__cause__, RefusedError):
                raise error.__cause__.error from error
            raise BrokenBodyError("the body's framing is broken") from error
        self._read_bytes += len(chunk)
        return chunk

    def _say_continue(self) -> None:
        expected = self._arrival.message.headers.get("expect", "")
        if self._write is not None and expected.lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")


class HeldBody(Body):
    """A body that is here already, and is in the budget."""

    def __init__(self, content: bytes, budget: BodyBudget, clock: Clock) -> None:
        super().__init__(None, budget, clock)
        self._content = content
        self.hold(len(content))

    @property
    def declared_bytes(self) -> int:
        """Its length."""
        return len(self._content)

    async def read(self, max_bytes: int, timeout_s: float, left_s: float = inf) -> bytes:
        """All of it. Raises PayloadTooLargeError."""
        del timeout_s, left_s
        self.check_size(len(self._content), max_bytes)
        return self._content
