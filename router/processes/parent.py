"""Several gateway processes on one port: started, kept, asked together, drained together.

The parent takes no request itself. It owns the admin port, the function host and, where the user
has no Redis, the store through which the processes elect a leader and share replicas.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Any

import msgspec
from aiohttp import web

from router.app import HOST_UP_WITHIN_S, function_host, listen_admin, url_of
from router.assembly.runtime import Parts, local_functions
from router.background import Background
from router.domain.events import EventKind, told
from router.gateway.admin.events import path_of
from router.gateway.admin.port import EndpointDrain
from router.gateway.http.listener import bind, opening
from router.member import SNAPSHOT_PATH, Member
from router.page.feed import Feed, Statuses
from router.processes.admin import FleetAdmin
from router.processes.children import Child
from router.processes.fleet import Reply, ask_all, ask_one, events_of, snapshots_of
from router.processes.heartbeat import listen_to
from router.processes.merge import ProcessState, merged_status
from router.processes.store import EmbeddedStore, StoreFailedError
from router.settings.loader import ConfigError, Loaded, load
from router.settings.sources import Sources
from router.settings.watcher import ConfigWatcher
from router.telemetry.events import Event, EventBook, Search
from router.telemetry.events import merged as merged_events
from router.telemetry.exposition import Snapshot, counted, merged

_log = logging.getLogger(__name__)

_READY_WITHIN_S = 60.0
_WATCH_EVERY_S = 1.0
_CUT_OFF_S = 1.0
_FINDS_ENDPOINTS_WITHIN_S = 30.0
_TELL_EVERY_S = 0.5


class ProcessesFailedError(Exception):
    """No gateway process came up, or not the store that they need."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How the processes are started: settings file, its environment, what is logged and how."""

    path: Path
    environment: Mapping[str, str]
    log_level: str
    log_format: str = "text"


