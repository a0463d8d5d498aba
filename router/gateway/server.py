"""The data port: one ordinary request from its head to its answer, and its record.

Connections and the fast path are in `connection` and `fast_path`. Decides nothing about backends.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol

import msgspec
from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from router.dispatch.director import Director
from router.dispatch.outcomes import outcome_of
from router.domain.clock import Clock
from router.domain.decision import Outcome
from router.domain.errors import RouterError
from router.domain.ports import BackendResponse, Payload
from router.gateway.body import Body, BodyBudget, HeldBody
from router.gateway.direct import Client, Direct
from router.gateway.exchange import Exchange, Telemetry
from router.gateway.http.client_limits import ClientLimits, connections_of
from router.gateway.http.connection import ClientConnection, Data
from router.gateway.http.framing import Arrival
from router.gateway.http.listener import descriptors
from router.gateway.intake import Intake, Taken
from router.gateway.protocols.base import Document
from router.gateway.relay import Headers
from router.gateway.responses import ErrorAnswer, error_answer, outcome_of_status
from router.gateway.sampling import Sampling, sampling
from router.gateway.shortcut.fast_attempt import Carried, Ground
from router.gateway.shortcut.fast_path import FastPath
from router.gateway.shortcut.fast_route import KnownHead
from router.gateway.shortcut.known_heads import Sorted
from router.gateway.usage import Watched
from router.runtime import Runtime, RuntimeRef
from router.shadow.copies import Copy, Shadows
from router.upstream.client import UpstreamClient

_log = logging.getLogger(__name__)

_READ_BUFFER_BYTES = 64 * 1024
"""A connection stops reading when it holds twice that much of an ordinary request's body."""


class Later(Protocol):
    """Who has the requests that are answered later, and the paths that are about them."""

    def takes(self, message: RawRequestMessage) -> bool:
        """Whether a request may be the business of `answer`."""
        ...

    async def answer(
        self, message: RawRequestMessage, body: Body, exchange: Exchange, runtime: Runtime
    ) -> BackendResponse | None:
        """The answer; None for a request that is one for now all the same. Raises RouterError."""
        ...


