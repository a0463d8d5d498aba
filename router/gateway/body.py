"""Reads request bodies: within the size limit, the memory budget and the time limit.

Bodies are kept whole so that an attempt can be repeated; nothing looks inside.
"""

import asyncio

from aiohttp import web

from router.domain.errors import (
    BodyTimeoutError,
    BrokenBodyError,
    ClientClosedError,
    PayloadTooLargeError,
    ShedError,
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
    """One request's body and its share of the budget; a context manager that gives it back."""

    def __init__(self, request: web.BaseRequest, budget: BodyBudget) -> None:
        self._request = request
        self._budget = budget
        self._reserved = 0

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
            self._reserve(declared)
        await self._say_continue()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._collect(declared, max_bytes)
        except TimeoutError:
            raise BodyTimeoutError(
                f"the body did not arrive within {timeout_s:g} s; send it faster or in parts"
            ) from None

    @staticmethod
    def check_size(size_bytes: int, max_bytes: int) -> None:
        """Raise PayloadTooLargeError if a body of that size is over the limit."""
        if size_bytes > max_bytes:
            raise PayloadTooLargeError(
                f"the body has {size_bytes} bytes, this gateway takes at most {max_bytes}"
            )

    async def _collect(self, declared: int | None, max_bytes: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            while chunk := await self._request.content.readany():
                size += len(chunk)
                if declared is None:
                    self.check_size(size, max_bytes)
                    self._reserve(len(chunk))
                chunks.append(chunk)
        except web.RequestPayloadError as error:
            raise BrokenBodyError("the body's framing is broken") from error
        except ConnectionError as error:
            raise ClientClosedError("the client went away while sending its body") from error
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _reserve(self, size_bytes: int) -> None:
        self._budget.reserve(size_bytes)
        self._reserved += size_bytes

    async def _say_continue(self) -> None:
        if self._request.headers.get("expect", "").lower() == "100-continue":
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
