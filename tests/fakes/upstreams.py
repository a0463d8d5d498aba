"""Model servers that behave as told: `warm` ones speak HTTP, a function speaks the Invoke API.

A behaviour gets a `Received` and answers an `Answer`; it may wait, and may raise `Hangup`.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True)
class Received:
    """What an upstream got."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What an upstream says; `chunks` makes it a stream instead of `body`."""

    status: int = 200
    body: bytes = b'{"outputs": []}'
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    chunks: Callable[[], AsyncIterator[bytes]] | None = None


class Hangup(Exception):  # noqa: N818  not an error: what the upstream does
    """Close the connection without an answer, or in the middle of a stream."""


Behaviour = Callable[[Received], Awaitable[Answer]]


def ok(body: bytes = b'{"outputs": []}', status: int = 200, **headers: str) -> Behaviour:
    """Answers at once."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    answer = Answer(status, body, (("content-type", "application/json"), *named))

    async def behave(_: Received) -> Answer:
        return answer

    return behave


def hangs_up() -> Behaviour:
    """Closes the connection after it has read the request."""

    async def behave(_: Received) -> Answer:
        raise Hangup

    return behave


class Gate:
    """Answers only once it is opened; tells how many wait, and how many were given up."""

    def __init__(self, then: Behaviour | None = None) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0
        self._then = then or ok()

    async def __call__(self, received: Received) -> Answer:
        self.waiting += 1
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return await self._then(received)


@dataclass
class Upstream:
    """A running upstream. `behave` may be replaced at any time."""

    behave: Behaviour
    is_ready: bool = True
    url: str = ""
    received: list[Received] = field(default_factory=list)
    crash: Callable[[], Awaitable[None]] | None = None
    """Ends the server: what it works on is lost, and nobody listens any more."""

    async def _serve(self, http: web.BaseRequest) -> web.StreamResponse:
        if http.path == "/v2/health/ready":
            return await self._probe()
        headers = {name.lower(): value for name, value in http.headers.items()}
        received = Received(http.method, http.raw_path, headers, await http.read())
        return await self._answer(http, received)

    async def _probe(self) -> web.StreamResponse:
        return web.Response(status=200 if self.is_ready else 503)

    async def _answer(self, http: web.BaseRequest, received: Received) -> web.StreamResponse:
        self.received.append(received)
        try:
            answer = await self.behave(received)
        except Hangup:
            assert http.transport is not None
            http.transport.abort()
            return web.Response()
        if answer.chunks is None:
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        return await self._stream(http, answer, answer.chunks())

    async def _stream(
        self, http: web.BaseRequest, answer: Answer, chunks: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        reply = web.StreamResponse(status=answer.status, headers=answer.headers)
        await reply.prepare(http)
        try:
            async for chunk in chunks:
                await reply.write(chunk)
        except Hangup:
            assert http.transport is not None
            http.transport.abort()
        return reply


class FunctionUpstream(Upstream):
    """The same behind Lambda's Invoke API; statuses of the platform itself come from `refuse`."""

    refuse: int | None = None
    is_cold = False

    async def _serve(self, http: web.BaseRequest) -> web.StreamResponse:
        event = json.loads(await http.read())
        if self.refuse is not None:
            return web.Response(status=self.refuse, body=b"{}", headers={"retry-after": "7"})
        told, context = event["body"], event["requestContext"]["http"]
        body = base64.b64decode(told) if event["isBase64Encoded"] else told.encode()
        query = f"?{event['rawQueryString']}" if event["rawQueryString"] else ""
        target = event["rawPath"] + query
        received = Received(context["method"], target, event["headers"], body)
        self.received.append(received)
        try:
            answer = await self.behave(received)
        except Hangup:
            assert http.transport is not None
            http.transport.abort()
            return web.Response()
        document = {
            "statusCode": answer.status,
            "headers": dict(answer.headers),
            "body": base64.b64encode(answer.body).decode(),
            "isBase64Encoded": True,
        }
        start = " Init Duration: 500.00 ms" if self.is_cold else ""
        report = f"REPORT RequestId: 1 Duration: 9.1 ms Billed Duration: 10 ms{start}"
        headers = {"x-amz-log-result": base64.b64encode(report.encode()).decode()}
        return web.json_response(document, headers=headers)


@asynccontextmanager
async def running(upstream: Upstream) -> AsyncIterator[Upstream]:
    """Listen on a free port of the loopback until the block ends."""
    server = web.Server(
        upstream._serve, access_log=None, handler_cancellation=True, auto_decompress=False
    )
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    upstream.crash = runner.cleanup
    try:
        yield upstream
    finally:
        await runner.cleanup()
