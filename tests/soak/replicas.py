"""Replicas of a model that fail on demand, each on a port of its own that stays the same."""

import asyncio
import json
from enum import StrEnum
from typing import Any

from aiohttp import web

SERVICE_S = 0.4
SLOW_S = 5 * SERVICE_S
HASTY = b'"timeout": 1'
"""In a body that no model can answer in time: a microsecond, as the protocol says."""
_ANSWER = json.dumps({"model_name": "m", "outputs": [{"data": list(range(60))}]}).encode()


class Fault(StrEnum):
    """What is wrong with a replica; the failure matrix in docs/operations.md has the same kinds."""

    CRASH = "crash"
    HANG = "hang"
    STUCK = "stuck"
    SLOW = "slow"
    RESET = "reset"
    HANG_UP = "hang_up"
    BUSY = "busy"


class Function:
    """A function called by URL; while it `is_throttled`, its platform refuses every call."""

    def __init__(self) -> None:
        self.is_throttled = False
        self.url = ""
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None))

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        if self.is_throttled:
            return web.Response(status=429, headers={"retry-after": "1"})
        await asyncio.sleep(SERVICE_S)
        return web.Response(body=_ANSWER, content_type="application/json")


class Replica:
    """One server. `fault` may be changed at any time by `begin` and `end`."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.port = 0
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        server = web.Server(self._serve, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """What it works on is lost, and nobody listens any more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def begin(self, fault: Fault) -> None:
        self.fault = fault
        if fault is Fault.CRASH:
            await self.stop()

    async def end(self) -> None:
        fault, self.fault = self.fault, None
        if fault is Fault.CRASH:
            await self.start()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.fault is Fault.HANG:
            await self._until_over(Fault.HANG)
        if request.path == "/v2/health/ready":
            return web.Response()
        body = await request.read()
        if HASTY in body:
            return web.json_response({"error": "no answer in time"}, status=504)
        return await self._infer(request)

    async def _infer(self, request: web.BaseRequest) -> web.StreamResponse:
        match self.fault:
            case Fault.STUCK:
                await self._until_over(Fault.STUCK)
            case Fault.SLOW:
                await asyncio.sleep(SLOW_S)
            case Fault.HANG_UP:
                _abort(request)
            case Fault.RESET:
                reply = web.StreamResponse(headers={"content-length": str(len(_ANSWER))})
                await reply.prepare(request)
                await reply.write(_ANSWER[:10])
                _abort(request)
                return reply
            case Fault.BUSY:
                return web.Response(status=503)
            case _:
                await asyncio.sleep(SERVICE_S)
        return web.Response(body=_ANSWER, content_type="application/json")

    async def _until_over(self, fault: Fault) -> None:
        while self.fault is fault:
            await asyncio.sleep(0.05)


def _abort(request: Any) -> None:
    if request.transport is not None:
        request.transport.abort()
