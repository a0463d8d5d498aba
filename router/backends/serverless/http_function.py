"""Calls a function by URL: Cloud Run, Azure Functions, Knative, OpenFaaS, Lambda Function URLs.

The request travels as HTTP, its body untouched. Decides what is added to it (path prefix, Host,
credentials); `platform_answers` says which answers are not the model's.
"""

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass

from router.backends.forwarding import forwarded_headers
from router.backends.serverless.access import Access
from router.backends.serverless.bodies import BoundedStream, Endpoint, off_loop, too_long
from router.backends.serverless.calls import Message, Understood, ready_call
from router.backends.serverless.platform_answers import platform_error
from router.backends.serverless.sigv4 import Signable
from router.domain.errors import AttemptError, EncodedTooLargeError, PlatformRefusedError
from router.domain.ports import BackendResponse, Headers
from router.domain.request import InferenceRequest
from router.upstream.address import Address
from router.upstream.client import UpstreamClient
from router.upstream.head import closed_head, open_head
from router.upstream.response import UpstreamResponse
from router.upstream.response_head import ResponseHead

_log = logging.getLogger(__name__)

_INIT_HEADER = "x-init-ms"
"""Beside a cold start's header, our own workers tell how long it took."""
_COLD = {"true": True, "1": True, "false": False, "0": False}
_ERRORS = 300
"""From here on an answer may be the platform's own: a redirect is no model's."""
_JUDGED_BYTES = 64 * 1024
"""So much of an error is enough to tell whose it is."""
_PLATFORM_HEADERS = ("x-amz-", "x-functions-", "x-serverless-", "x-goog-", "knative-serving-")
"""What platforms read as orders or credentials: only the gateway may give those."""


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Which function, where, its limits in bytes, and where it tells about cold starts.

    `prefix` goes before the request's own path; `host` replaces the Host header unless empty.
    """

    name: str
    endpoint: Endpoint
    prefix: str
    host: str
    max_payload_bytes: int
    max_response_bytes: int
    cold_start_header: str
    instance_header: str


class HttpFunctionCaller:
    """Sends requests to one function."""

    def __init__(self, target: HttpTarget, upstream: UpstreamClient, access: Access) -> None:
        self._target = target
        self._upstream = upstream
        self._access = access
        self._answers = _Answers(target, access)

    @property
    def own_headers(self) -> frozenset[str]:
        """Those that authenticate its calls."""
        return self._access.names

    def prepared(self, request: InferenceRequest, own: Collection[str] = ()) -> "HttpCalls":
        """The calls of requests like this one; `own` are headers that come with each."""
        return HttpCalls(self._target, self._access, request, own, self._answers)

    async def call(
        self, request: InferenceRequest, body: bytes, timeout_s: float
    ) -> BackendResponse:
        """Call it. Raises AttemptError: too large, refused, throttled, failed, timed out, ..."""
        calls = self.prepared(request)
        # Only a signature reads the body; the others do not care where they are made.
        call = await off_loop(len(body), ready_call, calls, request, body)
        answer = await self._upstream.send(calls.address, call, timeout_s=timeout_s)
        return await self.finished(answer)

    async def finished(self, answer: UpstreamResponse) -> BackendResponse:
        """The model's answer; closes one that is not. Raises AttemptError."""
        status, headers, body = answer.status, answer.headers, answer.body
        try:
            self._answers.judge(status, headers, body, _length(headers))
        except AttemptError:
            await answer.aclose()
            raise
        response = self._answers.response(status, headers, body)
        if answer.rest is not None:
            limit = self._target.max_response_bytes
            response.rest = BoundedStream(body, answer.rest, limit)
        return response