class Parent:
    """The gateway as a whole; `run` returns when all processes have drained.

    The folder of `parts` is for the sockets of its processes, too.
    """

    def __init__(self, launch: Launch, loaded: Loaded, parts: Parts) -> None:
        self.loaded = loaded
        self.is_draining = False
        self._launch = launch
        self._parts = parts
        self._folder = parts.sockets
        self._background = Background()
        self._reloading = asyncio.Lock()
        self.host = function_host(loaded.settings, parts)
        self._store = EmbeddedStore(parts.sockets, parts.clock)
        self._children: list[Child] = []
        self._seen: dict[int, Snapshot] = {}
        self._ended = Snapshot()
        self._events = EventBook()
        self._feed = Feed(
            Statuses(self._status, self._of_all_gateways), self.snapshot, thread_time,
            parts.wall_clock, parts.sleep,
            lambda: self.loaded.settings.budgets,
        )  # fmt: skip
        self._drained: dict[tuple[str, str], EndpointDrain] = {}

    async def run(self, stop: asyncio.Event, on_ready: Callable[[str, str], None]) -> None:
        """Serve until `stop` is set, then drain. `on_ready` gets the URLs of both ports.

        Raises CannotListenError if a port cannot be opened, ProcessesFailedError if nothing comes
        up.
        """
        server = self.loaded.settings.server
        self._events.attach()
        with opening("server", "listen"):
            reserved = await _reserve(server.listen.host, server.listen.port)
        admin = web.AppRunner(
            FleetAdmin(self, self._feed).application(), access_log=None, shutdown_timeout=_CUT_OFF_S
        )
        try:
            port: int = reserved[0].getsockname()[1]
            admin_url = await listen_admin(admin, server.admin_listen)
            await self._start_store()
            self._declare()
            self._background.start("function host", self.host.run)
            self._start_children(port)
            sockets = {child.number: self._control(child.number) for child in self._children}
            listening = partial(listen_to, self._children, sockets, self._parts.sleep)
            self._background.start("heartbeats", listening)
            await self.host.wait_until_up(stop, HOST_UP_WITHIN_S)
            await self._wait_for_children(stop)
            watcher = ConfigWatcher(self.loaded.sources, _WATCH_EVERY_S, self._on_file_change)
            self._background.start("config watcher", watcher.run)
            self._background.start("page", self._feed.run)
            if not stop.is_set():
                is_tls = self.loaded.tls is not None
                on_ready(url_of(server.listen.host, port, is_tls=is_tls), admin_url)
            await stop.wait()
        finally:
            await self._stop_children()
            await self._background.stop_all()
            await self._store.stop()
            await self._parts.upstream.close()
            await admin.cleanup()
            for held in reserved:
                held.close()
            self._events.detach()

    # -- processes -----------------------------------------------------------------------------

    async def _start_store(self) -> None:
        if self.loaded.settings.shared_state.redis_url:
            return
        try:
            await self._store.start()
        except (StoreFailedError, OSError) as error:
            raise ProcessesFailedError(f"the embedded store did not start: {error}") from error
        self._background.start("embedded store", self._store.keep)

    def _start_children(self, port: int) -> None:
        for number in range(1, self.loaded.settings.server.processes + 1):
            child = Child(
                number, self._command(number, port), self._parts.clock, self._on_child_ready,
                self._on_child_end,
            )  # fmt: skip
            self._children.append(child)
            self._background.start(f"process {number}", child.run)

    def _command(self, number: int, port: int) -> list[str]:
        settings = self.loaded.settings
        member = Member(
            number,
            of=settings.server.processes,
            parent=os.getpid(),
            host=settings.server.listen.host,
            port=port,
            control=str(self._control(number)),
            redis_url="" if settings.shared_state.redis_url else self._store.url,
        )
        launch = self._launch
        logging = ("--log-level", launch.log_level, "--log-format", launch.log_format)
        options = ("--config", str(launch.path), *logging)
        place = ("--member", member.encode())
        return [sys.executable, "-m", "router", "serve-process", *options, *place]

    def _control(self, number: int) -> Path:
        return self._folder / f"{number}.sock"

    async def _wait_for_children(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        ready = asyncio.create_task(self._all_ready())
        await asyncio.wait(
            {ready, stopping}, timeout=_READY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (ready, stopping):
            task.cancel()
        up = len(self.sockets)
        if stop.is_set():
            return
        if not up:
            raise ProcessesFailedError("no gateway process came up; its log says why")
        if up < len(self._children):
            _log.warning("only %d of %d gateway processes are up", up, len(self._children))

    async def _all_ready(self) -> None:
        for child in self._children:
            await child.is_ready.wait()

    def _on_child_ready(self, child: Child) -> None:
        facts = told(EventKind.PROCESS, process=child.number, pid=child.pid)
        _log.info("gateway process %d is ready (pid %s)", child.number, child.pid, extra=facts)
        if self.is_draining:  # one that was started again has not heard of it
            self._background.start(f"draining {child.number}", self._drain_again)
        if self._drained:
            again = partial(self._withdraw_again, child)
            self._background.start(f"draining endpoints {child.number}", again)

    def _on_child_end(self, child: Child) -> None:
        """Keep what it had counted, or the sums would go down."""
        self._control(child.number).unlink(missing_ok=True)
        seen = self._seen.pop(child.number, None)
        if seen is not None:
            self._ended = merged([self._ended, counted(seen, self._models)])

    async def _stop_children(self) -> None:
        # A process drains its requests, and then its replicas.
        patience_s = 2 * self.loaded.settings.server.drain_timeout_s + 10.0
        await asyncio.gather(*(child.stop(patience_s) for child in self._children))

    # -- what the admin port asks ----------------------------------------------------------------

    @property
    def _models(self) -> frozenset[str]:
        return frozenset(model.name for model in self.loaded.settings.models)

    @property
    def sockets(self) -> dict[int, Path]:
        """Where those that are ready can be asked, by number."""
        return {
            child.number: self._control(child.number)
            for child in self._children
            if child.is_ready.is_set()
        }

    @property
    def answering(self) -> int:
        """How many of them answered when they were last asked."""
        return sum(child.answers for child in self._children)

    @property
    def wanted(self) -> int:
        """How many processes there should be."""
        return self.loaded.settings.server.processes

    async def snapshot(self) -> Snapshot:
        """The metric series of all processes together, those that have ended included."""
        ready = self.sockets
        told = snapshots_of(await ask_all(ready, "GET", SNAPSHOT_PATH))
        # A process that does not answer now has still counted what it told before.
        silent = [counted(self._seen[n], self._models) for n in self._seen if n not in told]
        self._seen.update((n, one) for n, one in told.items() if n in self.sockets)
        return merged([*told.values(), *silent, counted(self._ended, self._models)])

    async def states(self) -> list[ProcessState]:
        """Every process with its status document."""
        replies = await ask_all(self.sockets, "GET", "/v1/status")
        documents = {n: reply.document for n, reply in replies.items() if reply.status == 200}
        return [
            ProcessState(child.number, child.pid, child.restarts, documents.get(child.number))
            for child in self._children
        ]

    async def events(self, search: Search) -> list[Event]:
        """What all processes and the parent itself tell."""
        replies = await ask_all(self.sockets, "GET", path_of(search))
        return merged_events([self._events.find(search), *events_of(replies)], search.most)

    async def _status(self) -> Mapping[str, Any]:
        return merged_status(await self.states())

    async def _of_all_gateways(self) -> Mapping[str, Any]:
        """As one process has heard it: to the others its siblings are gateways like any."""
        for control in self.sockets.values():
            reply = await ask_one(control, "GET", "/v1/status?fleet=1")
            if reply is not None and reply.status == 200:
                return reply.document
        return {**merged_status([]), "gateways": [], "gateways_not_heard": [], "tenants": {}}

    async def drain(self) -> int:
        """Take all processes out of rotation; returns their requests in flight."""
        self.is_draining = True
        replies = await ask_all(self.sockets, "POST", "/v1/drain")
        return sum(reply.document.get("in_flight", 0) for reply in replies.values())

    async def _drain_again(self) -> None:
        await self.drain()

    async def drain_endpoint(self, question: EndpointDrain) -> list[Reply]:
        """Tell all processes, and those that are started again, what is to be drained or not."""
        key = question.model, question.endpoint
        replies = await ask_all(self.sockets, "POST", "/v1/drain", msgspec.json.encode(question))
        if any(reply.status == 200 for reply in replies.values()) and question.draining:
            self._drained[key] = question
        elif not question.draining:
            self._drained.pop(key, None)
        return list(replies.values())

    async def _withdraw_again(self, child: Child) -> None:
        """Tell a process that was started again; it has to find the endpoints first."""
        give_up_at = self._parts.clock() + _FINDS_ENDPOINTS_WITHIN_S
        untold = dict(self._drained)
        while untold and self._parts.clock() < give_up_at:
            for key, question in list(untold.items()):
                socket, body = self._control(child.number), msgspec.json.encode(question)
                reply = await ask_one(socket, "POST", "/v1/drain", body)
                if key not in self._drained or (reply is not None and reply.status == 200):
                    del untold[key]
            await self._parts.sleep(_TELL_EVERY_S)
        for key in untold:  # gone, and not only unknown yet
            self._drained.pop(key, None)

    async def reload(self) -> str:
        """Load the file again, here and in all processes; returns its hash.

        Raises ConfigError, and asks no process, if it is not valid.
        """
        async with self._reloading:
            self._take_up(await self._load())
        replies = await ask_all(self.sockets, "POST", "/v1/reload")
        for number, reply in replies.items():
            if reply.status != 200:  # the file has changed since; its own watcher goes on
                _log.error("gateway process %d did not take the configuration up", number)
        return self.loaded.content_hash

    # -- configuration -----------------------------------------------------------------------------

    async def _load(self) -> Loaded:
        return await asyncio.to_thread(load, self._launch.path, self._launch.environment)

    def _take_up(self, loaded: Loaded) -> None:
        old, new = self.loaded.settings.server, loaded.settings.server
        self.loaded = loaded
        if (old.listen, old.admin_listen, old.processes) != (
            new.listen, new.admin_listen, new.processes,
        ):  # fmt: skip
            _log.warning("listeners and processes change at the next start")
        self._declare()

    def _declare(self) -> None:
        settings = self.loaded.settings
        self.host.declare(local_functions(settings), settings.workers.log)

    async def _on_file_change(self) -> Sources:
        """The processes watch the file themselves; here it is about the function host."""
        try:
            self._take_up(await self._load())
        except ConfigError as error:  # told by them
            return error.sources
        return self.loaded.sources


async def _reserve(host: str, port: int) -> list[socket.socket]:
    """Sockets that hold a port for processes that will share it. Raises OSError if it is taken."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    held: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            # Sharing would succeed beside another gateway that shares: ask for it alone first.
            with socket.socket(family, kind, protocol) as alone:
                bind(alone, (address[0], port, *address[2:]), shared=False)
                port = alone.getsockname()[1]
            held.append(socket.socket(family, kind, protocol))
            bind(held[-1], (address[0], port, *address[2:]), shared=True)
    except OSError as error:
        for one in held:
            one.close()
        reason = (error.strerror or "unknown reason").lower()
        raise OSError(error.errno, f"{host}:{port}: {reason}") from error
    return held
