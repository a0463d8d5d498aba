"""The admin port of a gateway of several processes: one answer for all of them.

Sums what each counts, passes on what any can answer, and tells all what concerns all.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from aiohttp import web

from router import __version__
from router.gateway.admin.admin_access import AdminAccess, admin_guard
from router.gateway.admin.events import document as events_document
from router.gateway.admin.events import search_of
from router.gateway.admin.port import (
    EndpointDrain,
    application,
    drain_question,
    json_reply,
    metrics_reply,
    reload_reply,
)
from router.gateway.admin.routes import Handlers, add_routes
from router.gateway.readiness import DRAINING, FunctionHost, document, missing_host
from router.page.feed import Feed
from router.page.handlers import asks_all
from router.processes.fleet import Reply, ask_all, ask_one
from router.processes.merge import ProcessState, merged_status
from router.settings.loader import Loaded
from router.telemetry.events import Event, Search
from router.telemetry.exposition import Snapshot
from router.telemetry.metrics import build_info

_READY_WITHIN_S = 0.5
_NOBODY = "no gateway process answers; try again"


class Fleet(Protocol):
    """What the admin port needs of the parent."""

    loaded: Loaded
    is_draining: bool

    @property
    def host(self) -> FunctionHost:
        """What runs the functions of this machine."""
        ...

    @property
    def sockets(self) -> Mapping[int, Path]:
        """Where the processes that are ready can be asked."""
        ...

    @property
    def answering(self) -> int:
        """How many of them answered when they were last asked."""
        ...

    @property
    def wanted(self) -> int:
        """How many processes there should be."""
        ...

    async def snapshot(self) -> Snapshot:
        """All metric series together."""
        ...

    async def states(self) -> list[ProcessState]:
        """Every process with its status document."""
        ...

    async def events(self, search: Search) -> list[Event]:
        """What all processes and the parent itself tell."""
        ...

    async def reload(self) -> str:
        """Load the configuration in all processes."""
        ...

    async def drain(self) -> int:
        """Take all processes out of rotation."""
        ...

    async def drain_endpoint(self, question: EndpointDrain) -> list[Reply]:
        """Tell all processes which endpoint gets no new requests, or gets them again."""
        ...


class FleetAdmin:
    """Handlers of the admin port."""

    def __init__(self, fleet: Fleet, feed: Feed) -> None:
        self._fleet = fleet
        self._feed = feed

    def application(self) -> web.Application:
        """The aiohttp application that serves them."""
        app = application(admin_guard(self._access))
        handlers = Handlers(
            health=self._health, ready=self._ready, metrics=self._metrics, status=self._status,
            events=self._events, config=self._config, explain=self._explain, reload=self._reload,
            drain=self._drain, canary=self._canary, quality=self._quality,
            quality_action=self._quality_action, jobs=self._jobs, jobs_action=self._jobs_action,
        )  # fmt: skip
        add_routes(app, self._feed, handlers)
        return app

    def _access(self) -> AdminAccess:
        loaded = self._fleet.loaded
        return AdminAccess(loaded.settings.server, loaded.admin_token)

    async def _health(self, _request: web.Request) -> web.Response:
        return json_reply({"live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        """Ready while one process is: the kernel gives it all new clients."""
        up = self._fleet.answering
        missing = missing_host(self._fleet.host)
        if self._fleet.is_draining:
            missing.append(DRAINING)
        elif not up:
            missing.append("no gateway process answers")
        else:
            missing += await self._missing_of_one()
        processes = {"processes": {"ready": up, "wanted": self._fleet.wanted}}
        return json_reply(document(missing) | processes, 503 if missing else 200)

    async def _missing_of_one(self) -> list[str]:
        """What a process waits for; all have the same models, so the first that answers tells."""
        for socket in self._fleet.sockets.values():
            reply = await ask_one(socket, "GET", "/readyz", within_s=_READY_WITHIN_S)
            if reply is not None:
                return list(reply.document.get("missing", ()))
        return []  # busy for the moment: those that hang are counted out soon

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return await metrics_reply(request, await self._fleet.snapshot(), build_info(__version__))

    async def _status(self, request: web.Request) -> web.Response:
        if asks_all(request):
            return json_reply(await self._feed.all_gateways())
        merged = merged_status(await self._fleet.states())
        return json_reply(merged, 200 if merged["models"] else 503)

    async def _events(self, request: web.Request) -> web.Response:
        search = search_of(request.query)
        return json_reply(events_document(await self._fleet.events(search), search))

    async def _config(self, _request: web.Request) -> web.Response:
        return json_reply(self._fleet.loaded.settings.masked())

    async def _explain(self, request: web.Request) -> web.Response:
        return await self._any("POST", "/v1/explain", await request.read())

    async def _quality(self, request: web.Request) -> web.Response:
        """Each process knows what all of them have found, a few seconds late."""
        return await self._any("GET", request.path_qs)

    async def _jobs(self, request: web.Request) -> web.Response:
        """All processes share one store."""
        return await self._any("GET", request.path_qs)

    async def _jobs_action(self, request: web.Request) -> web.Response:
        return await self._any("POST", request.path_qs, await request.read())

    async def _quality_action(self, request: web.Request) -> web.Response:
        """Asked of all, for each process learns a baseline; that of the first one holds."""
        return await self._all("/v1/quality", await request.read())

    async def _any(self, method: str, path: str, question: bytes = b"") -> web.Response:
        """The answer of the first process that gives one."""
        for socket in self._fleet.sockets.values():
            reply = await ask_one(socket, method, path, question)
            if reply is not None:
                return web.Response(
                    status=reply.status, body=reply.body, content_type="application/json"
                )
        return json_reply({"error": _NOBODY}, 503)

    async def _canary(self, request: web.Request) -> web.Response:
        """Every process has a trial of its own: what is asked for is asked of all."""
        return await self._all("/v1/canary", await request.read())

    async def _all(self, path: str, question: bytes) -> web.Response:
        """The worst answer of all processes."""
        replies = await ask_all(self._fleet.sockets, "POST", path, question)
        if not replies:
            return json_reply({"error": _NOBODY}, 503)
        worst = max(replies.values(), key=lambda reply: reply.status)
        return web.Response(status=worst.status, body=worst.body, content_type="application/json")

    async def _reload(self, _request: web.Request) -> web.Response:
        return await reload_reply(self._fleet.reload)

    async def _drain(self, request: web.Request) -> web.Response:
        question = drain_question(await request.read())
        if question is None:
            return json_reply({"draining": True, "in_flight": await self._fleet.drain()})
        replies = await self._fleet.drain_endpoint(question)
        return _one_of(replies)


def _one_of(replies: Sequence[Reply]) -> web.Response:
    """The answer of those that know the endpoint, with the requests of all; else a refusal."""
    good = [reply.document for reply in replies if reply.status == 200]
    if good:
        in_flight = sum(document["in_flight"] for document in good)
        return json_reply({**good[0], "in_flight": in_flight})
    if not replies:
        return json_reply({"error": _NOBODY}, 503)
    return json_reply(replies[0].document, replies[0].status)
