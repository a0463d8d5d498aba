"""An answer that AWS Lambda streams (InvokeWithResponseStream): its head, then bytes as they come.

A function that streams sends its status and headers as JSON, eight zero bytes, then the body; one
that does not stream sends the whole answer as JSON. What was billed is told at the end.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec

from router.backends.serverless.answer import decode_answer
from router.backends.serverless.aws_errors import billing, function_error
from router.backends.serverless.bodies import off_loop, too_long
from router.backends.serverless.event_stream import Frame, FrameReader
from router.domain.errors import (
    AttemptError,
    ModelFailedError,
    ResponseLostError,
    UpstreamBrokenError,
)
from router.domain.ports import BackendResponse
from router.upstream.response import UpstreamResponse

EVENT_STREAM = "application/vnd.amazon.eventstream"
_HEAD_END = bytes(8)
_MAX_UNSTREAMED_BYTES = 6_291_556
"""A function that does not stream may answer no more than this, streamed invocation or not."""
_END_WITHIN_S = 1.0


class _Completion(msgspec.Struct):
    ErrorCode: str = ""
    ErrorDetails: str = ""
    LogResult: str = ""


class InvocationStream(AsyncIterator[bytes]):
    """The bytes that a function sends. Ends with the AttemptError of an invocation that failed."""

    def __init__(self, answer: UpstreamResponse, limit_bytes: int) -> None:
        self.response: BackendResponse | None = None
        """Where to write what was billed."""
        self._answer = answer
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes
        self._frames = FrameReader()
        self._chunks: deque[bytes] = deque()
        self._completion: _Completion | None = None
        self._take(answer.body)

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._completion is not None:
                await self._end(self._completion)
                raise StopAsyncIteration
            self._take(await self._more())
        return self._chunks.popleft()

    async def aclose(self) -> None:
        """Abandon what has not been read."""
        await self._answer.aclose()

    async def _more(self) -> bytes:
        try:
            if self._answer.rest is not None:
                return await anext(self._answer.rest)
        except StopAsyncIteration:
            pass
        raise ResponseLostError("the platform's stream ended before the function's answer did")

    def _take(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._take_frame(frame)

    def _take_frame(self, frame: Frame) -> None:
        match frame.kind:
            case "PayloadChunk":
                self._left_bytes -= len(frame.payload)
                if self._left_bytes < 0:
                    raise too_long(self._limit_bytes)
                self._chunks.append(frame.payload)
            case "InvokeComplete":
                self._completion = _completion(frame.payload)
            case "":
                raise UpstreamBrokenError("the platform broke the stream off")
            case _:
                pass  # a later addition of AWS's

    async def _end(self, completion: _Completion) -> None:
        if self._answer.rest is not None:
            # To its end, so that the connection can be used again.
            with suppress(StopAsyncIteration, TimeoutError, AttemptError):
                async with asyncio.timeout(_END_WITHIN_S):
                    await anext(self._answer.rest)
        await self.aclose()
        if completion.ErrorCode:
            details = completion.ErrorDetails.encode()
            raise function_error(details, completion.LogResult, completion.ErrorCode)
        if self.response is not None:
            self._bill(self.response, completion)

    def _bill(self, response: BackendResponse, completion: _Completion) -> None:
        response.billed_s, response.init_s = billing(completion.LogResult)
        if response.billed_s is not None:
            response.cold_start = response.init_s is not None

    async def open(self) -> BackendResponse:
        """The answer once its head is known; a whole one if the function does not stream.

        Raises AttemptError. Whoever gets an answer with a `rest` reads or closes it.
        """
        content = bytearray()
        async for chunk in self:
            begin = max(0, len(content) - len(_HEAD_END) + 1)
            content += chunk
            end = content.find(_HEAD_END, begin)
            if end >= 0:
                return await self._streamed(bytes(content[:end]), content[end + len(_HEAD_END) :])
            if len(content) > _MAX_UNSTREAMED_BYTES:
                raise ModelFailedError("the function streams without an HTTP head")
        headers = {name.lower() for name, _ in self._answer.headers}
        if "x-amz-function-error" in headers:
            assert self._completion is not None  # noqa: S101  or the loop would have raised
            raise function_error(bytes(content), self._completion.LogResult)
        response = await off_loop(len(content), decode_answer, bytes(content))
        assert self._completion is not None  # noqa: S101  or the loop would have raised
        self._bill(response, self._completion)
        return response

    async def _streamed(self, head: bytes, start: bytearray) -> BackendResponse:
        response = self.response = decode_answer(head)
        while self._chunks:
            start += self._chunks.popleft()
        response.body = bytes(start)
        if self._completion is not None:
            await self._end(self._completion)
        else:
            response.rest = self
        return response


def _completion(payload: bytes) -> _Completion:
    try:
        return msgspec.json.decode(payload or b"{}", type=_Completion)
    except msgspec.DecodeError as error:
        raise UpstreamBrokenError("the platform's event stream is damaged") from error
