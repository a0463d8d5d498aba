"""Calls a function through the AWS Lambda Invoke API.

A request travels as an HTTP event, payload format 2.0, so that the same function also works behind
a Function URL or API Gateway. Speaks to AWS, to emulators and to the local function host alike.
"""

import asyncio
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from router.backends.refusal import refusal_of
from router.backends.serverless.event import decode_answer, encode_event
from router.domain.errors import (
    AttemptError,
    EncodedTooLargeError,
    UpstreamBrokenError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)
from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient
from router.upstream.response import UpstreamResponse

_THREAD_FROM_BYTES = 128 * 1024
"""Encoding more than this would hold up the event loop noticeably."""
_BILLED = re.compile(r"Billed Duration: ([0-9.]{1,12}) ms")
_INIT = re.compile(r"Init Duration: ([0-9.]{1,12}) ms")

P = ParamSpec("P")
T = TypeVar("T")


class Signer(Protocol):
    """Adds the headers that authenticate a request to AWS."""

    def signed(
        self, url: str, headers: list[tuple[str, str]], body: bytes
    ) -> list[tuple[str, str]]:
        """The headers, signed. Must not block."""
        ...


@dataclass(frozen=True, slots=True)
class LambdaTarget:
    """Which function, where, and its size limits in bytes after encoding."""

    address: Address
    function: str
    qualifier: str
    max_payload_bytes: int
    max_response_bytes: int

    @property
    def path(self) -> str:
        """Path and query of the Invoke call."""
        path = f"/2015-03-31/functions/{quote(self.function, safe='')}/invocations"
        return f"{path}?Qualifier={quote(self.qualifier, safe='')}" if self.qualifier else path


class LambdaCaller:
    """Invokes one function and waits for its answer."""

    def __init__(
        self, target: LambdaTarget, upstream: UpstreamClient, signer: Signer | None = None
    ) -> None:
        self._target = target
        self._upstream = upstream
        self._signer = signer

    async def call(
        self, request: InferenceRequest, body: bytes, timeout_s: float
    ) -> BackendResponse:
        """Invoke. Raises AttemptError: too large, throttled, failed, timed out, not reached."""
        event = await _off_loop(len(body), encode_event, request, body)
        if len(event) > self._target.max_payload_bytes:
            raise EncodedTooLargeError(
                f"the request needs {len(event)} bytes as an event, the function takes"
                f" {self._target.max_payload_bytes}"
            )
        answer = await self._invoke(request, event, timeout_s)
        try:
            payload = await _read(answer, self._target.max_response_bytes)
        finally:
            await answer.aclose()
        headers = {name.lower(): value for name, value in answer.headers}
        if answer.status != 200:
            raise _api_error(answer.status, headers, payload)
        if "x-amz-function-error" in headers:
            raise _function_error(payload)
        response = await _off_loop(len(payload), decode_answer, payload)
        if (refusal := refusal_of(response.status, "the function")) is not None:
            raise refusal
        response.billed_s, response.init_s = _billing(headers.get("x-amz-log-result", ""))
        response.cold_start = None if response.billed_s is None else response.init_s is not None
        return response

    async def _invoke(
        self, request: InferenceRequest, event: bytes, timeout_s: float
    ) -> UpstreamResponse:
        headers = [
            ("content-type", "application/json"),
            ("x-amz-invocation-type", "RequestResponse"),
            # The log's last line tells what was billed and whether the start was cold.
            ("x-amz-log-type", "Tail"),
        ]
        if self._signer is not None:
            url = self._target.address.url + self._target.path
            headers = self._signer.signed(url, headers, event)
        call = Call(
            method="POST",
            target=self._target.path,
            headers=headers,
            body=event,
            is_idempotent=request.is_idempotent,
        )
        return await self._upstream.send(self._target.address, call, timeout_s=timeout_s)


async def _off_loop(
    size_bytes: int, function: Callable[P, T], *arguments: P.args, **named: P.kwargs
) -> T:
    if size_bytes < _THREAD_FROM_BYTES:
        return function(*arguments, **named)
    return await asyncio.to_thread(function, *arguments, **named)


async def _read(answer: UpstreamResponse, limit_bytes: int) -> bytes:
    if answer.rest is None:
        return answer.body
    parts, size = [answer.body], len(answer.body)
    async for part in answer.rest:
        size += len(part)
        if size > limit_bytes:
            raise UpstreamBrokenError(f"the function's answer is over {limit_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


class _Failure(msgspec.Struct):
    """Error documents of the platform and of a failed handler; only the type is ever shown."""

    errorType: str = ""  # noqa: N815  wire names
    Type: str = ""
    Reason: str = ""


def _failure(payload: bytes) -> _Failure:
    try:
        return msgspec.json.decode(payload, type=_Failure)
    except msgspec.DecodeError:
        return _Failure()


def _api_error(status: int, headers: dict[str, str], payload: bytes) -> AttemptError:
    kind = headers.get("x-amzn-errortype", "").split(":")[0][:80] or f"status {status}"
    match status:
        case 413:
            return EncodedTooLargeError("the platform says that the request is too large")
        case 429:
            reason = _failure(payload).Reason[:80] or kind
            message = f"the platform throttles the function ({reason})"
            return UpstreamRejectedError(message, _seconds(headers.get("retry-after")))
        case 503:
            return UpstreamRejectedError(f"the platform is not available ({kind})")
        case _:
            return UpstreamBrokenError(f"the platform failed the call ({kind})")


def _function_error(payload: bytes) -> AttemptError:
    kind = _failure(payload).errorType[:80] or "no error type"
    if kind == "Sandbox.Timedout":
        return UpstreamTimeoutError("the function ran into its time limit")
    return UpstreamBrokenError(f"the function failed ({kind})")


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() and len(text) < 6 else None


def _billing(log_result: str) -> tuple[float | None, float | None]:
    """Billed and init seconds from the tail of the invocation's log, None where not said."""
    try:
        log = b64decode(log_result, validate=True).decode("utf-8", "replace")
    except (Base64Error, ValueError):
        return None, None
    report = log[log.rfind("REPORT RequestId") :] if "REPORT RequestId" in log else ""
    billed, init = _BILLED.search(report), _INIT.search(report)
    return (
        float(billed[1]) / 1e3 if billed else None,
        float(init[1]) / 1e3 if init else None,
    )
