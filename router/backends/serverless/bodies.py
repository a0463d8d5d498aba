"""What all callers of functions share: where they call, and how they handle large bodies."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from router.backends.serverless.refresher import Refresher
from router.domain.errors import AnswerTooLargeError
from router.upstream.address import Address
from router.upstream.response import Rest, UpstreamResponse

THREAD_FROM_BYTES = 128 * 1024
"""Encoding more than this would hold up the event loop noticeably."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address, and the TLS files it is spoken to with, which may be replaced at any time."""

    base: Address
    tls: Refresher[ssl.SSLContext] | None = None
    connect_timeout_s: float | None = None

    @property
    def address(self) -> Address:
        """The address to call now. Raises PlatformRefusedError if its TLS files are unusable."""
        if self.tls is None:
            return self.base
        return replace(self.base, ssl_context=self.tls.current())


async def off_loop(
    size_bytes: int, function: Callable[P, T], *arguments: P.args, **named: P.kwargs
) -> T:
    """Call `function`, in a thread if the bytes it works on are many."""
    if size_bytes < THREAD_FROM_BYTES:
        return function(*arguments, **named)
    return await asyncio.to_thread(function, *arguments, **named)


async def read_all(answer: UpstreamResponse, limit_bytes: int) -> bytes:
    """The whole body. Raises AnswerTooLargeError if it is over the limit."""
    if answer.rest is None:
        return _checked(answer.body, limit_bytes)
    rest = BoundedStream(answer.body, answer.rest, limit_bytes)
    parts = [part async for part in rest]
    return answer.body + b"".join(parts)


class BoundedStream(AsyncIterator[bytes]):
    """The rest of a body as long as the whole stays within a limit; then AnswerTooLargeError."""

    __slots__ = ("_left_bytes", "_limit_bytes", "_stream")

    def __init__(self, start: bytes, stream: Rest, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes - len(start)

    async def __anext__(self) -> bytes:
        part = await anext(self._stream)
        self._left_bytes -= len(part)
        if self._left_bytes < 0:
            raise too_long(self._limit_bytes)
        return part

    async def aclose(self) -> None:
        """Abandon what has not been read."""
        await self._stream.aclose()


def _checked(body: bytes, limit_bytes: int) -> bytes:
    if len(body) > limit_bytes:
        raise too_long(limit_bytes)
    return body


def too_long(limit_bytes: int) -> AnswerTooLargeError:
    """The error for an answer over the limit."""
    return AnswerTooLargeError(f"the function's answer is over {limit_bytes} bytes")
