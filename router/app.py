"""A running gateway: listeners, background loops, reload, drain.

The one place that starts and stops things. Decides nothing about requests.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from time import thread_time
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from router import __version__
from router.assembly.quality import watched
from router.assembly.runtime import Parts, assemble, assembling, host_command, local_functions
from router.backends.serverless.local_host import LocalFunctionHost
from router.backends.serverless.refresher import Refresher
from router.background import Background
from router.controller import Controller
from router.dispatch.director import Director
from router.domain.events import EventKind, told
from router.gateway.admin.admin_access import AdminAccess, admin_guard
from router.gateway.admin.certificate import CertificateWatch
from router.gateway.admin.jobs import NoJobs
from router.gateway.admin.others import AllGateways
from router.gateway.admin.port import AdminPort, stream_reply
from router.gateway.admin.readings import readings
from router.gateway.admin.status import ReloadState, StatusSources, status
from router.gateway.admin.watching import WatchedQuality
from router.gateway.exchange import Telemetry
from router.gateway.http.listener import Listener, opening
from router.gateway.readiness import Readiness
from router.gateway.server import DataPlane
from router.jobs.place import Calling
from router.jobs.service import Jobs
from router.member import SNAPSHOT_PATH, Member
from router.page.feed import Feed, Statuses
from router.publisher import Publisher
from router.runtime import GroupRuntime, ModelRuntime, Runtime, RuntimeRef
from router.settings.changes import Change, changes
from router.settings.loader import ConfigError, Loaded, load
from router.settings.schema import Settings
from router.settings.sources import Sources
from router.settings.values import Address as ListenAddress
from router.settings.watcher import ConfigWatcher
from router.signals.notes import Notes
from router.signals.redis import SharedState, SharedStateConfig
from router.signals.snapshot import ALONE, FleetSnapshot
from router.telemetry.events import EventBook
from router.telemetry.exposition import encoded
from router.telemetry.log_file import LineWriter
from router.telemetry.logs import AccessLog
from router.telemetry.loop_watch import LoopWatch
from router.telemetry.metrics import Metrics, Objective
from router.telemetry.recent import Recent
from router.telemetry.span_exporter import Collector, SpanExporter
from router.telemetry.trace import Kept
from router.telemetry.tracer import Keeping, Tracer
from router.turns import Steps, Turn, at_once, in_turns

_log = logging.getLogger(__name__)

_WATCH_EVERY_S = 1.0
HOST_UP_WITHIN_S = 30.0
_CREDENTIALS_WITHIN_S = 5.0
_DRAIN_POLL_S = 0.02
_CUT_OFF_S = 1.0
_MOST_CHANGES_TOLD = 200
"""After the drain: time for the last bytes of answers that have ended."""
_FIXED_SERVER_SETTINGS = (
    "listen",
    "admin_listen",
    "processes",
    "access_log",
    "access_log_max_bytes",
    "access_log_files",
    "max_buffered_bytes",
    "max_header_bytes",
    "fast_path",
)


Owner = ModelRuntime | GroupRuntime
"""Who may have replicas: a model with a pool of its own, or a shared pool."""


class Gateway:
    """One gateway process; `run` returns when it has drained."""

    def __init__(
        self,
        path: Path,
        environment: Mapping[str, str],
        loaded: Loaded,
        parts: Parts,
        instance_id: str,
        member: Member | None = None,
    ) -> None:
        self._path = path
        self._environment = environment
        self._member = member
        loaded = self._as_member(loaded)
        self._parts = parts
        self._wall_clock = parts.wall_clock
        self._instance_id = instance_id
        self._background = Background()
        self._reloading = asyncio.Lock()
        self._sources = loaded.sources
        settings = loaded.settings
        self._runtime = RuntimeRef(assemble(loaded, parts))
        self._metrics = Metrics(CollectorRegistry(), __version__)
        self._recent = Recent(self._metrics, parts.sleep)
        self._watch = LoopWatch(self._metrics.observe_stall)
        self._access_log = AccessLog(
            target := str(settings.server.access_log),
            parts.wall_clock,
            sample=settings.server.access_log_sample,
            writer=LineWriter(
                target, settings.server.access_log_max_bytes, settings.server.access_log_files
            ),
        )
        self._tracer = Tracer(self._metrics, parts.rng)
        self._spans = SpanExporter(
            self._tracer, self._metrics, lambda: _collector(self._runtime.current),
            (__version__, instance_id), (parts.clock, parts.wall_clock), parts.sleep,
        )  # fmt: skip
        director = Director(self._metrics, parts.clock, parts.rng)
        telemetry = Telemetry(self._metrics, self._access_log, self._tracer)
        self._data = DataPlane(
            self._runtime, director, telemetry, parts.clock, instance_id, parts.upstream
        )
        self._jobs = self._make_jobs(director) if settings.jobs.directory is not None else None
        self._publisher = Publisher(
            self._runtime, parts.book, self._fleet, instance_id, parts.clock
        )
        self._shared = self._shared_state() if settings.shared_state.redis_url else None
        self._controller = Controller(
            self._runtime, self._fleet, self._metrics, parts.clock, instance_id
        )
        self._quality = WatchedQuality(
            parts.quality, self._runtime, self._notes("quality"), lambda: self._fleet().peers
        )
        # One host serves all processes, and is the parent's.
        self._host = function_host(settings, parts) if member is None else None
        self._reloads = ReloadState(parts.wall_clock())
        self._events = EventBook()
        sources = StatusSources(
            self._runtime, self._data, self._access_log, self._shared, self._reloads, parts.clock,
            parts.wall_clock,
            lambda: self._watch.longest_s,
            self._metrics.decisions,
            self._quality,
            self._recent,
            lambda: self._jobs.reading() if self._jobs is not None else None,
        )  # fmt: skip
        self._metrics.readings = lambda: readings(sources)
        self._all = AllGateways(
            sources, self._metrics, instance_id, self._notes("summary"),
            lambda: self._fleet().peers, parts.sleep,
        )  # fmt: skip
        self._feed = Feed(
            Statuses(lambda: in_turns(status(sources)), self._all.status),
            lambda: in_turns(self._metrics.snapshotting()),
            thread_time, parts.wall_clock, parts.sleep,
            lambda: self._runtime.current.settings.budgets,
        )  # fmt: skip
        self._admin = AdminPort(
            sources,
            Readiness(self._runtime, self._host),
            self._metrics,
            self.reload,
            self._events,
            self._feed,
            self._jobs.desk if self._jobs is not None else NoJobs(),
        )
        at_once(self._take_up(None, self._runtime.current))

    async def run(self, stop: asyncio.Event, on_ready: Callable[[str, str], None]) -> None:
        """Serve until `stop` is set, then drain. `on_ready` gets the URLs of both ports.

        Raises CannotListenError if a port cannot be opened.
        """
        server = self._runtime.current.settings.server
        self._events.attach()
        data = self._data.server()
        listener = self._listener = Listener(
            data, self._data.limits, lambda: self._runtime.current.tls
        )
        admin = web.AppRunner(self._admin_app(), access_log=None, shutdown_timeout=_CUT_OFF_S)
        try:
            # Ports first: a gateway that cannot listen should not have started workers.
            with opening("server", "listen"):
                port = await listener.open(
                    server.listen.host, server.listen.port, shared=self._member is not None
                )
            is_tls = self._runtime.current.tls is not None
            data_url = url_of(server.listen.host, port, is_tls=is_tls)
            admin_url = await self._open_admin(admin)
            self._start_loops()
            await self._start_credentials(self._runtime.current, {})
            if self._host is not None:
                await self._host.wait_until_up(stop, HOST_UP_WITHIN_S)
            on_ready(data_url, admin_url)
            await stop.wait()
            await self._drain(data, listener)
        finally:
            await listener.abort()
            await data.shutdown(_CUT_OFF_S)
            self._data.limits.close()
            await self._data.shadows.close()
            await self._background.stop_all()
            await self._parts.quality.close()
            await self._parts.upstream.close()
            await admin.cleanup()
            self._events.detach()

    def _admin_app(self) -> web.Application:
        if self._member is None:
            return self._admin.application(admin_guard(self._admin_access))
        # Only the parent, which has judged whoever asks it, can reach this one's socket.
        app = self._admin.application()
        app.router.add_get(SNAPSHOT_PATH, self._snapshot)
        return app

    def _admin_access(self) -> AdminAccess:
        runtime = self._runtime.current
        return AdminAccess(runtime.settings.server, runtime.admin_token)

    async def _open_admin(self, admin: web.AppRunner) -> str:
        if self._member is None:
            return await listen_admin(admin, self._runtime.current.settings.server.admin_listen)
        await admin.setup()
        await web.UnixSite(admin, self._member.control).start()
        return self._member.control

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        snapshot = await in_turns(self._metrics.snapshotting())
        return await stream_reply(request, encoded(snapshot), "application/json")

    # -- background --------------------------------------------------------------------------------

    def _start_loops(self) -> None:
        self._background.start("access log", self._access_log.run)
        self._background.start("spans", self._spans.run)
        self._background.start("loop watch", self._watch.run)
        self._background.start("recent requests", self._recent.run)
        if self._host is not None:
            self._background.start("function host", self._host.run)
        if self._shared is not None:
            self._background.start("shared state", self._shared.run)
        for owner in self._runtime.current.owners:
            self._start_pool(owner)
        if self._jobs is not None:
            self._background.start("jobs", self._jobs.run)
        self._background.start("controller", self._controller.run)
        self._background.start("quality", self._quality.run)
        self._background.start("summaries", self._all.run)
        if self._member is None:  # the page is the parent's
            self._background.start("page", self._feed.run)
        if self._member is None or self._member.number == 1:  # one of them is enough to say it
            watch = CertificateWatch(
                lambda: self._runtime.current.tls_expires_at, self._wall_clock, self._parts.sleep
            )
            self._background.start("certificate", watch.run)
        watcher = ConfigWatcher(self._sources, _WATCH_EVERY_S, self._on_file_change)
        self._background.start("config watcher", watcher.run)

    def _start_pool(self, owner: Owner) -> None:
        for kind, run in owner.loops.items():
            self._background.start(_loop_name(kind, owner), run)

    async def _start_credentials(
        self, runtime: Runtime, running: Mapping[Hashable, Refresher[Any]]
    ) -> None:
        """Start the loops of the credentials that are new, and give each time for a first try."""
        new = [kept for key, kept in runtime.credentials.items() if key not in running]
        for credential in new:
            self._background.start(_credential_loop(credential), credential.run)
        waiting = [asyncio.create_task(credential.was_tried.wait()) for credential in new]
        if waiting:
            await asyncio.wait(waiting, timeout=_CREDENTIALS_WITHIN_S)
        for task in waiting:
            task.cancel()

    async def _drain(self, data: web.Server, listener: Listener) -> None:
        """Take nothing new and let what was accepted finish, within the drain time-out."""
        self._data.is_draining = True
        timeout_s = self._runtime.current.settings.server.drain_timeout_s
        _log.info("draining: %d requests in flight", self._data.in_flight)
        listener.close()
        data.pre_shutdown()
        if self._jobs is not None:
            self._jobs.drain()
        give_up_at = self._parts.clock() + timeout_s
        while self._in_flight and self._parts.clock() < give_up_at:
            await self._parts.sleep(_DRAIN_POLL_S)
        if self._data.in_flight:
            _log.warning("%d requests did not end in time and are cut off", self._data.in_flight)

    @property
    def _in_flight(self) -> int:
        """Requests and jobs that have not ended; jobs that are cut off are begun again."""
        return self._data.in_flight + (self._jobs.runner.in_flight if self._jobs else 0)

    def _make_jobs(self, director: Director) -> Jobs:
        parts, data = self._parts, self._data
        calling = Calling(director, data.intake, data.bodies, parts.clock, parts.rng, self._tracer)
        settings = self._runtime.current.settings
        jobs = Jobs(settings, self._runtime, calling, parts.wall_clock, self._instance_id)
        data.later = jobs.front
        return jobs

    # -- configuration -----------------------------------------------------------------------------

    async def reload(self, who: str = "API") -> str:
        """Load the file again, as somebody asked, and put it in force; returns its hash.

        Raises ConfigError, and changes nothing, if it is not valid.
        """
        async with self._reloading:
            try:
                loaded = await asyncio.to_thread(load, self._path, self._environment)
            except ConfigError as error:
                self._sources = error.sources
                self._reloads.last_error = str(error)
                self._metrics.record_reload(succeeded=False, at=self._wall_clock())
                _log.error(
                    "the configuration is not valid and was not taken up:\n%s", error,
                    extra=told(EventKind.CONFIG, who=who, problems=len(error.problems)),
                )  # fmt: skip
                raise
            self._sources = loaded.sources
            loaded = self._as_member(loaded)
            new = await in_turns(assembling(loaded, self._parts, self._runtime.current))
            # Before requests need them; one that does not come holds nothing up for long.
            await self._start_credentials(new, self._runtime.current.credentials)
            old = self._runtime.current
            found = await asyncio.to_thread(changes, old.settings, new.settings, old.keys, new.keys)
            self._runtime.swap(new)
            turn = Turn()
            await in_turns(self._take_up(old, new))
            for key in old.credentials.keys() - new.credentials.keys():
                await self._background.stop(_credential_loop(old.credentials[key]))
            for name in new.models.keys() | old.models.keys():
                await self._replace_pool(old.models.get(name), new.models.get(name))
                await turn.pause_if_over()
            for name in new.groups.keys() | old.groups.keys():
                await self._replace_pool(old.groups.get(name), new.groups.get(name))
            await in_turns(self._metrics.forgetting())
            # Freed at once, what a thousand models leave behind would keep the loop.
            remains = [*old.models.values(), *old.settings.models, *loaded.document.models]
            del old, loaded
            while remains:
                remains.pop()
                await turn.pause_if_over()
            self._reloads.loaded_at, self._reloads.last_error = self._wall_clock(), None
            changed = len(found)
            await in_turns(_telling_changes(found, who))
            _log.info(
                "configuration %s is in force", new.content_hash[:12],
                extra=told(EventKind.CONFIG, who=who, changes=changed, hash=new.content_hash),
            )  # fmt: skip
            return new.content_hash

    def _as_member(self, loaded: Loaded) -> Loaded:
        return self._member.applied(loaded) if self._member is not None else loaded

    async def _on_file_change(self) -> Sources:
        try:
            await self.reload("file")
        except ConfigError as error:
            return error.sources
        return self._sources

    def _take_up(self, old: Runtime | None, new: Runtime) -> Steps[None]:
        """Tell everybody else about a runtime that was put in force, one at a time."""
        for warning in new.warnings:
            _log.warning("%s", warning)
        wanted, possible = new.settings.server.max_connections, self._data.limits.possible
        if wanted > possible:
            _log.warning(
                "server.max_connections = %d, but the limit on open files of this process allows"
                " %d: no more clients are let in", wanted, possible,
            )  # fmt: skip
        if old is not None and _needs_restart(old, new):
            _log.warning(
                "listeners, processes, access log, shared state and jobs change at the next start"
            )
        objectives = {}
        for name, model in new.models.items():
            objectives[name] = _objective(model)
            yield
        tenants = {key.name: key.tenant for key in new.keys}
        budgets: dict[tuple[str, ...], float] = {
            (budget.tenant, str(period)): usd
            for budget in new.settings.budgets
            for period, usd in budget.periods
        }
        self._metrics.configure(new.models, objectives, tenants, budgets)
        self._tracer.configure(_keeping(new))
        yield
        self._metrics.record_reload(succeeded=True, at=self._wall_clock())
        self._parts.book.retain(new.models)
        yield
        self._quality.take_up(watched(new.settings))
        yield
        self._publisher.look_at_all()
        yield
        self._data.shadows.retain(new)
        if self._host is not None:
            self._host.declare(local_functions(new.settings), new.settings.workers.log)
        for model in new.models.values():
            if model.pool is not None:
                model.pool.wake = self._controller.wake
            yield
        for group in new.groups.values():
            names = {model.name for model in new.models.values() if model.group == group.name}
            group.members.retain(names)
            yield

    async def _replace_pool(self, old: Owner | None, new: Owner | None) -> None:
        """Start and stop what a reload changed; what stayed the same is not touched."""
        old_driver = old.driver if old is not None else None
        new_driver = new.driver if new is not None else None
        if old_driver is new_driver:
            return
        if old is not None and old_driver is not None:
            await self._retire(old)
        if new is not None:
            self._start_pool(new)

    async def _retire(self, old: Owner) -> None:
        """Let the requests of a replaced pool finish in the background, then stop its replicas."""
        drain_s = self._runtime.current.settings.server.drain_timeout_s

        async def stop_when_idle() -> None:
            give_up_at = self._parts.clock() + drain_s
            while old.is_busy and self._parts.clock() < give_up_at:
                await self._parts.sleep(_DRAIN_POLL_S)
            if old.driver is not None and not old.driver.is_shared:
                old.driver.want(0)  # also of replicas that would outlive the gateway
            for kind in reversed(tuple(old.loops)):
                await self._background.stop(_loop_name(kind, old))

        self._background.start(f"retiring {_loop_name('pool', old)}", stop_when_idle)

    # -- shared state ------------------------------------------------------------------------------

    def _shared_config(self) -> SharedStateConfig:
        settings = self._runtime.current.settings.shared_state
        return SharedStateConfig(
            settings.redis_url,
            settings.namespace,
            self._instance_id,
            settings.flush_interval_s,
            settings.operation_timeout_s,
            settings.staleness_s,
        )

    def _shared_state(self) -> SharedState:
        return SharedState(
            self._shared_config(), self._publisher.changes, self._parts.clock, self._parts.sleep
        )

    def _notes(self, topic: str) -> Notes | None:
        return Notes(self._shared_config(), topic) if self._shared is not None else None

    def _fleet(self) -> FleetSnapshot:
        return self._shared.snapshot if self._shared is not None else ALONE


def _credential_loop(credential: Refresher[Any]) -> str:
    # A replaced credential and its successor run side by side for a moment.
    return f"credential {credential.what} {id(credential):x}"


def _loop_name(kind: str, owner: Owner) -> str:
    # A replaced pool and its successor run side by side for a while.
    return f"{kind} {owner.name} {id(owner.driver):x}"


def _needs_restart(old: Runtime, new: Runtime) -> bool:
    before, after = old.settings, new.settings
    if before.jobs != after.jobs:
        return True
    return before.shared_state != after.shared_state or any(
        getattr(before.server, name) != getattr(after.server, name)
        for name in _FIXED_SERVER_SETTINGS
    )


def _telling_changes(found: list[Change], who: str) -> Steps[None]:
    """Tell the first of the changes, in their order, and empty the list: each is one step."""
    left_out = max(0, len(found) - _MOST_CHANGES_TOLD)
    found.reverse()
    while len(found) > left_out:
        key, old, new = found.pop()
        _log.info(
            "configuration: %s: %s -> %s (%s)", key, old, new, who,
            extra=told(EventKind.CONFIG, key=key, old=old, new=new, who=who),
        )  # fmt: skip
        yield
    while found:
        found.pop()
        yield
    if left_out:
        _log.info("configuration: %d more keys changed", left_out)


def _objective(model: ModelRuntime) -> Objective:
    slo = model.policy.slo
    return Objective(slo.latency_s, slo.percentile / 100, slo.cold_allowed)


def _keeping(runtime: Runtime) -> Keeping | None:
    tracing = runtime.settings.tracing
    if not tracing.endpoint:
        return None
    objectives_s = {name: model.policy.slo.latency_s for name, model in runtime.models.items()}
    return Keeping(tracing.sample, frozenset(Kept(why) for why in tracing.tail), objectives_s)


def _collector(runtime: Runtime) -> Collector | None:
    tracing = runtime.settings.tracing
    if not tracing.endpoint:
        return None
    return Collector(tracing.endpoint, tracing.headers, tracing.service_name, tracing.timeout_s)


def function_host(settings: Settings, parts: Parts) -> LocalFunctionHost:
    """The function host of this machine, not started."""
    drain_s = settings.server.drain_timeout_s
    command = host_command(parts.local_host, drain_s)
    return LocalFunctionHost(parts.local_host, command, parts.upstream, parts.clock, drain_s)


async def listen_admin(runner: web.AppRunner, address: ListenAddress) -> str:
    """Open the admin port; returns its URL, with the port that the system chose for port 0.

    Raises CannotListenError.
    """
    await runner.setup()
    site = web.TCPSite(runner, address.host, address.port, backlog=1024)
    with opening("server", "admin_listen"):
        await site.start()
    bound: tuple[str, int] = runner.addresses[0][:2]
    return url_of(*bound, is_tls=False)


def url_of(host: str, port: int, *, is_tls: bool) -> str:
    """The URL of a port that was opened."""
    scheme = "https" if is_tls else "http"
    return f"{scheme}://{ListenAddress(host, port)}"


def hostname() -> str:
    """This machine's name, for ids of gateways that share state."""
    return socket.gethostname().partition(".")[0][:40]
