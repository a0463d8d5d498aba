"""Calls a function through the AWS Lambda Invoke API.

A request travels as an HTTP event, payload format 2.0, so that the same function also works behind
a Function URL or API Gateway. Speaks to AWS, to emulators and to the local function host alike.
The answer comes whole, or as a stream where the function is set up for that.
"""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote

from router.backends.serverless.access import Access
from router.backends.serverless.answer import AnswerReader
from router.backends.serverless.aws_errors import api_error, billing, function_error
from router.backends.serverless.bodies import Endpoint, off_loop, read_all, too_long
from router.backends.serverless.calls import Message, Understood, ready_call
from router.backends.serverless.event import EventForm
from router.backends.serverless.invocation_stream import EVENT_STREAM, InvocationStream
from router.backends.serverless.sigv4 import Signable
from router.domain.errors import (
    AttemptError,
    EncodedTooLargeError,
    PlatformRefusedError,
    UpstreamTimeoutError,
)
from router.domain.ports import BackendResponse, Headers
from router.domain.request import InferenceRequest
from router.upstream.address import Address
from router.upstream.client import UpstreamClient
from router.upstream.head import closed_head, open_head
from router.upstream.response import UpstreamResponse
from router.upstream.response_head import ResponseHead

_log = logging.getLogger(__name__)

_HEADERS = (
    ("content-type", "application/json"),
    ("x-amz-invocation-type", "RequestResponse"),
    # The log's last line tells what was billed and whether the start was cold.
    ("x-amz-log-type", "Tail"),
)


@dataclass(frozen=True, slots=True)
class LambdaTarget:
    """Which function, where, how it answers, and its size limits in bytes after encoding."""

    endpoint: Endpoint
    function: str
    qualifier: str
    max_payload_bytes: int
    max_response_bytes: int
    is_streamed: bool = False

    @property
    def path(self) -> str:
        """Path and query of the call."""
        name = quote(self.function, safe="")
        path = f"/2015-03-31/functions/{name}/invocations"
        if self.is_streamed:
            path = f"/2021-11-15/functions/{name}/response-streaming-invocations"
        return f"{path}?Qualifier={quote(self.qualifier, safe='')}" if self.qualifier else path


class LambdaCaller:
    """Invokes one function."""

    def __init__(self, target: LambdaTarget, upstream: UpstreamClient, access: Access) -> None:
        self.target = target
        self._upstream = upstream
        self._access = access
        host, path = target.endpoint.base.host_header, target.path
        self._head = open_head("POST", path, host, _HEADERS)
        self._proof = access.proof(Signable("POST", host, path, _HEADERS))
        self._answers = AnswerReader()

    @property
    def own_headers(self) -> frozenset[str]:
        """None: a client's headers go into the event."""
        return frozenset()

    def prepared(
        self, request: InferenceRequest, own: Collection[str] = ()
    ) -> "LambdaCalls | None":
        """The calls of requests like this one; None if the function streams what it answers."""
        return None if self.target.is_streamed else self._calls(request, own)

    def _calls(self, request: InferenceRequest, own: Collection[str] = ()) -> "LambdaCalls":
        return LambdaCalls(self, EventForm(request, own))

    async def call(
        self, request: InferenceRequest, body: bytes, timeout_s: float
    ) -> BackendResponse:
        """Invoke. Raises AttemptError: too large, refused, throttled, failed, timed out, ..."""
        calls = self._calls(request)
        # Encoding and hashing a large body takes milliseconds.
        call = await off_loop(len(body), ready_call, calls, request, body)
        try:
            # What is streamed has its head before the function has answered anything.
            async with asyncio.timeout(timeout_s):
                answer = await self._upstream.send(calls.address, call, timeout_s=timeout_s)
                return await self.finished(answer)
        except TimeoutError as error:
            raise UpstreamTimeoutError("the function did not answer in time") from error

    async def finished(self, answer: UpstreamResponse) -> BackendResponse:
        """The function's answer, which may still be coming. Raises AttemptError."""
        headers = {name.lower(): value for name, value in answer.headers}
        is_stream = headers.get("content-type", "").startswith(EVENT_STREAM)
        if answer.status != 200 or not is_stream:
            return await self._whole(answer)
        try:
            return await InvocationStream(answer, self.target.max_response_bytes).open()
        except BaseException:
            await answer.aclose()
            raise

    async def _whole(self, answer: UpstreamResponse) -> BackendResponse:
        try:
            payload = await read_all(answer, self.target.max_response_bytes)
        finally:
            await answer.aclose()
        if answer.status != 200:
            raise self._error(answer.status, answer.headers, payload)
        found = await off_loop(
            len(payload), self.understand, answer.status, answer.headers, payload
        )
        return found.response

    def message(self, event: bytes) -> Message:
        """A call with that event. Raises AttemptError."""
        limit = self.target.max_payload_bytes
        if len(event) > limit:
            raise EncodedTooLargeError(
                f"the request needs {len(event)} bytes as an event, the function takes {limit}"
            )
        head = b"%b%b" % (self._head, self._proof.lines(event))
        return Message(closed_head(head, "POST", len(event)), event)

    def understand(self, status: int, headers: Headers, payload: bytes) -> Understood:
        """What an answer says that came whole. Raises AttemptError."""
        log_result, is_failure = "", False
        for name, value in headers:
            key = name.lower()
            if key == "x-amz-log-result":
                log_result = value
            elif key == "x-amz-function-error":
                is_failure = True
        if len(payload) > self.target.max_response_bytes:
            raise too_long(self.target.max_response_bytes)
        if status != 200:
            raise self._error(status, headers, payload)
        if is_failure:
            raise function_error(payload, log_result)
        head, body = self._answers.read(payload)
        response = BackendResponse(head.status, head.headers, body)
        response.billed_s, response.init_s = billing(log_result)
        response.cold_start = None if response.billed_s is None else response.init_s is not None
        return Understood(head, response)

    def _error(self, status: int, headers: Headers, payload: bytes) -> AttemptError:
        error = api_error(status, {name.lower(): value for name, value in headers}, payload)
        if isinstance(error, PlatformRefusedError):
            # Rare: after a few of them the circuit opens.
            _log.warning("function %s: %s", self.target.function, error)
            self._access.refused()
        return error


class LambdaCalls:
    """Invocations with the events of requests that are alike."""

    def __init__(self, caller: LambdaCaller, form: EventForm) -> None:
        self._caller = caller
        self._form = form
        self.connect_timeout_s = caller.target.endpoint.connect_timeout_s
        self.max_answer_bytes = caller.target.max_response_bytes

    @property
    def address(self) -> Address:
        """The API's. Raises PlatformRefusedError if its TLS files are unusable."""
        return self._caller.target.endpoint.address

    def message(self, lines: bytes, request_id: bytes, body: bytes) -> Message:
        """One of them. Raises AttemptError."""
        return self._caller.message(self._form.event(lines, request_id, body))

    def passes_on(
        self, head: ResponseHead, size_bytes: int, start: bytes
    ) -> BackendResponse | None:
        """None: an answer is read when it is complete. Raises AnswerTooLargeError."""
        del start
        if max(head.content_length or 0, size_bytes) > self.max_answer_bytes:
            raise too_long(self.max_answer_bytes)
        return None

    def understand(self, head: ResponseHead, body: bytes) -> Understood:
        """The function's answer. Raises AttemptError."""
        return self._caller.understand(head.status, head.headers, body)
