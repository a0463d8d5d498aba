"""Who may use the admin port: decides from a request's head alone, for one process and for several.

A browser on the operator's machine reaches the port as well as the operator does. So a request that
a foreign page has sent, or that came by a name which anybody may point here, is refused.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from router.page.handlers import FILES
from router.settings.admin_token import AdminToken
from router.settings.server import ServerSettings
from router.settings.values import is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OPEN = frozenset({"/healthz", "/readyz", *FILES})
"""Probes tell one bit, to what cannot be given a token; the page's files tell nothing."""
_METRICS = "/metrics"


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """The rules in force: the listener's settings, and its token where there is one."""

    server: ServerSettings
    token: AdminToken | None


class AdminHead(NamedTuple):
    """What is judged of a request; `reached` is the local address of its connection."""

    path: str
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    fetch_site: str
    authorization: str
    reached: str


class Refusal(NamedTuple):
    """A status and a text that says what to do."""

    status: int
    text: str


def refusal_of(head: AdminHead, access: AdminAccess) -> Refusal | None:
    """Why a request is refused; None for one that may go on."""
    for host in head.hosts:
        if not _is_own(host, head.reached, access.server):
            return Refusal(
                403,
                "the admin port is not known by this Host: use an address of it, or add the name"
                " to server.admin_hosts",
            )
    # A page may have been loaded through a proxy that speaks TLS: the scheme is not compared.
    if any(_authority(origin) not in head.hosts for origin in head.origins):
        return Refusal(403, "the admin port takes no requests from other sites' pages (Origin)")
    if head.fetch_site == "cross-site":
        return Refusal(
            403, "the admin port takes no requests from other sites' pages (Sec-Fetch-Site)"
        )
    if access.token is None or not _needs_token(head.path, access.server):
        return None
    scheme, _, presented = head.authorization.partition(" ")
    if scheme.lower() == "bearer" and access.token.matches(presented.strip()):
        return None
    return Refusal(
        401, "the token of server.admin_token_file is needed: send Authorization: Bearer TOKEN"
    )


def admin_guard(access: Callable[[], AdminAccess]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Middleware that refuses as `refusal_of` says; `access` is asked for every request."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = refusal_of(_head_of(request), access())
        if refusal is None:
            return await handler(request)
        headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
        return web.Response(
            status=refusal.status,
            body=msgspec.json.encode({"error": refusal.text}),
            content_type="application/json",
            headers=headers,
        )

    return guard


def _head_of(request: web.Request) -> AdminHead:
    headers, transport = request.headers, request.transport
    local = transport.get_extra_info("sockname") if transport is not None else None
    return AdminHead(
        path=request.path,
        hosts=tuple(host.lower() for host in headers.getall("host", ())),
        origins=tuple(origin.lower() for origin in headers.getall("origin", ())),
        fetch_site=headers.get("sec-fetch-site", "").lower(),
        authorization=headers.get("authorization", ""),
        reached=local[0] if isinstance(local, tuple) else "",
    )


def _needs_token(path: str, server: ServerSettings) -> bool:
    if path == _METRICS:
        return server.admin_metrics_token
    return path not in _OPEN


def _is_own(host: str, reached: str, server: ServerSettings) -> bool:
    """Whether a Host names this machine without asking anybody what the name means."""
    name = _name(host)
    if name is None:
        return False
    if is_loopback(name) or _same(name, server.admin_listen.host) or _same(name, reached):
        return True
    return any(_same(name, allowed) for allowed in server.admin_hosts)


def _same(name: str, other: str) -> bool:
    try:
        return ip_address(name) == ip_address(other.partition("%")[0])
    except ValueError:
        return name.rstrip(".") == other.lower().rstrip(".")


def _name(host: str) -> str | None:
    """The name or address in a Host, without port and brackets; None if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None


def _authority(origin: str) -> str | None:
    """Host and port in an Origin; None for those, like `null`, that have none."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
