"""Calls a function by URL: Cloud Run, Azure Functions, Knative, OpenFaaS, Lambda Function URLs.

The request travels as HTTP, its body untouched. Decides what is added to it (path prefix, Host,
credentials); `platform_answers` says which answers are not the model's.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from router.backends.forwarding import forwarded_headers
from router.backends.serverless.access import Access
from router.backends.serverless.bodies import BoundedStream, Endpoint, off_loop, too_long
from router.backends.serverless.platform_answers import platform_error
from router.backends.serverless.sigv4 import Signable
from router.domain.errors import AttemptError, EncodedTooLargeError, PlatformRefusedError
from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient
from router.upstream.response import UpstreamResponse

_log = logging.getLogger(__name__)

_INIT_HEADER = "x-init-ms"
"""Beside a cold start's header, our own workers tell how long it took."""

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

    @property
    def is_simple(self) -> bool:
        """Always."""
        return True

    async def call(
        self, request: InferenceRequest, body: bytes, timeout_s: float
    ) -> BackendResponse:
        """Call it. Raises AttemptError: too large, refused, throttled, failed, timed out, ..."""
        # Only a signature reads the body; the others do not care where they are made.
        address, call = await off_loop(len(body), self.prepare, request, body)
        answer = await self._upstream.send(address, call, timeout_s=timeout_s)
        try:
            return self.understand(answer)
        except AttemptError:
            await answer.aclose()
            raise

    def prepare(self, request: InferenceRequest, body: bytes) -> tuple[Address, Call]:
        """The request with what the platform wants. Raises AttemptError."""
        limit = self._target.max_payload_bytes
        if len(body) > limit:
            raise EncodedTooLargeError(
                f"the request has {len(body)} bytes, the function takes {limit}"
            )
        address = self._target.endpoint.address
        return address, self._call(address, request, body)

    def understand(self, answer: UpstreamResponse) -> BackendResponse:
        """The model's answer. Raises AttemptError where it is the platform's."""
        headers = {name.lower(): value for name, value in answer.headers}
        if (error := self._failure(answer, headers)) is not None:
            raise error
        return self._response(answer, headers)

    def _call(self, address: Address, request: InferenceRequest, body: bytes) -> Call:
        target = f"{self._target.prefix}{request.target}"
        host = self._target.host or address.host_header
        added = self._access.headers(Signable(request.method, host, target, (), body))
        names = {"host", *(name.lower() for name, _ in added)}
        passed = [
            (name, value)
            for name, value in forwarded_headers(request)
            if name not in names and not name.startswith(_PLATFORM_HEADERS)
        ]
        return Call(
            method=request.method,
            target=target,
            headers=[("host", host), *passed, *added],
            body=body,
            connect_timeout_s=self._target.endpoint.connect_timeout_s,
            is_idempotent=request.is_idempotent,
        )

    def _failure(self, answer: UpstreamResponse, headers: Mapping[str, str]) -> AttemptError | None:
        error = platform_error(answer.status, headers, answer.body, self._access.has_credentials)
        if isinstance(error, PlatformRefusedError):
            # Rare: after a few of them the circuit opens.
            _log.warning("function %s: %s", self._target.name, error)
            self._access.refused()
        length = headers.get("content-length", "")
        limit = self._target.max_response_bytes
        is_long = (length.isdecimal() and int(length) > limit) or len(answer.body) > limit
        return too_long(limit) if error is None and is_long else error

    def _response(self, answer: UpstreamResponse, headers: Mapping[str, str]) -> BackendResponse:
        target = self._target
        rest = None
        if answer.rest is not None:
            rest = BoundedStream(answer.body, answer.rest, target.max_response_bytes)
        response = BackendResponse(answer.status, answer.headers, answer.body, rest)
        cold = headers.get(target.cold_start_header, "").lower()
        response.cold_start = {"true": True, "1": True, "false": False, "0": False}.get(cold)
        if response.cold_start:
            response.init_s = _milliseconds(headers.get(_INIT_HEADER, ""))
        response.environment_id = headers.get(target.instance_header) or None
        return response


def _milliseconds(text: str) -> float | None:
    is_number = text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 12
    return float(text) / 1e3 if is_number else None