class HttpCalls:
    """The requests with what the platform wants."""

    def __init__(
        self,
        target: HttpTarget,
        access: Access,
        request: InferenceRequest,
        own: Collection[str],
        answers: "_Answers",
    ) -> None:
        self._target = target
        self._answers = answers
        self._method = request.method
        self.connect_timeout_s = target.endpoint.connect_timeout_s
        self.max_answer_bytes = target.max_response_bytes
        host = target.host or target.endpoint.base.host_header
        path = f"{target.prefix}{request.target}"
        names = {"host", "x-request-id", *access.names}
        ours = [*_PLATFORM_HEADERS, *(f"{name}:" for name in names)]
        self._ours = re.compile(rb"\n(?:%b)" % "|".join(map(re.escape, ours)).encode())
        headers = [
            (name, value)
            for name, value in forwarded_headers(request)
            if name not in own and not self._is_ours(f"{name}:".encode())
        ]
        self._head = open_head(request.method, path, host, [("host", host), *headers])
        self._proof = access.proof(Signable(request.method, host, path, ()))

    @property
    def address(self) -> Address:
        """The function's. Raises PlatformRefusedError if its TLS files are unusable."""
        return self._target.endpoint.address

    def message(self, lines: bytes, request_id: bytes, body: bytes) -> Message:
        """One of them. Raises AttemptError."""
        limit = self._target.max_payload_bytes
        if len(body) > limit:
            raise EncodedTooLargeError(
                f"the request has {len(body)} bytes, the function takes {limit}"
            )
        if self._is_ours(lines):
            lines = self._without_ours(lines)
        head = b"%b%b%bx-request-id: %b\r\n" % (
            self._head, lines, self._proof.lines(body), request_id,
        )  # fmt: skip
        return Message(closed_head(head, self._method, len(body)), body)

    def passes_on(
        self, head: ResponseHead, size_bytes: int, start: bytes
    ) -> BackendResponse | None:
        """The answer, once it is the model's for certain. Raises AttemptError."""
        status, headers = head.status, head.headers
        if status >= _ERRORS and size_bytes < _JUDGED_BYTES:
            return None
        self._answers.judge(status, headers, start, head.content_length or size_bytes)
        return self._answers.response(status, headers, b"")

    def understand(self, head: ResponseHead, body: bytes) -> Understood:
        """The model's answer. Raises AttemptError where it is the platform's."""
        answers, status = self._answers, head.status
        if status >= _ERRORS or len(body) > self._target.max_response_bytes:
            answers.judge(status, head.headers, body)
        return Understood(head, answers.response(status, head.headers, body))

    def _is_ours(self, lines: bytes) -> bool:
        """Whether one of these lines has a name that only the gateway may give."""
        return self._ours.search(b"\n" + lines.lower()) is not None

    def _without_ours(self, lines: bytes) -> bytes:
        return b"".join(line for line in lines.splitlines(keepends=True) if not self._is_ours(line))


class _Answers:
    """Tells the model's answers from the platform's."""

    def __init__(self, target: HttpTarget, access: Access) -> None:
        self._target = target
        self._access = access

    def judge(self, status: int, headers: Headers, body: bytes, size_bytes: int = 0) -> None:
        """Raise AttemptError for an answer that is not the model's.

        `size_bytes` is what it is said to have where `body` may not be all of it.
        """
        limit = self._target.max_response_bytes
        if status >= _ERRORS:
            self._judge_error(status, {name.lower(): value for name, value in headers}, body)
        if len(body) > limit or size_bytes > limit:
            raise too_long(limit)

    def _judge_error(self, status: int, headers: dict[str, str], body: bytes) -> None:
        error = platform_error(status, headers, body, self._access.has_credentials)
        if isinstance(error, PlatformRefusedError):
            # Rare: after a few of them the circuit opens.
            _log.warning("function %s: %s", self._target.name, error)
            self._access.refused()
        if error is not None:
            raise error

    def response(self, status: int, headers: Headers, body: bytes) -> BackendResponse:
        """The answer, with what is said about a cold start."""
        target, response = self._target, BackendResponse(status, headers, body)
        init = ""
        for name, value in headers:
            key = name.lower()
            if key == target.cold_start_header:
                response.cold_start = _COLD.get(value.lower())
            elif key == target.instance_header:
                response.environment_id = value or None
            elif key == _INIT_HEADER:
                init = value
        if response.cold_start:
            response.init_s = _milliseconds(init)
        return response


def _length(headers: Headers) -> int:
    """What an answer says that its body has; 0 where it does not say."""
    given = next((value for name, value in headers if name.lower() == "content-length"), "")
    return int(given) if given.isdecimal() else 0


def _milliseconds(text: str) -> float | None:
    is_number = text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 12
    return float(text) / 1e3 if is_number else None
