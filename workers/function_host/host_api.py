"""The host's own API: declare the functions, see them, ask whether it lives.

Whoever may declare a function may run code here. A Unix socket (see `__main__`) keeps everybody
out but this user; a loopback port keeps machines out, but neither other users nor web pages, so a
browser is refused.
"""

from typing import Any

import msgspec
from aiohttp import web

from workers.function_host.bodies import BodyLostError, BodyTooLargeError, read_body
from workers.function_host.host import Host
from workers.function_host.settings import FunctionSpec, SettingsError, parse_functions

MAX_DECLARATION_BYTES = 4 * 1024 * 1024  # 256 functions, each with 4 KB of variables, and room


def read_declaration(document: bytes) -> list[FunctionSpec]:
    """Parse a declared set. Raises SettingsError."""
    try:
        parsed: Any = msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError([f"not JSON: {error}"]) from error
    return parse_functions(parsed)


class HostApi:
    """Routes under /host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def routes(self) -> list[web.RouteDef]:
        """The routes to serve."""
        return [
            web.get("/host/health", self.health),
            web.get("/host/functions", self.show),
            web.put("/host/functions", self.replace),
        ]

    @property
    def _headers(self) -> dict[str, str]:
        """Names the set in force: who declared it sees that it still is."""
        return {"ETag": f'"{self._host.declaration}"'}

    async def health(self, _request: web.Request) -> web.Response:
        """200 while it takes invocations, 503 while it drains."""
        if self._host.draining:
            return web.json_response({"status": "draining"}, status=503)
        return web.json_response({"status": "ok"}, headers=self._headers)

    async def show(self, request: web.Request) -> web.Response:
        """The functions with their environments and totals."""
        if _is_from_browser(request):
            return _refuse(403, ["not for web pages"])
        return web.json_response(self._host.view(), headers=self._headers)

    async def replace(self, request: web.Request) -> web.Response:
        """Replace the whole set, or change nothing and say everything that is wrong."""
        if _is_from_browser(request):
            return _refuse(403, ["not for web pages"])
        try:
            specs = read_declaration(await read_body(request, MAX_DECLARATION_BYTES))
        except BodyTooLargeError:
            return _refuse(413, [f"a declaration has at most {MAX_DECLARATION_BYTES} bytes"])
        except BodyLostError:  # nobody reads this answer
            return _refuse(400, ["the connection was lost"])
        except SettingsError as error:
            return _refuse(400, error.errors)
        if self._host.draining:
            return _refuse(503, ["the function host is stopping"])
        self._host.replace(specs)
        return web.json_response(self._host.view(), headers=self._headers)


def _is_from_browser(request: web.Request) -> bool:
    # Browsers add one of these to every request, also to those of a page whose name was
    # re-bound to 127.0.0.1; programs add neither.
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def _refuse(status: int, errors: list[str]) -> web.Response:
    return web.json_response({"errors": errors}, status=status)
