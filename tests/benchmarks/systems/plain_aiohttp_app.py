"""The program that `plain_aiohttp` runs (PORT UPSTREAM): forwards bodies and answers whole."""

import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

_MAX_BODY_BYTES = 64 * 1024 * 1024
_UPSTREAM = web.AppKey("upstream", str)
_SESSION = web.AppKey("session", aiohttp.ClientSession)
_PER_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "content-length"}


async def forward(request: web.Request) -> web.Response:
    """Send the request on and its answer back."""
    headers = {k: v for k, v in request.headers.items() if k.lower() not in _PER_HOP}
    body = await request.read()
    url = request.app[_UPSTREAM] + request.path_qs
    async with request.app[_SESSION].request(
        request.method, url, headers=headers, data=body
    ) as answer:
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _PER_HOP}
        return web.Response(status=answer.status, headers=kept, body=await answer.read())


async def _session(app: web.Application) -> AsyncIterator[None]:
    # Without a limit: the default of 100 connections would only queue.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        app[_SESSION] = session
        yield


def application(upstream: str) -> web.Application:
    """The whole proxy."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app[_UPSTREAM] = upstream
    app.cleanup_ctx.append(_session)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


if __name__ == "__main__":
    web.run_app(
        application(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), access_log=None,
        print=lambda *_: None, backlog=4096,
    )  # fmt: skip
