"""The data port: connections, and the way of an answer back to the client.

Everything that touches aiohttp's protocol class is in this file. Decides nothing about backends.
"""

import asyncio
import logging
from collections.abc import Sequence
from itertools import count

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from multidict import CIMultiDict

from router.director import Director, outcome_of
from router.domain.clock import Clock
from router.domain.decision import Outcome
from router.domain.errors import (
    AttemptError,
    ClientClosedError,
    InvalidRequestError,
    RouterError,
)
from router.domain.ports import BackendResponse
from router.domain.request import Protocol
from router.gateway.body import Body, BodyBudget
from router.gateway.exchange import Exchange
from router.gateway.head import HOP_BY_HOP
from router.gateway.intake import Intake, Taken
from router.gateway.responses import ErrorAnswer, error_answer
from router.gateway.target import Document
from router.runtime import RuntimeRef
from router.telemetry.logs import AccessLog
from router.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, str]]

_SET_BY_US = HOP_BY_HOP | {"content-length", "x-request-id", "server-timing", "server"}
_OURS = [("server", "hybrid-router")]
"""Sent with every answer, so that no software versions are told."""
_LINGER_S = 2.0
"""How long an unread body is drained so that its sender can read our refusal."""
_MALFORMED = InvalidRequestError("the request is not valid HTTP, or its head is too large")


class DataPlane:
    """Answers the requests of the data port."""

    def __init__(
        self,
        runtime: RuntimeRef,
        director: Director,
        metrics: Metrics,
        access_log: AccessLog,
        clock: Clock,
        instance_id: str,
    ) -> None:
        self._runtime = runtime
        self._director = director
        self._metrics = metrics
        self._access_log = access_log
        self._clock = clock
        self._intake = Intake(director, clock)
        self._ids = (f"{instance_id}-{number:x}" for number in count(1))
        self.bodies = BodyBudget(runtime.current.settings.server.max_buffered_bytes)
        self.is_draining = False
        self.in_flight = 0

    def server(self) -> web.Server:
        """The aiohttp server for the data port's connections."""
        max_head = self._runtime.current.settings.server.max_header_bytes
        return _Server(
            self.handle,
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            max_line_size=max_head,
            max_field_size=max_head,
            lingering_time=_LINGER_S,
        )

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens to it, and record how it ended."""
        exchange = Exchange(next(self._ids), self._clock())
        self.in_flight += 1
        try:
            reply = await self._reply(http, exchange)
        except asyncio.CancelledError as error:
            exchange.outcome, exchange.status = outcome_of(error), 499
            raise
        finally:
            self.in_flight -= 1
            if exchange.model is not None or exchange.outcome is not Outcome.OK:
                exchange.finish(self._clock(), self._metrics, self._access_log)
        if self.is_draining:
            reply.force_close()
        return reply

    async def _reply(self, http: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        try:
            return await self._answer(http, exchange)
        except RouterError as error:
            exchange.outcome = outcome_of(error)
            return self._error_reply(error, exchange)
        except Exception as error:  # noqa: BLE001  root of a request: logged, counted, answered
            _log.exception("request %s failed", exchange.request_id)
            exchange.outcome = Outcome.INTERNAL_ERROR
            return self._error_reply(error, exchange)

    async def _answer(self, http: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        runtime = self._runtime.current
        _check_head(http, runtime.settings.server.max_header_bytes)
        with Body(http, self.bodies) as body:
            taken = await self._intake.take(
                http, body, exchange, runtime, is_ready=not self.is_draining
            )
            if isinstance(taken, Document):
                exchange.status = taken.status
                headers = exchange.headers(self._clock())
                return _reply(taken.status, _JSON + headers, msgspec.json.encode(taken.content))
            return await self._serve(http, taken, exchange)

    async def _serve(
        self, http: web.BaseRequest, taken: Taken, exchange: Exchange
    ) -> web.StreamResponse:
        record = exchange.record
        async with self._director.serve(taken.model, taken.request, taken.body, record) as response:
            exchange.status = response.status
            exchange.outcome = _outcome(response.status)
            headers = [
                (name, value) for name, value in response.headers if name.lower() not in _SET_BY_US
            ]
            headers += exchange.headers(self._clock())
            if response.rest is None:
                return _reply(response.status, headers, response.body)
            return await _stream(http, response, headers)

    def _error_reply(self, error: Exception, exchange: Exchange) -> web.Response:
        answer = error_answer(error, exchange.protocol)
        exchange.status = answer.status
        return _error_response(answer, exchange.headers(self._clock()))


_JSON = [("content-type", "application/json")]


def _outcome(status: int) -> Outcome:
    if status < 400:
        return Outcome.OK
    return Outcome.CLIENT_ERROR if status < 500 else Outcome.MODEL_ERROR


def _check_head(http: web.BaseRequest, max_bytes: int) -> None:
    """The parser bounds each line of a head, this all of them. Raises InvalidRequestError."""
    size = len(http.raw_path) + sum(len(name) + len(value) + 4 for name, value in http.raw_headers)
    if size > max_bytes:
        raise InvalidRequestError(
            f"the request's head has {size} bytes, this gateway takes at most {max_bytes}"
        )


def _reply(status: int, headers: Headers, body: bytes) -> web.Response:
    return web.Response(status=status, headers=CIMultiDict([*headers, *_OURS]), body=body)


def _error_response(answer: ErrorAnswer, headers: Headers = ()) -> web.Response:
    reply = _reply(answer.status, [*answer.headers, *headers], answer.body)
    if answer.closes:
        reply.force_close()
    return reply


async def _stream(
    http: web.BaseRequest, response: BackendResponse, headers: Headers
) -> web.StreamResponse:
    """Pass the answer on as it arrives, at the pace of the slower side.

    Once the head is out nothing can be repeated: if the upstream breaks, so does the connection.
    """
    assert response.rest is not None  # noqa: S101
    reply = web.StreamResponse(status=response.status, headers=CIMultiDict([*headers, *_OURS]))
    length = {name.lower(): value for name, value in response.headers}.get("content-length")
    if length is not None:
        reply.content_length = int(length)
    try:
        await reply.prepare(http)
        if response.body:
            await reply.write(response.body)
        async for chunk in response.rest:
            await reply.write(chunk)
        await reply.write_eof()
    except AttemptError:
        _abort(http)
        raise
    except ConnectionError as error:
        raise ClientClosedError("the client went away during the answer") from error
    return reply


def _abort(http: web.BaseRequest) -> None:
    if http.transport is not None:
        http.transport.abort()


class _Server(web.Server):
    """aiohttp's server with connections that speak the gateway's error shape."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """One client connection; framing is aiohttp's hardened parser's business."""

    def data_received(self, data: bytes) -> None:
        """Also end a body in whose middle the framing broke: aiohttp lets its reader wait."""
        super().data_received(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            request = self._current_request
            if request is not None and not request.content.is_eof():
                request.content.set_exception(web.RequestPayloadError("the framing is broken"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused; the connection is closed afterwards."""
        _log.info("malformed request from a client: status %d, %s", status, type(exc).__name__)
        del message  # quotes the client's bytes
        reply = _error_response(error_answer(_MALFORMED, Protocol.OIP))
        reply.force_close()
        return reply
