"""The data port: one ordinary request from its head to its answer, and its record.

Connections and the fast path are in `connection` and `fast_path`. Decides nothing about backends.
"""

import asyncio
import logging
from itertools import count
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from router.dispatch.director import Director
from router.dispatch.outcomes import outcome_of
from router.domain.clock import Clock
from router.domain.decision import Outcome
from router.domain.errors import RouterError
from router.domain.ports import Payload
from router.gateway.body import STREAM_ABOVE_BYTES, Body, BodyBudget
from router.gateway.client_limits import ClientLimits, connections_of
from router.gateway.connection import LINGER_S, ClientConnection, Data
from router.gateway.exchange import Exchange, Telemetry
from router.gateway.fast_path import FastPath
from router.gateway.intake import Intake, Taken
from router.gateway.listener import descriptors
from router.gateway.relay import Headers, error_reply, is_relayed, reply_of, stream
from router.gateway.responses import ErrorAnswer, error_answer, outcome_of_status
from router.gateway.target import Document
from router.runtime import Runtime, RuntimeRef
from router.shadow.copies import Copy, Shadows
from router.upstream.client import UpstreamClient

_log = logging.getLogger(__name__)

_READ_BUFFER_BYTES = 64 * 1024
"""A connection stops reading when it holds twice that much of an ordinary request's body."""


class GatewayServer(web.Server):
    """aiohttp's server, making the gateway's connections."""

    def __init__(self, data: Data, **options: Any) -> None:  # noqa: ANN401  aiohttp's
        # Without a time-out of its own, aiohttp notes when a connection became idle, and no more.
        super().__init__(data.handle, keepalive_timeout=0.0, **options)
        self._data = data

    def __call__(self) -> RequestHandler:
        """A connection for a client that was accepted."""
        return ClientConnection(self, self._data, loop=self._loop, **self._kwargs)


class DataPlane:
    """Answers the requests of the data port."""

    def __init__(
        self,
        runtime: RuntimeRef,
        director: Director,
        telemetry: Telemetry,
        clock: Clock,
        instance_id: str,
        upstream: UpstreamClient,
    ) -> None:
        self._runtime = runtime
        self._director = director
        self._telemetry = telemetry
        self._clock = clock
        self._intake = Intake(director, clock)
        self.shadows = Shadows(director, telemetry.metrics, clock)
        prefix = instance_id.encode("ascii")
        self._ids = (b"%b-%x" % (prefix, number) for number in count(1))
        settings = runtime.current.settings.server
        self.bodies = BodyBudget(settings.max_buffered_bytes)
        self.limits = ClientLimits(runtime, clock, self.bodies, connections_of(descriptors()))
        self.fast_path = (
            FastPath(runtime, upstream, telemetry, self.bodies, clock, self._ids)
            if settings.fast_path
            else None
        )
        self.is_draining = False
        self._ordinary_in_flight = 0

    @property
    def in_flight(self) -> int:
        """Requests that have been read and not yet answered."""
        fast = self.fast_path.in_flight if self.fast_path is not None else 0
        return self._ordinary_in_flight + fast

    def server(self) -> web.Server:
        """The aiohttp server for the data port's connections."""
        max_head = self._runtime.current.settings.server.max_header_bytes
        return GatewayServer(
            self,
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            max_line_size=max_head,
            max_field_size=max_head,
            read_bufsize=_READ_BUFFER_BYTES,
            lingering_time=LINGER_S,
        )

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens to it, and record how it ended."""
        exchange = self._exchange(http)
        self._ordinary_in_flight += 1
        try:
            reply = await self._reply(http, exchange)
        except asyncio.CancelledError as error:
            exchange.outcome, exchange.status = outcome_of(error), 499
            raise
        finally:
            self._ordinary_in_flight -= 1
            if exchange.model is not None or exchange.outcome is not Outcome.OK:
                exchange.finish(self._clock(), self._telemetry)
        if self.is_draining or _is_cut_short(http):
            reply.force_close()
        return reply

    def refuse(self, error: RouterError) -> tuple[ErrorAnswer, Headers]:
        """Record what has not become a request; returns its answer and the headers to it."""
        exchange = Exchange(next(self._ids).decode("ascii"), self._clock())
        exchange.outcome = outcome_of(error)
        answer = error_answer(error, exchange.protocol)
        exchange.status = answer.status
        exchange.finish(self._clock(), self._telemetry)
        return answer, exchange.headers(self._clock())

    def _exchange(self, http: web.BaseRequest) -> Exchange:
        """A new exchange, or one that the fast path began."""
        connection = http.protocol
        if isinstance(connection, ClientConnection) and connection.carried is not None:
            carried, connection.carried = connection.carried, None
            return Exchange(carried.request_id, carried.received_at, record=carried.record)
        return Exchange(next(self._ids).decode("ascii"), self._clock())

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
        with Body(http, self.bodies, self._clock) as body:
            taken = await self._intake.take(
                http, body, exchange, runtime, is_ready=not self.is_draining
            )
            if isinstance(taken, Document):
                exchange.status = taken.status
                headers = exchange.headers(self._clock())
                return reply_of(taken.status, _JSON + headers, msgspec.json.encode(taken.content))
            return await self._serve(http, taken, exchange, runtime)

    async def _serve(
        self, http: web.BaseRequest, taken: Taken, exchange: Exchange, runtime: Runtime
    ) -> web.StreamResponse:
        copy = self._copy(taken, exchange, runtime)
        body = taken.body if copy is None else copy.body
        try:
            reply = await self._served(http, taken, body, exchange, copy)
        except BaseException:
            if copy is not None:
                copy.drop()
            raise
        if copy is not None and exchange.record.passed_to is not None:
            copy.drop()  # another model has answered
        elif copy is not None:
            copy.send()
        return reply

    def _copy(self, taken: Taken, exchange: Exchange, runtime: Runtime) -> Copy | None:
        """What a shadow will get of the request, once the client has its answer."""
        if taken.shadow is None or exchange.is_resumed:
            return None
        request = taken.chain[0].request
        return self.shadows.begin(taken.shadow, runtime, request, taken.body)

    async def _served(
        self,
        http: web.BaseRequest,
        taken: Taken,
        body: Payload,
        exchange: Exchange,
        copy: Copy | None,
    ) -> web.StreamResponse:
        record = exchange.record
        async with self._director.serve(taken.chain, body, record) as response:
            if copy is not None:
                copy.watch(response)
            exchange.status = response.status
            exchange.outcome = outcome_of_status(response.status)
            headers = [(name, value) for name, value in response.headers if is_relayed(name)]
            headers += exchange.headers(self._clock())
            if response.rest is None:
                return reply_of(response.status, headers, response.body)
            return await stream(http, response, headers)

    def _error_reply(self, error: Exception, exchange: Exchange) -> web.Response:
        answer = error_answer(error, exchange.protocol)
        exchange.status = answer.status
        return error_reply(answer, exchange.headers(self._clock()))


_JSON = [("content-type", "application/json")]


def _is_cut_short(http: web.BaseRequest) -> bool:
    """Whether the answer came before the end of a long body, whose rest is of no use to anybody."""
    return not http.content.is_eof() and (http.content_length or 0) > STREAM_ABOVE_BYTES
