"""Keeps the replicas of one pool running: launched, waited for, watched, replaced, rolled, drained.

Knows neither processes nor containers; a `Launcher` does. Never decides how many replicas there
are: `want` says.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential, wait_random

from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.pool.health import ProbeParams, is_ready
from router.domain.clock import Clock
from router.domain.events import EventKind, told
from router.upstream.address import Address
from router.upstream.client import UpstreamClient

_log = logging.getLogger(__name__)

_PROBE_EVERY_S = 0.05
_LOOK_EVERY_S = 0.5
_HUNG_AFTER_S = 10.0
"""A replica that has not been ready for so long is ended and replaced."""
_SETTLED_S = 30.0
"""A replica that ends sooner counts as a failed start: the next one waits a growing pause."""
_PAUSES = wait_exponential(multiplier=0.2, max=30.0) + wait_random(0.0, 0.2)
_LEAVE_S = 5.0
"""Time on top of the drain for replicas to be gone at shutdown."""


class ReplicaFailedError(Exception):
    """A replica could not be launched, ended by itself, or was not ready in time."""


class ModelMissingError(ReplicaFailedError):
    """There is no such model for a replica to load; the message may be shown to its clients."""


class Instance(Protocol):
    """One launched replica. `spec` tells replicas of the present settings from earlier ones."""

    id: str
    address: Address
    spec: str

    async def ended(self) -> str:
        """Return once the replica has ended by itself; says how."""
        ...

    async def end(self, patience_s: float) -> None:
        """End it, after asking for so long; nothing of it is left. Raises ReplicaFailedError."""
        ...

    def abandon(self) -> None:
        """There is no time for `end`. Must not block."""
        ...


class Launcher(Protocol):
    """Makes replicas of one kind."""

    @property
    def spec(self) -> str:
        """Names what would be launched now; replicas with another spec are rolled."""
        ...

    @property
    def outlives_gateway(self) -> bool:
        """Whether replicas that are still wanted keep running when the gateway ends."""
        ...

    async def open(self) -> Sequence[Instance]:
        """Get to work; returns replicas left by an earlier gateway. Raises ReplicaFailedError."""
        ...

    async def prepare(self) -> None:
        """Fetch what a launch needs and may take long. Raises ReplicaFailedError."""
        ...

    async def launch(self, number: str) -> Instance:
        """Launch a replica. Raises ReplicaFailedError or OSError, and then leaves nothing."""
        ...

    async def close(self) -> None:
        """Release what `open` took."""
        ...


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SupervisionParams:
    """How replicas are treated, whatever they are."""

    concurrency: int
    start_timeout_s: float
    drain_s: float


@dataclass(slots=True, eq=False)
class _Place:
    """One place of the pool; a replica that ended is replaced in the same place."""

    number: int
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    instance: Instance | None = None
    launches: int = 0
    in_service: bool = False


class ReplicaSupervisor:
    """Runs as many replicas as are wanted. The driver of pools whose replicas are ours."""

    is_shared = False

    def __init__(
        self,
        pool: Pool,
        upstream: UpstreamClient,
        launcher: Launcher,
        params: SupervisionParams,
        probe: ProbeParams,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._upstream = upstream
        self.launcher = launcher
        self._params = params
        self._probe = probe
        self._clock = clock
        self._wanted = 0
        self._taken_over = 0
        self._changed = asyncio.Event()
        self._numbers = count(1)
        self._places: dict[_Place, asyncio.Task[None]] = {}

    def want(self, replicas: int, *, may_shrink: bool = True) -> None:
        """Set the size; replicas start and drain in the background."""
        if not may_shrink:
            replicas = max(replicas, self._wanted)
        if replicas != self._wanted:
            self._wanted = replicas
            self._changed.set()

    def reconfigure(self, params: SupervisionParams, probe: ProbeParams) -> None:
        """Take new settings; replicas whose launcher now has another spec are rolled.

        One replica more than wanted runs meanwhile, and an old one is drained only when a new one
        is ready: with a broken spec the old ones stay.
        """
        self._params, self._probe = params, probe
        for place in self._places:
            endpoint = self._endpoint(place)
            if endpoint is not None:
                endpoint.resize(params.concurrency)
        self._changed.set()

    def take_over(self) -> int:
        """Replicas of an earlier gateway that were adopted since this was last asked."""
        adopted, self._taken_over = self._taken_over, 0
        return adopted

    @property
    def billed(self) -> int:
        """Replicas from their launch until they have ended."""
        return len(self._places)

    async def run(self) -> None:
        """Work until cancelled, then end every replica that shall not outlive us."""
        try:
            await self._adopt()
            while True:
                self._reconcile()
                await self._changed.wait()
                self._changed.clear()
        finally:
            await self._leave()
            await self.launcher.close()

    # -- how many ------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        for instance in await self._persistently(self.launcher.open):
            self._occupy(_Place(next(self._numbers), instance=instance))
        self._taken_over = len(self._places)
        # They are kept until the sizing has heard of them.
        self._wanted = max(self._wanted, self._taken_over)

    def _reconcile(self) -> None:
        staying = [place for place in self._places if not place.stop.is_set()]
        stale = [place for place in staying if self._is_stale(place)]
        fresh = [place for place in staying if not self._is_stale(place)]
        surge = 1 if stale and self._wanted else 0
        missing = min(self._wanted + surge - len(staying), self._wanted - len(fresh))
        for _ in range(missing):
            self._occupy(_Place(next(self._numbers)))
        serving = len(stale) + sum(place.in_service for place in fresh)
        leaving = stale[: max(0, serving - self._wanted)]
        # The youngest goes first: its start-up is the least paid back.
        leaving += fresh[self._wanted :]
        for place in leaving:
            place.stop.set()

    def _is_stale(self, place: _Place) -> bool:
        return place.instance is not None and place.instance.spec != self.launcher.spec

    def _occupy(self, place: _Place) -> None:
        task = asyncio.create_task(self._supervise(place), name=f"replica {place.number}")
        self._places[place] = task
        task.add_done_callback(partial(self._vacated, place))

    def _vacated(self, place: _Place, task: asyncio.Task[None]) -> None:
        self._places.pop(place, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("model %s: a replica's supervisor failed: %r", self._pool.model, error)
        self._changed.set()

    async def _leave(self) -> None:
        stays = self.launcher.outlives_gateway and self._wanted > 0
        ending = [task for place, task in self._places.items() if place.stop.is_set()]
        if not stays:
            for place in self._places:
                place.stop.set()
            ending = list(self._places.values())
        if ending:
            await asyncio.wait(ending, timeout=self._params.drain_s + _LEAVE_S)
        for task in list(self._places.values()):
            task.cancel()
        await asyncio.gather(*list(self._places.values()), return_exceptions=True)

    # -- one replica ---------------------------------------------------------------------------

    async def _supervise(self, place: _Place) -> None:
        """Keep one replica running until it is told to stop."""
        try:
            while not place.stop.is_set():
                await self._retrying(place)(self._live, place)
        finally:
            if place.instance is not None:
                self._pool.remove(place.instance.id)
                place.instance.abandon()

    def _retrying(self, place: _Place) -> AsyncRetrying:
        """Growing pauses between failed replicas; ends early if told to stop."""
        return AsyncRetrying(
            retry=retry_if_exception_type((ReplicaFailedError, OSError)),
            wait=_PAUSES,
            stop=lambda _state: place.stop.is_set(),
            sleep=lambda seconds: _wait(place.stop, seconds),
            before_sleep=self._report,
            retry_error_callback=lambda _state: None,
        )

    def _report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        self._pool.missing = str(error) if isinstance(error, ModelMissingError) else ""
        facts = told(EventKind.REPLICA, self._pool.model)
        _log.warning("model %s: a replica failed: %s", self._pool.model, error, extra=facts)

    async def _live(self, place: _Place) -> None:
        """One replica from launch to end. Raises ReplicaFailedError or OSError if it was brief."""
        try:
            failure = await self._launch_and_serve(place)
        except (ReplicaFailedError, OSError):
            await self._end(place)
            raise
        await self._end(place)
        if failure:
            raise ReplicaFailedError(failure)

    async def _launch_and_serve(self, place: _Place) -> str:
        started = None
        if place.instance is None:
            await self.launcher.prepare()
            if place.stop.is_set():
                return ""
            place.launches += 1
            started = self._clock()
            place.instance = await self.launcher.launch(f"{place.number}.{place.launches}")
        if not await self._until_ready(place, place.instance, started):
            return ""
        return await self._serve(place, place.instance)

    async def _until_ready(self, place: _Place, instance: Instance, started: float | None) -> bool:
        """Wait until the replica answers; False if told to stop. `started` None: adopted."""
        ended = asyncio.ensure_future(instance.ended())
        give_up_at = self._clock() + self._params.start_timeout_s
        try:
            while not await is_ready(self._upstream, instance.address, self._probe):
                if place.stop.is_set():
                    return False
                if ended.done():
                    raise ReplicaFailedError(ended.result())
                if self._clock() > give_up_at:
                    timeout_s = self._params.start_timeout_s
                    raise ReplicaFailedError(f"not ready after {timeout_s:.0f} s")
                await asyncio.sleep(_PROBE_EVERY_S)
        finally:
            ended.cancel()
        if started is not None:
            self._pool.startup.observe(self._clock() - started)
        self._pool.add(Endpoint(instance.id, instance.address, self._params.concurrency))
        self._pool.mark_ready(instance.id, is_ready=True)
        self._pool.missing = ""
        place.in_service = True
        self._changed.set()
        verb = "ready" if started is not None else "adopted"
        facts = told(EventKind.REPLICA, self._pool.model, endpoint=instance.id)
        _log.info("model %s: replica %s is %s", self._pool.model, instance.id, verb, extra=facts)
        return True

    async def _serve(self, place: _Place, instance: Instance) -> str:
        """Watch until told to stop, or the replica ends or hangs. Returns why if it was brief."""
        since = last_ready = self._clock()
        ended = asyncio.ensure_future(instance.ended())
        failure = ""
        try:
            while not place.stop.is_set() and not failure:
                await _wait(place.stop, _LOOK_EVERY_S, ended)
                endpoint = self._endpoint(place)
                if endpoint is not None and endpoint.is_ready:
                    last_ready = self._clock()
                if ended.done():
                    failure = ended.result()
                elif self._clock() - last_ready > _HUNG_AFTER_S:
                    failure = "hangs"
        finally:
            ended.cancel()
        if not failure:
            return ""
        facts = told(EventKind.REPLICA, self._pool.model, endpoint=instance.id)
        _log.warning("replica %s %s and is replaced", instance.id, failure, extra=facts)
        return failure if self._clock() - since < _SETTLED_S else ""

    async def _end(self, place: _Place) -> None:
        """Take the replica out of the pool and end it: drain, ask, then make it."""
        place.in_service = False
        instance = place.instance
        if instance is None:
            return
        endpoint = self._endpoint(place)
        is_told = place.stop.is_set()
        if is_told and endpoint is not None and endpoint.is_ready:
            await _wait(self._pool.drain(instance.id), self._params.drain_s)
        self._pool.remove(instance.id)
        self._upstream.abort(instance.address)
        patience_s = self._params.drain_s if is_told else 0.0
        await self._persistently(partial(instance.end, patience_s))
        place.instance = None

    def _endpoint(self, place: _Place) -> Endpoint | None:
        return self._pool.endpoints.get(place.instance.id) if place.instance is not None else None

    async def _persistently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Try until it succeeds: for what must not be given up while its platform is away."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ReplicaFailedError),
            wait=_PAUSES,
            before_sleep=self._report,
        )
        return await retrying(act)


async def _wait(
    event: asyncio.Event, seconds: float, also: asyncio.Future[str] | None = None
) -> None:
    """Wait for the event, for `also`, or for so long, whichever comes first."""
    waiter = asyncio.ensure_future(event.wait())
    waiting: list[asyncio.Future[Any]] = [waiter] if also is None else [waiter, also]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
