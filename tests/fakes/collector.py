"""An OpenTelemetry collector that keeps what it is sent, and behaves as told."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Answer = Callable[[], Awaitable[web.Response]]


async def takes_all() -> web.Response:
    """As a collector that is well."""
    return web.Response(body=ExportTraceServiceResponse().SerializeToString())


@dataclass
class Collector:
    """A running collector; `answer` may be replaced at any time."""

    answer: Answer = takes_all
    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    asked: int = 0

    async def take(self, http: web.BaseRequest) -> web.Response:
        assert http.path == "/v1/traces"
        body = await http.read()
        self.asked += 1
        reply = await self.answer()
        if reply.status == 200:
            self.headers.append({name.lower(): value for name, value in http.headers.items()})
            # aiohttp's low-level server has undone the gzip that the header tells of.
            body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
            self.requests.append(ExportTraceServiceRequest.FromString(body))
        return reply

    @property
    def spans(self) -> list[Span]:
        """All of them, in the order in which they came."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resource(self) -> dict[str, Any]:
        """Whose the first spans are."""
        return attributes(self.requests[0].resource_spans[0].resource)

    async def until(self, is_enough: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans, once there are enough; waits for a bounded time."""
        async with asyncio.timeout(15):
            while not is_enough(self.spans):
                await asyncio.sleep(0.01)
        return self.spans

    async def of(self, number: int) -> list[Span]:
        """So many spans, and no more."""
        spans = await self.until(lambda spans: len(spans) >= number)
        assert len(spans) == number, [span.name for span in spans]
        return spans


def attributes(of: Any) -> dict[str, Any]:
    """Those of a span or a resource, as plain values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


@asynccontextmanager
async def collecting(answer: Answer = takes_all) -> AsyncIterator[Collector]:
    """A collector on a port of its own."""
    collector = Collector(answer)
    runner = web.ServerRunner(web.Server(collector.take), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    collector.url = f"http://{host}:{port}/v1/traces"
    try:
        yield collector
    finally:
        await runner.cleanup()
