"""Runs jobs on the backends of this gateway, after all real-time requests.

Claims what the schedule grants, runs it through the same director as every request, and writes down
what came of it. A store that cannot be reached stops it, and nothing is lost: what it had claimed
is begun again by whoever lives once its lease is over, and its own late results change nothing.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from router.dispatch.chain import Link
from router.dispatch.director import Director
from router.domain.clock import Clock
from router.domain.errors import (
    AttemptError,
    DeadlineExceededError,
    ModelFailedError,
    NotDurableError,
    RouterError,
    ShedError,
    UpstreamRejectedError,
)
from router.gateway.body import BodyBudget, HeldBody
from router.gateway.exchange import Exchange
from router.gateway.intake import Intake
from router.gateway.protocols.registry import protocol_of
from router.jobs.answers import cause_of, collected, refused
from router.jobs.calls import links_of
from router.jobs.lines import body_of
from router.jobs.objects import Objects
from router.jobs.records import End, Job, Kind, Lane, Result, State
from router.jobs.schedule import Room, plan, spare_slots
from router.jobs.store import JobStore
from router.policy.decide import captive
from router.runtime import ModelRuntime, RuntimeRef
from router.settings.jobs import JobsSettings

_log = logging.getLogger(__name__)

_POLL_S = 0.25
_TURN_S = 0.01
"""Time between two looks at what waits, however quickly jobs end."""
_BEATS = 3
"""Times that a living worker says so before its lease is over."""
_AHEAD = 4
"""Jobs claimed for each that may run, so that none waits for the store."""
_MAX_PAUSE_S = 60.0
_SHED_PAUSE_S = 0.5
_PAYLOAD_BYTES = 1024
"""Of a job whose size is not known yet."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs are kept and what they run on: shared by all that deals with them."""

    store: JobStore
    objects: Objects
    runtime: RuntimeRef
    settings: JobsSettings
    wall_clock: Clock


@dataclass(frozen=True, slots=True)
class Calling:
    """What a call takes beside its model."""

    director: Director
    intake: Intake
    bodies: BodyBudget
    clock: Clock
    rng: Random


Step = Callable[[Job], Awaitable[Result]]
"""What a job does that calls no model. Raises RouterError."""


@dataclass(slots=True)
class Bench:
    """Jobs of one model here: those that run, and those that are claimed and wait for a slot."""

    ready: deque[tuple[Job, bool]] = field(default_factory=deque)
    running: int = 0
    on_pool: int = 0
    by_tenant: Counter[str] = field(default_factory=Counter)


class _Run:
    """A job that has a slot here; `over` gives it up, once."""

    def __init__(self, job: Job, bench: Bench, *, is_paid: bool) -> None:
        self.job = job
        self.is_paid = is_paid
        self._bench: Bench | None = bench
        self._count(bench, 1)

    def over(self, _: object = None) -> None:
        """It runs no more."""
        if self._bench is not None:
            self._count(self._bench, -1)
            self._bench = None

    def _count(self, bench: Bench, change: int) -> None:
        bench.running += change
        bench.on_pool += 0 if self.is_paid else change
        bench.by_tenant[self.job.tenant] += change


