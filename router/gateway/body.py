"""Reads request bodies: within the size limit, the memory budget and the time limit.

A body is kept whole, so that an attempt can be repeated, or read part by part and passed on.
Nothing looks inside.
"""

import asyncio

from aiohttp import web

from router.domain.clock import Clock
from router.domain.errors import (
    BodyTimeoutError,
    BrokenBodyError,
    ClientClosedError,
    PayloadTooLargeError,
    ShedError,
)
from router.gateway.framing import RefusedError

STREAM_ABOVE_BYTES = 64 * 1024
"""A longer body need not be kept."""
WINDOW_BYTES = 256 * 1024
"""About what is held of a body that is passed on as it comes."""
PROGRESS_BYTES = 64 * 1024
"""What a client has to send of such a body in each time-out."""


def slow_body(timeout_s: float) -> BodyTimeoutError:
    """The error for a client that sends less than PROGRESS_BYTES in that time."""
    return BodyTimeoutError(
        f"{timeout_s:g} s brought less than {PROGRESS_BYTES} bytes of the body; send it faster"
    )


class BodyBudget:
    """Bytes of all bodies held at once; a body reserves before it is read."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0

    def has_room(self, size_bytes: int) -> bool:
        """Whether that much may be taken now."""
        return self.held_bytes + size_bytes <= self.max_bytes

    def reserve(self, size_bytes: int) -> None:
        """Take that much. Raises ShedError when it is not there."""
        if not self.has_room(size_bytes):
            raise ShedError("the gateway holds as many body bytes as it may; try again soon")
        self.held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Give it back."""
        self.held_bytes -= size_bytes


class Body:
    """One request's body; leaving the block gives its bytes back to the budget.

    `waited_s` is how long the client has let us wait for it.
    """

    def __init__(self, request: web.BaseRequest, budget: BodyBudget, clock: Clock) -> None:
        self._request = request
        self._budget = budget
        self._clock = clock
        self._reserved = 0
        self._read_bytes = 0
        self._slow_s = 0.0
        self._slow_bytes = 0
        self.waited_s = 0.0

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *exception: object) -> None:
        self._budget.release(self._reserved)

    @property
    def declared_bytes(self) -> int | None:
        """What the head says; None for a chunked body, whose length only its end tells."""
        if self._request.headers.get("transfer-encoding") is not None:
            return None
        return self._request.content_length or 0

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has been read of it."""
        return self._read_bytes == 0

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

    async def read(self, max_bytes: int, timeout_s: float) -> bytes:
        """The whole body.

        Raises PayloadTooLargeError (from the declared length where there is one, without reading),
        BodyTimeoutError, BrokenBodyError, ClientClosedError, ShedError.
        """
        declared = self.declared_bytes
        if declared == 0:
            return b""
        if declared is not None:
            self.check_size(declared, max_bytes)
            self.hold(declared)
        began = self._clock()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._collect(max_bytes, is_held=declared is not None)
        except TimeoutError:
            raise BodyTimeoutError(
                f"the body did not arrive within {timeout_s:g} s; send it faster or in parts"
            ) from None
        finally:
            self.waited_s += self._clock() - began

    async def read_part(self, timeout_s: float) -> bytes:
        """The next bytes of the body, b"" at its end.

        While we wait for the client, it has to send PROGRESS_BYTES in each `timeout_s`: a body of
        any length may take its time, but no slot is held by one that drips. Raises as `read`.
        """
        if self._request.content.at_eof():
            return b""
        began = self._clock()
        try:
            async with asyncio.timeout(timeout_s - self._slow_s):
                part = await self._next()
        except TimeoutError:
            raise slow_body(timeout_s) from None
        self._note_progress(len(part), self._clock() - began)
        return part

    def _note_progress(self, size_bytes: int, waited_s: float) -> None:
        self.waited_s += waited_s
        self._slow_s += waited_s
        self._slow_bytes += size_bytes
        if self._slow_bytes >= PROGRESS_BYTES:
            self._slow_s, self._slow_bytes = 0.0, 0

    async def _collect(self, max_bytes: int, *, is_held: bool) -> bytes:
        chunks: list[bytes] = []
        while chunk := await self._next():
            if not is_held:
                self.check_size(self._read_bytes, max_bytes)
                self.hold(self._read_bytes)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _next(self) -> bytes:
        if not self._read_bytes:
            await self._say_continue()
        try:
            chunk = await self._request.content.readany()
        except web.RequestPayloadError as error:
            if isinstance(error.__cause__, RefusedError):
                raise error.__cause__.error from error
            raise BrokenBodyError("the body's framing is broken") from error
        except ConnectionError as error:
            raise ClientClosedError("the client went away while sending its body") from error
        self._read_bytes += len(chunk)
        return chunk

    async def _say_continue(self) -> None:
        if self._request.headers.get("expect", "").lower() == "100-continue":
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