class GatewayServer(web.Server):
    """aiohttp's server, making the gateway's connections."""

    def __init__(self, data: Data, **options: Any) -> None:  # noqa: ANN401  aiohttp's
        # Without a time-out of its own, aiohttp notes when a connection became idle, and no more.
        super().__init__(_never, keepalive_timeout=0.0, **options)
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
        self.intake = Intake(director, telemetry.metrics, telemetry.tracer, clock)
        self.shadows = Shadows(director, telemetry.metrics, clock)
        prefix = instance_id.encode("ascii")
        self._ids = (b"%b-%x" % (prefix, number) for number in count(1))
        settings = runtime.current.settings.server
        self.bodies = BodyBudget(settings.max_buffered_bytes)
        self.limits = ClientLimits(runtime, clock, self.bodies, connections_of(descriptors()))
        ground = Ground(upstream, telemetry, self.bodies, clock, director.hedger, self.shadows)
        self.fast_path = FastPath(runtime, ground, self._ids) if settings.fast_path else None
        self.later: Later | None = None
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
            auto_decompress=False,
            access_log=None,
            max_line_size=max_head,
            max_field_size=max_head,
            read_bufsize=_READ_BUFFER_BYTES,
        )

    def serve(self, client: Client, arrival: Arrival, carried: Carried | None) -> Direct:
        """Answer one request whose body may still be to come; `carried` if it has begun before."""
        exchange = self._exchange(carried)
        direct = Direct(client, arrival)
        body = Body(arrival, self.bodies, self._clock, client.send_part)
        answer = partial(self._answer, direct, arrival.message, client.transport, body, exchange)
        direct.start(self._recorded(exchange, direct, answer))
        return direct

    def direct(
        self, client: Client, known: KnownHead, head: Sorted, body: bytes, carried: Carried | None
    ) -> Direct:
        """Answer one request with a known head and all of its body; `carried` if it has begun."""
        exchange = self._exchange(carried)
        direct = Direct(client)
        answer = partial(self._answer_known, direct, known, head, body, exchange)
        direct.start(self._recorded(exchange, direct, answer))
        return direct

    async def _recorded(
        self, exchange: Exchange, out: Direct, answer: Callable[[], Awaitable[None]]
    ) -> None:
        """Answer, whatever happens, and record how the request ended."""
        self._ordinary_in_flight += 1
        try:
            await self._answered(exchange, out, answer)
        except asyncio.CancelledError:
            exchange.client_left()
            raise
        finally:
            self._ordinary_in_flight -= 1
            self._director.abandon(exchange.record)
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

    def _exchange(self, carried: Carried | None) -> Exchange:
        if carried is not None:
            return carried.exchange()
        return Exchange(next(self._ids).decode("ascii"), self._clock())

    async def _answered(
        self, exchange: Exchange, out: Direct, answer: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            await answer()
        except RouterError as error:
            self._tell(exchange, out, error, outcome_of(error))
        except Exception as error:  # noqa: BLE001  root of a request: logged, counted, answered
            _log.exception("request %s failed", exchange.request_id)
            self._tell(exchange, out, error, Outcome.INTERNAL_ERROR)

    def _tell(self, exchange: Exchange, out: Direct, error: Exception, outcome: Outcome) -> None:
        answer = error_answer(error, exchange.protocol)
        exchange.outcome, exchange.error, exchange.status = outcome, error, answer.status
        out.error(answer, exchange.headers(self._clock()))

    async def _answer(
        self,
        out: Direct,
        message: RawRequestMessage,
        client: asyncio.BaseTransport | None,
        body: Body,
        exchange: Exchange,
    ) -> None:
        runtime = self._runtime.current
        with body:
            if self.later is not None and self.later.takes(message):
                reply = await self.later.answer(message, body, exchange, runtime)
                if reply is not None:
                    return await self._give(out, reply, exchange)
            taken = await self.intake.take(
                message, client, body, exchange, runtime, is_ready=not self.is_draining
            )
            if isinstance(taken, Document):
                exchange.status = taken.status
                headers = exchange.headers(self._clock())
                out.whole(taken.status, _JSON + headers, msgspec.json.encode(taken.content))
            else:
                await self._serve(out, taken, exchange, runtime)
            return None

    async def _give(self, out: Direct, reply: BackendResponse, exchange: Exchange) -> None:
        """Send an answer that no backend gives now."""
        exchange.status = reply.status
        # Its length is written by whoever sends it: a client refuses to be told twice.
        headers = [each for each in reply.headers if each[0] != "content-length"]
        headers += exchange.headers(self._clock())
        if reply.rest is None:
            out.whole(reply.status, headers, reply.body)
        else:
            await out.stream(reply, headers)

    async def _answer_known(
        self, out: Direct, known: KnownHead, head: Sorted, content: bytes, exchange: Exchange
    ) -> None:
        with HeldBody(content, self.bodies, self._clock) as body:
            exchange.protocol, exchange.cors = known.target.protocol, known.cors
            intent, runtime = known.intent(head), known.runtime
            exchange.request_id = intent.head.request_id or exchange.request_id
            taken = await self.intake.understood(intent, known.target, body, exchange, runtime)
            await self._serve(out, taken, exchange, runtime)

    async def _serve(self, out: Direct, taken: Taken, exchange: Exchange, runtime: Runtime) -> None:
        copy = self._copy(taken, exchange, runtime)
        body = taken.body if copy is None else copy.body
        sample = None if exchange.is_resumed else _sampling(taken, body, exchange, runtime)
        body = body if sample is None else sample.body
        watching = [each for each in (copy, sample) if each is not None]
        try:
            await self._served(out, taken, body, exchange, watching)
        except BaseException:
            for watcher in watching:
                watcher.drop()
            raise
        for watcher in watching:
            if exchange.record.passed_to is None:
                watcher.send()
            else:
                watcher.drop()  # another model has answered

    def _copy(self, taken: Taken, exchange: Exchange, runtime: Runtime) -> Copy | None:
        """What a shadow will get of the request, once the client has its answer."""
        if taken.shadow is None or (exchange.is_resumed and not exchange.is_copied):
            return None
        request = taken.chain[0].request
        return self.shadows.begin(taken.shadow, runtime, request, taken.body)

    async def _served(
        self,
        out: Direct,
        taken: Taken,
        body: Payload,
        exchange: Exchange,
        watching: Sequence[Copy | Sampling],
    ) -> None:
        record = exchange.record
        async with self._director.serve(taken.chain, body, record) as response:
            usage = Watched.of(exchange.protocol, response)
            for watcher in watching:
                watcher.watch(response)
            exchange.status = response.status
            exchange.outcome = outcome_of_status(response.status)
            headers = exchange.relayed(response.headers) + exchange.headers(self._clock())
            if response.rest is None:
                out.whole(response.status, headers, response.body)
            else:
                await out.stream(response, headers)
            exchange.tokens = usage.tokens if usage is not None else None


_JSON = [("content-type", "application/json")]


async def _never(_: web.BaseRequest) -> web.StreamResponse:
    """What aiohttp would call for each request; its connections here answer by themselves."""
    raise NotImplementedError


def _sampling(taken: Taken, body: Payload, exchange: Exchange, runtime: Runtime) -> Sampling | None:
    link = taken.chain[0]
    return sampling(runtime.quality, link.model, link.request, body, exchange.assignment)