class Runner:
    """The jobs of one gateway process."""

    def __init__(
        self, place: Place, calling: Calling, steps: Mapping[Kind, Step], name: str
    ) -> None:
        self._place = place
        self._calling = calling
        self._steps = steps
        self._name = name
        self._names = 0
        self._worker = ""
        self._wake = asyncio.Event()
        self._benches: dict[str, Bench] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended: Counter[State] = Counter()
        self.recovered = 0
        self.is_draining = False
        self.lanes: list[Lane] = []

    def nudge(self) -> None:
        """There is something new to do."""
        self._wake.set()

    @property
    def in_flight(self) -> int:
        """Jobs that run here."""
        return sum(bench.running for bench in self._benches.values())

    async def run(self) -> None:
        """Work until cancelled. Raises NotDurableError if the store cannot be reached."""
        self._names += 1
        worker = self._worker = f"{self._name}-{self._names}"
        await self._place.store.beat(worker, self._place.settings.lease_s, self._place.wall_clock())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._live(worker))
                group.create_task(self._work(worker))
        except* NotDurableError as errors:
            raise NotDurableError(str(errors.exceptions[0])) from errors
        finally:
            await self._let_go(worker)

    async def _let_go(self, worker: str) -> None:
        """End what runs, and give it back."""
        for bench in self._benches.values():
            bench.ready.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._place.store.retire(worker)
        except NotDurableError:
            _log.warning("the jobs that ran here are begun again once their lease is over")

    async def _live(self, worker: str) -> None:
        settings, store = self._place.settings, self._place.store
        while True:
            await store.beat(worker, settings.lease_s, self._place.wall_clock())
            self.recovered += await store.recover(settings.attempts, self._place.wall_clock())
            await asyncio.sleep(settings.lease_s / _BEATS)

    async def _work(self, worker: str) -> None:
        while True:
            self._wake.clear()
            self.lanes = [] if self.is_draining else await self._place.store.lanes()
            for model, waiting in _by_model(self.lanes).items():
                await self._grant(worker, model, waiting)
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._wake.wait()
                    await asyncio.sleep(_TURN_S)
            except TimeoutError:
                continue

    async def _grant(self, worker: str, name: str, lanes: list[Lane]) -> None:
        bench = self.bench(name)
        model = self._place.runtime.current.models.get(name)
        room = self.room(name) if model is not None else Room(1, 0, 1.0, 1)
        ahead = Room(
            max(0, _AHEAD * room.free - len(bench.ready)),
            max(0, _AHEAD * room.paid - len(bench.ready)),
            room.service_s,
            room.width,
        )
        now = self._place.wall_clock()
        for grant in plan(lanes, ahead, bench.by_tenant, now):
            jobs = await self._place.store.claim(grant.lane, worker, grant.count, now)
            bench.ready.extend((job, grant.is_forced) for job in jobs)
        self.start_ready(worker, name)

    def bench(self, name: str) -> Bench:
        """The jobs of a model here."""
        return self._benches.setdefault(name, Bench())

    def start_ready(self, worker: str, name: str) -> None:
        """Begin what is claimed, as far as there are slots at this moment."""
        bench = self._benches[name]
        while bench.ready and not self.is_draining:
            job, is_forced = bench.ready[0]
            room = self.room(name)
            if room.free <= 0 and not (is_forced and room.paid > 0):
                return
            bench.ready.popleft()
            run = _Run(job, bench, is_paid=is_forced or not self._has_pool(name))
            task = asyncio.create_task(self._job(worker, run))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # Also of a task that is cancelled before it has begun.
            task.add_done_callback(run.over)

    def _has_pool(self, name: str) -> bool:
        model = self._place.runtime.current.models.get(name)
        return model is not None and model.pool is not None and model.pool.params.enabled

    def room(self, name: str) -> Room:
        """What jobs of that model find at this moment."""
        bench = self._benches.get(name) or Bench()
        left = max(0, self._place.settings.concurrency - bench.running)
        model = self._place.runtime.current.models.get(name)
        if model is None:
            return Room(left, 0, 1.0, 1)  # it only has to be said that it is gone
        return room_of(model, left, bench.on_pool, self._place.settings, self._calling.clock())

    # -- one job ---------------------------------------------------------------------------------

    async def _job(self, worker: str, run: "_Run") -> None:
        job, store = run.job, self._place.store
        try:
            end = await self._ended(job, is_paid=run.is_paid)
            run.over()
            self.start_ready(worker, job.model)  # before what came of this one is written
            if isinstance(end, End):
                await self._written(worker, end)
            else:
                await store.put_back(worker, job.id, job.attempt, end.ready_at, counts=end.counts)
        except NotDurableError:
            _log.warning("what came of job %s could not be written: it is begun again", job.id)
        finally:
            self._wake.set()

    async def _written(self, worker: str, end: End) -> None:
        (is_ours,) = await self._place.store.end(worker, [end])
        if is_ours:
            self.ended[end.state] += 1
        elif end.result.content:
            await self._place.objects.remove(end.result.content)  # somebody else's counts

    async def _ended(self, job: Job, *, is_paid: bool) -> "End | _Again":
        now = self._place.wall_clock()
        if now >= job.due_at and job.spec.kind is Kind.CALL:
            late = Result(cause="its window ended before it could begin")
            return End(job.id, job.attempt, State.EXPIRED, now, late)
        exchange = Exchange(f"{job.id}-{job.attempt}", self._calling.clock())
        try:
            if job.spec.kind is Kind.CALL:
                result = await self._called(job, exchange, is_paid=is_paid)
            else:
                result = await self._steps[job.spec.kind](job)
        except Exception as error:  # noqa: BLE001  root of a job: what it was is written down
            found = self._failed(job, error, exchange.request_id)
            if isinstance(found, _Again):
                return found
            state, result = found
        else:
            state = State.DEAD if job.batch and result.status >= 400 else State.DONE
        return End(
            job.id, job.attempt, state, self._place.wall_clock(), result, exchange.record.cost_usd
        )

    def _failed(
        self, job: Job, error: Exception, request_id: str
    ) -> "tuple[State, Result] | _Again":
        """What becomes of a job whose attempt failed."""
        now = self._place.wall_clock()
        if isinstance(error, ShedError | UpstreamRejectedError):
            pause_s = self._calling.rng.uniform(0.0, 2 * _SHED_PAUSE_S)
            return _Again(now + pause_s, counts=False)
        if isinstance(error, DeadlineExceededError):
            return State.EXPIRED, Result(cause=cause_of(error))
        is_answer = isinstance(error, ModelFailedError) or not isinstance(error, AttemptError)
        if isinstance(error, RouterError) and is_answer and job.spec.kind is Kind.CALL:
            paths = self._place.runtime.current.openai_paths
            protocol = protocol_of(job.spec.target.partition("?")[0], dict(job.spec.headers), paths)
            state = State.DEAD if job.batch else State.DONE  # a batch has a file of its errors
            return state, refused(error, protocol, request_id)
        if not isinstance(error, RouterError):
            _log.error("job %s failed", job.id, exc_info=error)
        if job.attempt >= self._place.settings.attempts:
            return State.DEAD, Result(cause=cause_of(error), request_id=request_id)
        pause_s = min(_MAX_PAUSE_S, 2.0**job.attempt) * self._calling.rng.uniform(0.5, 1.5)
        return _Again(now + pause_s, counts=True)

    async def _called(self, job: Job, exchange: Exchange, *, is_paid: bool) -> Result:
        spec, calling, runtime = job.spec, self._calling, self._place.runtime.current
        content = spec.body
        if spec.payload:
            content = await self._place.objects.read(spec.payload, spec.start, spec.length)
        if job.batch:
            content = body_of(content)
        with HeldBody(content, calling.bodies, calling.clock) as body:
            due = calling.clock() + job.due_at - self._place.wall_clock() if is_paid else None
            links = await links_of(spec, body, exchange, runtime, calling.intake, due=due)
            if is_paid:
                _count_arrival(links[0], calling.clock())
            served = calling.director.serve(links, content, exchange.record)
            async with served as response:
                return await collected(response, self._place.objects, exchange.request_id)


