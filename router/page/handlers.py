"""The page of the admin port: its files, the stream that feeds it, and the history it draws.

Its files hold no data, and may be read by whoever reaches the port.
"""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.resources import files

import msgspec
from aiohttp import web

from router.page.feed import Feed, TooManyReadersError

FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def add_page(app: web.Application, feed: Feed) -> None:
    """Serve the page, `/v1/stream`, `/v1/history` and `/v1/tenants`."""
    for path in FILES:
        app.router.add_get(path, _file(path))
    app.router.add_get("/v1/stream", _stream(feed))
    app.router.add_get("/v1/history", _history(feed))
    app.router.add_get("/v1/tenants", _tenants(feed))


def asks_all(request: web.Request) -> bool:
    """Whether a document of all gateways is wanted, and not of the one that is asked."""
    return request.query.get("fleet") == "1"


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _file(path: str) -> Handler:
    name, kind = FILES[path]
    file = files("router.page") / "static" / name

    async def answer(_request: web.Request) -> web.StreamResponse:
        content = await asyncio.to_thread(file.read_bytes)
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=_HEADERS)

    return answer


def _stream(feed: Feed) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream", "cache-control": "no-store"}
        )
        messages = feed.read(every=asks_all(request))
        try:
            async for message in messages:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(message)
        except TooManyReadersError:
            raise web.HTTPServiceUnavailable(reason="as many pages as may be are open") from None
        except ConnectionResetError:
            pass  # the reader has gone
        finally:
            await messages.aclose()  # type: ignore[attr-defined]
        return response

    return answer


def _history(feed: Feed) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        found = feed.history.of(request.query.get("model", ""))
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    return answer


def _tenants(feed: Feed) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        every = asks_all(request)
        found = (await feed.all_gateways())["tenants"] if every else await feed.tenants()
        body = msgspec.json.encode(found)
        return web.Response(body=body, content_type="application/json")

    return answer
