"""Calls a function through the AWS Lambda Invoke API.

A request travels as an HTTP event, payload format 2.0, so that the same function also works behind
a Function URL or API Gateway. Speaks to AWS, to emulators and to the local function host alike.
The answer comes whole, or as a stream where the function is set up for that.
"""

import asyncio
import logging
from dataclasses import dataclass
from urllib.parse import quote

from router.backends.serverless.access import Access
from router.backends.serverless.aws_errors import api_error, billing, function_error
from router.backends.serverless.bodies import Endpoint, off_loop, read_all, too_long
from router.backends.serverless.event import decode_answer, encode_event
from router.backends.serverless.invocation_stream import EVENT_STREAM, InvocationStream
from router.backends.serverless.sigv4 import Signable
from router.domain.errors import EncodedTooLargeError, PlatformRefusedError, UpstreamTimeoutError
from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient
from router.upstream.response import UpstreamResponse

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
        self._target = target
        self._path = target.path
        self._upstream = upstream
        self._access = access

    async def call(
        self, request: InferenceRequest, body: bytes, timeout_s: float
    ) -> BackendResponse:
        """Invoke. Raises AttemptError: too large, refused, throttled, failed, timed out, ..."""
        address, call = await off_loop(len(body), self.prepare, request, body)
        try:
            # What is streamed has its head before the function has answered anything.
            async with asyncio.timeout(timeout_s):
                answer = await self._upstream.send(address, call, timeout_s=timeout_s)
                return await self._response(answer)
        except TimeoutError as error:
            raise UpstreamTimeoutError("the function did not answer in time") from error

    async def _response(self, answer: UpstreamResponse) -> BackendResponse:
        headers = {name.lower(): value for name, value in answer.headers}
        is_stream = headers.get("content-type", "").startswith(EVENT_STREAM)
        if answer.status != 200 or not is_stream:
            return await self._whole(answer, headers)
        try:
            return await InvocationStream(answer, self._target.max_response_bytes).open()
        except BaseException:
            await answer.aclose()
            raise

    async def _whole(self, answer: UpstreamResponse, headers: dict[str, str]) -> BackendResponse:
        try:
            payload = await read_all(answer, self._target.max_response_bytes)
        finally:
            await answer.aclose()
        self._check(answer, headers, payload)
        return await off_loop(len(payload), self._decoded, headers, payload)

    @property
    def is_simple(self) -> bool:
        """Unless the function streams."""
        return not self._target.is_streamed

    def understand(self, answer: UpstreamResponse) -> BackendResponse:
        """The function's answer. Raises AttemptError."""
        if answer.rest is not None or len(answer.body) > self._target.max_response_bytes:
            raise too_long(self._target.max_response_bytes)
        headers = {name.lower(): value for name, value in answer.headers}
        self._check(answer, headers, answer.body)
        return self._decoded(headers, answer.body)

    def _decoded(self, headers: dict[str, str], payload: bytes) -> BackendResponse:
        log_result = headers.get("x-amz-log-result", "")
        if "x-amz-function-error" in headers:
            raise function_error(payload, log_result)
        response = decode_answer(payload)
        response.billed_s, response.init_s = billing(log_result)
        response.cold_start = None if response.billed_s is None else response.init_s is not None
        return response

    def prepare(self, request: InferenceRequest, body: bytes) -> tuple[Address, Call]:
        """The signed call; encoding and hashing a large body takes milliseconds.

        Raises AttemptError.
        """
        address = self._target.endpoint.address
        event = encode_event(request, body)
        if len(event) > self._target.max_payload_bytes:
            raise EncodedTooLargeError(
                f"the request needs {len(event)} bytes as an event, the function takes"
                f" {self._target.max_payload_bytes}"
            )
        signable = Signable("POST", address.host_header, self._path, _HEADERS, event)
        return address, Call(
            method="POST",
            target=self._path,
            headers=[*_HEADERS, *self._access.headers(signable)],
            body=event,
            connect_timeout_s=self._target.endpoint.connect_timeout_s,
            is_idempotent=request.is_idempotent,
        )

    def _check(self, answer: UpstreamResponse, headers: dict[str, str], payload: bytes) -> None:
        if answer.status != 200:
            error = api_error(answer.status, headers, payload)
            if isinstance(error, PlatformRefusedError):
                # Rare: after a few of them the circuit opens.
                _log.warning("function %s: %s", self._target.function, error)
                self._access.refused()
            raise error
