"""The data port: one ordinary request from its head to its answer, and its record.

Connections and the fast path are in `connection` and `fast_path`. Decides nothing about backends.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from router.dispatch.director import Director
from router.dispatch.outcomes import outcome_of
from router.domain.clock import Clock
from router.domain.decision import Outcome
from router.domain.errors import RouterError
from router.domain.ports import Payload
from router.gateway.body import STREAM_ABOVE_BYTES, Body, BodyBudget, HeldBody
from router.gateway.client_limits import ClientLimits, connections_of
from router.gateway.connection import LINGER_S, ClientConnection, Data
from router.gateway.direct import Client, Direct
from router.gateway.exchange import Exchange, Telemetry
from router.gateway.fast_attempt import Carried
from router.gateway.fast_path import FastPath
from router.gateway.fast_route import KnownHead
from router.gateway.intake import Intake, Taken
from router.gateway.known_heads import Sorted
from router.gateway.listener import descriptors
from router.gateway.protocols.base import Document
from router.gateway.relay import AiohttpReplies, Headers, Outgoing
from router.gateway.responses import ErrorAnswer, error_answer, outcome_of_status
from router.runtime import Runtime, RuntimeRef
from router.shadow.copies import Copy, Shadows
from router.upstream.client import UpstreamClient

_log = logging.getLogger(__name__)

R = TypeVar("R")

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
        self._intake = Intake(director, telemetry.metrics, clock)
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
        """Answer one request that aiohttp has read, whatever happens to it."""
        exchange = self._exchange()
        out = AiohttpReplies(http)
        reply = await self._recorded(exchange, out, partial(self._answer, http, out, exchange))
        if self.is_draining or _is_cut_short(http):
            reply.force_close()
        return reply

    def direct(
        self, client: Client, known: KnownHead, head: Sorted, body: bytes, carried: Carried | None
    ) -> Direct:
        """Answer one request with a known head and all of its body; `carried` if it has begun."""
        exchange = self._exchange() if carried is None else carried.exchange()
        direct = Direct(client)
        answer = partial(self._answer_known, direct, known, head, body, exchange)
        direct.start(self._recorded(exchange, direct, answer))
        return direct

    async def _recorded(
        self, exchange: Exchange, out: Outgoing[R], answer: Callable[[], Awaitable[R]]
    ) -> R:
        """Answer, whatever happens, and record how the request ended."""
        self._ordinary_in_flight += 1
        try:
            return await self._answered(exchange, out, answer)
        except asyncio.CancelledError as error:
            exchange.outcome, exchange.status = outcome_of(error), 499
            raise
        finally:
            self._ordinary_in_flight -= 1
            if exchange.model is not None or exchange.outcome is not Outcome.OK:
                exchange.finish(self._clock(), self._telemetry)

    def refuse(self, error: RouterError) -> tuple[ErrorAnswer, Headers]:
        """Record what has not become a request; returns its answer and the headers to it."""
        exchange = Exchange(next(self._ids).decode("ascii"), self._clock())
        exchange.outcome, exchange.error = outcome_of(error), error
        answer = error_answer(error, exchange.protocol)
        exchange.status = answer.status
        exchange.finish(self._clock(), self._telemetry)
        return answer, exchange.headers(self._clock())

    def _exchange(self) -> Exchange:
        return Exchange(next(self._ids).decode("ascii"), self._clock())

    async def _answered(
        self, exchange: Exchange, out: Outgoing[R], answer: Callable[[], Awaitable[R]]
    ) -> R:
        try:
            return await answer()
        except RouterError as error:
            exchange.outcome, exchange.error = outcome_of(error), error
            failure = error_answer(error, exchange.protocol)
        except Exception as error:  # noqa: BLE001  root of a request: logged, counted, answered
            _log.exception("request %s failed", exchange.request_id)
            failure = error_answer(error, exchange.protocol)
            exchange.outcome, exchange.error = Outcome.INTERNAL_ERROR, error
        exchange.status = failure.status
        return out.error(failure, exchange.headers(self._clock()))

    async def _answer(self, http: web.BaseRequest, out: Outgoing[R], exchange: Exchange) -> R:
        runtime = self._runtime.current
        with Body(http, self.bodies, self._clock) as body:
            taken = await self._intake.take(
                http, body, exchange, runtime, is_ready=not self.is_draining
            )
            if isinstance(taken, Document):
                exchange.status = taken.status
                headers = exchange.headers(self._clock())
                return out.whole(taken.status, _JSON + headers, msgspec.json.encode(taken.content))
            return await self._serve(out, taken, exchange, runtime)

    async def _answer_known(
        self, out: Outgoing[R], known: KnownHead, head: Sorted, content: bytes, exchange: Exchange
    ) -> R:
        with HeldBody(content, self.bodies, self._clock) as body:
            exchange.protocol, exchange.cors = known.target.protocol, known.cors
            intent, runtime = known.intent(head), known.runtime
            exchange.request_id = intent.head.request_id or exchange.request_id
            taken = await self._intake.understood(intent, known.target, body, exchange, runtime)
            return await self._serve(out, taken, exchange, runtime)

    async def _serve(
        self, out: Outgoing[R], taken: Taken, exchange: Exchange, runtime: Runtime
    ) -> R:
        copy = self._copy(taken, exchange, runtime)
        body = taken.body if copy is None else copy.body
        try:
            reply = await self._served(out, taken, body, exchange, copy)
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
        out: Outgoing[R],
        taken: Taken,
        body: Payload,
        exchange: Exchange,
        copy: Copy | None,
    ) -> R:
        record = exchange.record
        async with self._director.serve(taken.chain, body, record) as response:
            if copy is not None:
                copy.watch(response)
            exchange.status = response.status
            exchange.outcome = outcome_of_status(response.status)
            headers = exchange.relayed(response.headers) + exchange.headers(self._clock())
            if response.rest is None:
                return out.whole(response.status, headers, response.body)
            return await out.stream(response, headers)


_JSON = [("content-type", "application/json")]


def _is_cut_short(http: web.BaseRequest) -> bool:
    """Whether the answer came before the end of a long body, whose rest is of no use to anybody."""
    return not http.content.is_eof() and (http.content_length or 0) > STREAM_ABOVE_BYTES