@dataclass(frozen=True, slots=True)
class _Again:
    """A job is put back; `counts` says whether its attempt was one."""

    ready_at: float
    counts: bool


def room_of(
    model: ModelRuntime, left: int, on_pool: int, settings: JobsSettings, now: float
) -> Room:
    """What jobs of a model find: `left` more may run here, `on_pool` have free slots already.

    Where there is no pool nothing is ever free, and waiting saves nothing: they begin at once.
    """
    pool, function = model.pool, model.serverless
    if pool is None or not pool.params.enabled:
        assert function is not None  # noqa: S101  a model has one or the other
        expected_s = function.service_times.estimate(_PAYLOAD_BYTES).mean_s
        most = min(settings.concurrency, function.params.max_concurrency)
        return Room(left, 0, expected_s, most)
    found = pool.snapshot(_PAYLOAD_BYTES, now)
    in_flight = max(0, found.slots - found.free_slots - on_pool)
    load = model.sizing.arrivals_per_s * found.expected_s
    spare = spare_slots(found.slots, in_flight, found.queued, load) - on_pool
    free = max(0, min(left, spare, found.free_slots))
    expected_s = found.expected_s
    if function is not None and function.params.enabled:
        expected_s = min(expected_s, function.service_times.estimate(_PAYLOAD_BYTES).mean_s)
    return Room(free, left - free, expected_s, settings.concurrency)


def _count_arrival(link: Link, now: float) -> None:
    """A job that has to begin counts for the sizing as every request does."""
    model, request = link.model, link.request
    function = model.state(request, now, {}).serverless
    model.count_arrival(request.payload_bytes, now, captive(request, function))


def _by_model(lanes: list[Lane]) -> Mapping[str, list[Lane]]:
    found: dict[str, list[Lane]] = {}
    for lane in lanes:
        found.setdefault(lane.model, []).append(lane)
    return found
