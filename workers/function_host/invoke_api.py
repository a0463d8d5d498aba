"""The Lambda Invoke API as callers see it.

Decides from the head what can be refused without reading the body (draining, unknown function,
size, concurrency), and turns results into Lambda's statuses, headers and error bodies. It never
looks into an event beyond checking that it is JSON. Requests need no signature.
"""

import asyncio
import base64
import uuid
from dataclasses import dataclass

import msgspec
from aiohttp import web

from workers.function_host.bodies import BodyLostError, BodyTooLargeError, read_body
from workers.function_host.function import Function
from workers.function_host.host import Host
from workers.function_host.invocation import MAX_PAYLOAD_BYTES, Result, Status

_PATH = "/2015-03-31/functions/{name}/invocations"
_VERSION = "$LATEST"
_BODY_S = 30.0
_RETRY_AFTER_S = 1
_FUNCTION_ERROR = "Unhandled"


@dataclass(eq=False)
class RefusedError(Exception):
    """An invocation that never reached a handler, as Lambda words it."""

    status: int
    error_type: str
    message: str
    reason: str | None = None
    retry_after_s: int | None = None


class InvokeApi:
    """Routes of the Invoke API in front of a host."""

    def __init__(self, host: Host, body_s: float = _BODY_S) -> None:
        self._host = host
        self._body_s = body_s

    def routes(self) -> list[web.RouteDef]:
        """The routes to serve."""
        return [web.post(_PATH, self.invoke, expect_handler=self._expect)]

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """Answer one invocation request."""
        try:
            function = self._check_head(request)
            if _invocation_type(request) == "DryRun":
                return web.Response(status=204, headers=_headers(str(uuid.uuid4())))
            result = await self._run(function, request)
            return _result_response(result, with_log=_wants_log(request))
        except RefusedError as refusal:
            return _refusal_response(refusal)

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """Refuse before the body is asked for, where the head suffices."""
        try:
            self._check_head(request)
        except RefusedError as refusal:
            return _refusal_response(refusal)
        if request.headers.get("Expect", "").lower() != "100-continue":
            raise web.HTTPExpectationFailed
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the interim answer is not part of the response
        return None

    def _check_head(self, request: web.Request) -> Function:
        if self._host.draining:
            raise RefusedError(503, "ServiceException", "The function host is stopping.")
        name = request.match_info["name"]
        function = self._host.function(name)
        if function is None:
            raise RefusedError(
                404, "ResourceNotFoundException", f"Function not found: {name[:140]}"
            )
        if request.query.get("Qualifier", _VERSION) != _VERSION:
            raise RefusedError(
                404, "ResourceNotFoundException", f"{name} has no version but {_VERSION} here."
            )
        _invocation_type(request)
        _wants_log(request)
        if (request.content_length or 0) > MAX_PAYLOAD_BYTES:
            raise _too_large()
        return function

    async def _run(self, function: Function, request: web.Request) -> Result:
        # Before the body is read: so bodies in memory are bounded by the functions' limits.
        if not function.try_admit():
            raise RefusedError(
                429,
                "TooManyRequestsException",
                f"Rate Exceeded: {function.spec.max_concurrency} invocations are running.",
                reason="ReservedFunctionConcurrentInvocationLimitExceeded",
                retry_after_s=_RETRY_AFTER_S,
            )
        try:
            event = await self._read_event(request)
        except BaseException:
            function.abandon()
            raise
        return await function.invoke(event)

    async def _read_event(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(self._body_s):
                event = await read_body(request, MAX_PAYLOAD_BYTES)
        except BodyTooLargeError:
            raise _too_large() from None
        except BodyLostError:  # nobody reads this answer
            message = "The connection was lost."
            raise RefusedError(400, "InvalidRequestContentException", message) from None
        except TimeoutError:
            message = f"The request body did not arrive within {self._body_s:g} seconds."
            raise RefusedError(408, "RequestTimeoutException", message) from None
        _check_json(event)
        return event or b"{}"  # as Lambda does for an invocation without a payload


def _check_json(event: bytes) -> None:
    if not event:
        return
    try:
        msgspec.json.decode(event, type=msgspec.Raw)  # validates, builds nothing
        if not event.isascii():
            event.decode("utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(
            400,
            "InvalidRequestContentException",
            f"Could not parse request body into json: {error}",
        ) from error


def _invocation_type(request: web.Request) -> str:
    value = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
    if value not in {"RequestResponse", "DryRun"}:
        raise RefusedError(
            400,
            "InvalidParameterValueException",
            "X-Amz-Invocation-Type must be RequestResponse or DryRun here.",
        )
    return value


def _wants_log(request: web.Request) -> bool:
    value = request.headers.get("X-Amz-Log-Type", "None")
    if value not in {"None", "Tail"}:
        raise RefusedError(
            400, "InvalidParameterValueException", "X-Amz-Log-Type must be None or Tail."
        )
    return value == "Tail"


def _too_large() -> RefusedError:
    message = f"Request must be smaller than {MAX_PAYLOAD_BYTES} bytes for the Invoke operation"
    return RefusedError(413, "RequestTooLargeException", message)


def _headers(request_id: str) -> dict[str, str]:
    return {"x-amzn-RequestId": request_id, "X-Amz-Executed-Version": _VERSION}


def _result_response(result: Result, *, with_log: bool) -> web.Response:
    if result.status is Status.NOT_STARTED:
        raise RefusedError(500, "ServiceException", "No process could be started.")
    if result.status is Status.ABORTED:
        raise RefusedError(503, "ServiceException", "The invocation was stopped with its host.")
    headers = _headers(result.request_id)
    if result.status is not Status.OK:
        headers["X-Amz-Function-Error"] = _FUNCTION_ERROR
    if with_log:
        headers["X-Amz-Log-Result"] = base64.b64encode(result.log_tail).decode("ascii")
    return web.Response(body=result.payload, content_type="application/json", headers=headers)


def _refusal_response(refusal: RefusedError) -> web.Response:
    by_caller = refusal.status < 500  # HTTP's own border
    body = {"Type": "User" if by_caller else "Service", "message": refusal.message}
    if refusal.reason is not None:
        body["Reason"] = refusal.reason
    headers = {"x-amzn-RequestId": str(uuid.uuid4()), "x-amzn-ErrorType": refusal.error_type}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    return web.json_response(body, status=refusal.status, headers=headers)
