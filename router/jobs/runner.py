"""Runs jobs on the backends of this gateway, after all real-time requests.

Claims what the schedule grants, has attempts made of it (`work`), and what came of them written
down (`ledger`). A store that cannot be reached stops it, and nothing is lost: what it had claimed
is begun again by whoever lives once its lease is over, and its own late results change nothing.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from router.backends.pool.endpoints import ALL_SLOTS
from router.domain.errors import NotDurableError
from router.jobs.backlog import (
    USUAL_BYTES,
    Clocks,
    Outlook,
    by_batch,
    outlooks,
    sizing_of,
    waiting_of,
)
from router.jobs.claimed import Claimed, bodies_of
from router.jobs.endings import Endings
from router.jobs.ledger import MOST_UNWRITTEN, Ledger
from router.jobs.place import Calling, Place, Step
from router.jobs.records import Job, Kind, Lane, State
from router.jobs.work import Again, Work
from router.policy.schedule import Room, plan
from router.policy.spare import CALM, Caution, slots_for_jobs, spare_slots
from router.runtime import ModelRuntime, Runtime
from router.settings.jobs import JobsSettings

_log = logging.getLogger(__name__)

_POLL_S = 0.25
_TURN_S = 0.01
"""Time between two looks at what waits, however quickly jobs end."""
_BEATS = 3
"""Times that a living worker says so before its lease is over."""
_AHEAD_S = 0.1
"""Jobs are claimed that far ahead of their slots, so that no slot waits for the store."""
_MOST_AHEAD = 256
_STEPS_AHEAD = 4
"""Of jobs that call no model."""
_MOST_AT_ONCE = 64
"""Jobs in one claim: unpacking them keeps the loop for less than two milliseconds."""
_MOST_HELD_S = 1.0
"""A claimed job that has found no slot for so long is given back: others may have one."""
_TELL_EVERY_S = 0.25
"""Time between two looks at what will become of what waits."""


@dataclass(slots=True)
class Bench:
    """Jobs of one model here: those that run, and those that are claimed and wait for a slot.

    Those of `forced` have to begin, if need be at a cost.
    """

    ready: deque[Claimed] = field(default_factory=deque)
    forced: deque[Claimed] = field(default_factory=deque)
    running: int = 0
    on_pool: int = 0
    by_tenant: Counter[str] = field(default_factory=Counter)
    caution: Caution = CALM
    counted: tuple[int, int] = (0, 0)

    @property
    def held(self) -> list[Job]:
        """Those that wait here."""
        return [claimed.job for line in (self.forced, self.ready) for claimed in line]

    def look(self, in_flight: int, counted: tuple[int, int], now: float) -> None:
        """So many requests are in flight; so many have come, and have waited because of jobs."""
        requests, delayed = (new - old for new, old in zip(counted, self.counted, strict=True))
        seen = self.caution.seen(in_flight, now)
        self.caution = seen.learned(max(requests, 0), max(delayed, 0))
        self.counted = counted


class _Run:
    """A job that has a slot here; `over` gives it up, once."""

    def __init__(self, claimed: Claimed, bench: Bench, *, is_paid: bool) -> None:
        self.job = claimed.job
        self.body = claimed.body
        self.is_paid = is_paid
        self._bench: Bench | None = bench
        self._count(bench, 1)

    def over(self, _: object = None) -> None:
        """Give the slot up; a second time does nothing."""
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
        self._work = Work(place, calling, steps)
        self._name = name
        self._names = 0
        self._wake = asyncio.Event()
        self._benches: dict[str, Bench] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.endings = Endings()
        self.ended: Counter[State] = Counter()
        self.recovered = 0
        self.is_draining = False
        self.lanes: list[Lane] = []
        self.outlooks: Mapping[str, Outlook] = {}
        self._of_batches: Mapping[str, Outlook] = {}
        self._told_at = 0.0

    def nudge(self) -> None:
        """There is something new to do."""
        self._wake.set()

    def outlook_of_batch(self, batch: str) -> Outlook | None:
        """What will become of a batch; None if none of its jobs wait."""
        return self._of_batches.get(batch)

    @property
    def in_flight(self) -> int:
        """Jobs that run here."""
        return sum(bench.running for bench in self._benches.values())

    async def run(self) -> None:
        """Work until cancelled. Raises NotDurableError if the store cannot be reached."""
        self._names += 1
        place, worker = self._place, f"{self._name}-{self._names}"
        ledger = Ledger(worker, place.store, place.objects, self.ended, self.endings)
        await place.store.beat(worker, place.settings.lease_s, place.wall_clock())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._live(worker))
                group.create_task(self._claim(ledger))
                group.create_task(ledger.run())
        except* NotDurableError as errors:
            raise NotDurableError(str(errors.exceptions[0])) from errors
        finally:
            await self._let_go(ledger)

    async def _let_go(self, ledger: Ledger) -> None:
        """End what runs, and give it back."""
        for bench in self._benches.values():
            bench.ready.clear()
            bench.forced.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await ledger.flush()
            await self._place.store.retire(ledger.worker)
        except NotDurableError:
            _log.warning("the jobs that ran here are begun again once their lease is over")

    async def _live(self, worker: str) -> None:
        settings, store = self._place.settings, self._place.store
        while True:
            await store.beat(worker, settings.lease_s, self._place.wall_clock())
            self.recovered += await store.recover(settings.attempts, self._place.wall_clock())
            await asyncio.sleep(settings.lease_s / _BEATS)

    async def _claim(self, ledger: Ledger) -> None:
        while True:
            self._wake.clear()
            self._give_back_held(ledger)
            if self.is_draining:
                self.lanes = []
            elif ledger.unwritten < MOST_UNWRITTEN:
                self.lanes = await self._place.store.lanes()
            by_model = _by_model(self.lanes)
            self._tell(by_model)
            if ledger.unwritten < MOST_UNWRITTEN:
                for model, waiting in by_model.items():
                    await self._grant(ledger, model, waiting)
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._wake.wait()
                    await asyncio.sleep(_TURN_S)
            except TimeoutError:
                continue

    def _tell(self, by_model: Mapping[str, list[Lane]]) -> None:
        """Tell what waits to those who start replicas, and what will become of it to clients."""
        now = self._calling.clock()
        if now - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = now
        runtime, width = self._place.runtime.current, self._place.settings.concurrency
        clocks = Clocks(now, self._place.wall_clock() - now)
        found: dict[str, Outlook] = {}
        for name in by_model.keys() | self._benches.keys():
            model = runtime.models.get(name)
            if model is None:
                continue
            lanes, bench = by_model.get(name, []), self.bench(name)
            waiting = waiting_of(model, lanes, bench.held, width, clocks)
            if model.pool is not None:
                model.pool.slots_alone = slots_alone(runtime, model)
                counted = model.signals.arrivals, model.pool.delayed_by_jobs
                bench.look(model.pool.in_flight - model.pool.held_by_jobs, counted, now)
            model.sizing.waiting = waiting and waiting._replace(caution=bench.caution)
            found |= outlooks(runtime, model, lanes, width, clocks)
        self.outlooks, self._of_batches = found, by_batch(self.lanes, found)

    def _give_back_held(self, ledger: Ledger) -> None:
        """Give back what has found no slot for a while."""
        before = self._calling.clock() - _MOST_HELD_S
        for bench in self._benches.values():
            for line in (bench.ready, bench.forced):
                while line and line[0].since < before:
                    ledger.give_back(line.popleft().job, Again(0.0, counts=False))

    async def _grant(self, ledger: Ledger, name: str, lanes: list[Lane]) -> None:
        bench, place = self.bench(name), self._place
        room = self._room_ahead(name, bench)
        for grant in plan(lanes, room, bench.by_tenant, place.wall_clock()):
            left = grant.count
            while left > 0:
                jobs = await place.store.claim(
                    grant.lane, ledger.worker, min(left, _MOST_AT_ONCE), place.wall_clock()
                )
                bodies, now = await bodies_of(jobs, place.objects), self._calling.clock()
                line = bench.forced if grant.is_forced else bench.ready
                line.extend(Claimed(job, now, bodies.get(job.id)) for job in jobs)
                self.start_ready(ledger, name)
                left = left - len(jobs) if jobs else 0
        self.start_ready(ledger, name)

    def _room_ahead(self, name: str, bench: Bench) -> Room:
        """What jobs find now or within a moment, less what is claimed already."""
        if name not in self._place.runtime.current.models:
            return Room(max(0, _STEPS_AHEAD - len(bench.ready)), 0, 1.0, 1)
        room = self.room(name)
        turns = _AHEAD_S / max(room.service_s, _AHEAD_S / _MOST_AHEAD)
        free = room.free + int((room.free + bench.on_pool) * turns)
        paid = room.paid + int((room.paid + bench.running - bench.on_pool) * turns)
        return Room(
            max(0, min(free, _MOST_AHEAD) - len(bench.ready)),
            max(0, min(paid, _MOST_AHEAD) - len(bench.forced)),
            room.service_s,
            room.width,
        )

    def bench(self, name: str) -> Bench:
        """The jobs of a model here."""
        return self._benches.setdefault(name, Bench())

    def start_ready(self, ledger: Ledger, name: str) -> None:
        """Begin what is claimed, as far as there are slots at this moment."""
        bench = self._benches[name]
        while not self.is_draining and (bench.ready or bench.forced):
            room = self.room(name)
            if bench.forced and room.free + room.paid > 0:
                claimed, is_forced = bench.forced.popleft(), True
            elif bench.ready and room.free > 0:
                claimed, is_forced = bench.ready.popleft(), False
            else:
                return
            run = _Run(claimed, bench, is_paid=is_forced or not self._has_pool(name))
            task = asyncio.create_task(self._job(ledger, run))
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
        return room_of(model, left, bench, self._place.settings, self._calling.clock())

    # -- one job ---------------------------------------------------------------------------------

    async def _job(self, ledger: Ledger, run: _Run) -> None:
        job = run.job
        try:
            end = await self._work.attempt(job, run.body, is_paid=run.is_paid)
            run.over()
            self.start_ready(ledger, job.model)  # before what came of this one is written
            if isinstance(end, Again):
                ledger.give_back(job, end)
            else:
                self.endings.expect(job)
                ledger.add(end)
        finally:
            self._wake.set()


def room_of(
    model: ModelRuntime, left: int, bench: Bench, settings: JobsSettings, now: float
) -> Room:
    """What jobs of a model find: `left` more may run here, those of the bench do.

    Where there is no pool nothing is ever free, and waiting saves nothing: they begin at once.
    """
    pool, function = model.pool, model.serverless
    most = settings.concurrency
    if pool is None or not pool.params.enabled:
        assert function is not None  # noqa: S101  a model has one or the other
        expected_s = function.service_times.estimate(USUAL_BYTES).mean_s
        return Room(left, 0, expected_s, min(most, function.params.max_concurrency))
    found = pool.snapshot(USUAL_BYTES, now)
    # Jobs that have begun may not have their slots yet.
    in_flight = max(0, found.slots - found.free_slots - pool.held_by_jobs)
    coming = max(0, bench.on_pool - pool.held_by_jobs)
    load = model.sizing.arrivals_per_s * found.expected_s
    spare = spare_slots(found.slots, in_flight, found.queued, load, bench.caution)
    theirs = slots_for_jobs(spare, found.slots, min(pool.slots_alone, found.slots))
    free = max(0, min(left, theirs - bench.on_pool, found.free_slots - coming))
    expected_s = found.expected_s
    if function is not None and function.params.enabled:
        expected_s = min(expected_s, function.service_times.estimate(USUAL_BYTES).mean_s)
    return Room(free, left - free, expected_s, most)


def slots_alone(runtime: Runtime, model: ModelRuntime) -> int:
    """Slots that the model's requests would have without jobs: all, until sizing has said more."""
    settings, sizing = model.settings.pool, sizing_of(runtime, model)
    if settings is None or sizing.together is None:
        return ALL_SLOTS
    return sizing.alone * settings.concurrency


def _by_model(lanes: list[Lane]) -> Mapping[str, list[Lane]]:
    found: dict[str, list[Lane]] = {}
    for lane in lanes:
        found.setdefault(lane.model, []).append(lane)
    return found
