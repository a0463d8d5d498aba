"""Jobs beside requests under a virtual clock: which begin when, and what they cost.

The live policy decides: `plan` which jobs begin and on what, `size_jointly` how many replicas there
are, `decide` where a job goes that its window forces. A job gets a slot where a gateway would give
it one: when it looks, four times a second, and as another job ends.
"""

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np

from router.domain.decision import Backend
from router.policy.deferral import Need, Waiting
from router.policy.schedule import Grant, Room, plan
from router.policy.sizing import SizingParams
from router.policy.spare import CALM, slots_for_jobs, spare_slots
from router.replay.beliefs import Queue, Waiter
from router.replay.machine import WAS_COLD, Outcome
from router.replay.simulator import Simulation
from router.replay.sizers import JointSizer
from router.replay.workload import WISH_SERVERLESS, Block, ModelSetup, Row
from router.settings.schema import ControllerSettings

LOOK_EVERY_S = 0.25
_JOB_DONE, _JOB_CALLED, _JOB_LOOK = range(100, 103)


class Batch(NamedTuple):
    """Jobs that come together, and have to be done within a window."""

    at: float
    window_s: float
    jobs: Block

    @property
    def due_at(self) -> float:
        """When its window ends."""
        return self.at + self.window_s


@dataclass(slots=True)
class JobSums:
    """What became of jobs. `calls_usd` is what those on the function cost.

    `delayed` requests waited while jobs had slots, `displaced` went to the function.
    """

    jobs: int = 0
    in_pool: int = 0
    called: int = 0
    late: int = 0
    last_s: float = 0.0
    work_s: float = 0.0
    calls_usd: float = 0.0
    delayed: int = 0
    displaced: int = 0
    held: int = 0


class _Lane(NamedTuple):
    """Jobs that wait, as the schedule sees them."""

    name: str
    waiting: int
    due_at: float
    tenant: str = ""


@dataclass(slots=True)
class _Open:
    """A batch with jobs that wait."""

    batch: Batch
    rows: deque[Row]


class JobsSimulation(Simulation):
    """One model's requests through its gateway, with batches of jobs beside them."""

    def __init__(
        self,
        setup: ModelSetup,
        controller: ControllerSettings,
        seed: int,
        batches: list[Batch],
        concurrency: int,
    ) -> None:
        self._controller = controller
        self._slots_of_jobs = 0
        self._running = 0
        self._concurrency = concurrency
        self._open: dict[str, _Open] = {}
        self._coming = deque(sorted(batches, key=lambda batch: batch.at))
        self._caution = CALM
        self._seen = (0, 0)
        self._due: dict[int, float] = {}
        self.sums = JobSums()
        params, pool = setup.runtime.sizing_params, setup.runtime.settings.pool
        self._world_function = setup.world.function
        self._joint: JointSizer | None = None
        if params is not None and pool is not None and pool.enabled:
            self._joint = self._sizer_of(setup, params, pool.concurrency)
        super().__init__(setup, self._joint, seed)
        if self._coming:
            self._push(self._coming[0].at, _JOB_LOOK)

    def _sizer_of(self, setup: ModelSetup, params: SizingParams, concurrency: int) -> JointSizer:
        times = self._controller.interval_s, self._controller.window_s
        return JointSizer(params, setup.runtime.policy.slo, concurrency, times, self._waiting)

    # -- what the gateway knows of its jobs --------------------------------------------------------

    def _waiting(self, now: float) -> Waiting | None:
        """As `jobs.backlog.waiting_of`."""
        if not self._open or self._pool is None:
            return None
        work_s = self._pool.table.best[self._bucket].mean_s / self.replicas.capacity
        usd = self._price_usd(self._bucket)
        needs = tuple(
            Need(one.batch.due_at, len(one.rows) * work_s, len(one.rows) * usd if usd >= 0 else inf)
            for one in self._open.values()
        )
        return Waiting(needs, self._concurrency / self.replicas.capacity, now, self._caution)

    @property
    def _bucket(self) -> int:
        """The bucket of the next job's size."""
        return next(iter(self._open.values())).rows[0][1]

    def _room(self, now: float) -> Room:
        """As `jobs.runner.room_of`."""
        left = max(0, self._concurrency - self._running)
        expected_s = self._believed_s(self._bucket)
        function = self._function
        if self._pool is None or self._joint is None:
            return Room(left, 0, expected_s, self._concurrency)
        load = self._joint.arrivals_per_s * self._pool.table.best[self._bucket].mean_s
        waiting = len(self._pool_queue.waiting)
        spare = spare_slots(self.replicas.slots, self._in_flight, waiting, load, self._caution)
        theirs = slots_for_jobs(spare, self.replicas.slots, self._alone)
        free = 0 if waiting else max(0, min(left, theirs - self._slots_of_jobs, self.replicas.free))
        if function is not None:
            expected_s = min(expected_s, function.service.best[self._bucket].mean_s)
        return Room(free, left - free, expected_s, self._concurrency)

    @property
    def _in_flight(self) -> int:
        """Requests on replicas, jobs left out."""
        return max(self.replicas.slots - self.replicas.free - self._slots_of_jobs, 0)

    @property
    def _alone(self) -> int:
        """Slots that requests would have without jobs."""
        replicas = self.replicas
        return min(self._joint.alone, replicas.ready) * replicas.capacity if self._joint else 0

    # -- jobs --------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Begin what may begin."""
        while self._coming and self._coming[0].at <= now:
            batch = self._coming.popleft()
            rows = deque(batch.jobs.rows(self.objective_s))
            if rows:
                self._open[f"{batch.at:.0f}"] = _Open(batch, rows)
        self._learn_caution(now)
        if self._open:
            lanes = [
                _Lane(name, len(one.rows), one.batch.due_at) for name, one in self._open.items()
            ]
            for grant in plan(lanes, self._room(now), {}, now):
                self._grant(grant, now)
            if self._nap is not None:
                self._end_nap(now)

    def _learn_caution(self, now: float) -> None:
        arrivals, delayed = self.signals.arrivals, self.sums.delayed
        before = self._seen
        self._seen = arrivals, delayed
        seen = self._caution.seen(self._in_flight, now)
        self._caution = seen.learned(arrivals - before[0], delayed - before[1])

    def _grant(self, grant: Grant, now: float) -> None:
        open_ = self._open[grant.lane]
        for _ in range(min(grant.count, len(open_.rows))):
            if not self._begin(open_, now, is_forced=grant.is_forced):
                break
        if not open_.rows:
            del self._open[grant.lane]

    def _begin(self, open_: _Open, now: float, *, is_forced: bool) -> bool:
        """Begin a job; False if it has to wait for a slot."""
        row, due_at = open_.rows[0], open_.batch.due_at
        if self.replicas.free > 0 and not self._pool_queue.waiting:
            slot, ends = self.replicas.take(now, row[5])
            self._slots_of_jobs += 1
            self._push(ends, _JOB_DONE, slot, ends - now)
            self.sums.in_pool += 1
            self.sums.work_s += ends - now
        elif not is_forced or not self._call_job(row, due_at, now):
            return False
        else:
            ends = now
        open_.rows.popleft()
        self._running += 1
        self._ended(ends, due_at)
        return True

    def _call_job(self, row: Row, due_at: float, now: float) -> bool:
        """Call the function for a job, if the policy sends it there now."""
        function, platform = self._function, self._platform
        if function is None or function.in_flight >= function.limit.current:
            return False
        row = (now, row[1], WISH_SERVERLESS, *row[3:])
        decided = self._decided(Waiter(-1, row, 0, due_at), now, {})
        if decided is None or decided[0] is Backend.POOL:
            return False
        called = self._call(now, row)
        if called is None or platform is None:
            return False
        took_s, bits = called
        cold_s = row[8] if bits & WAS_COLD else 0.0
        world = self._world_function
        assert world is not None  # noqa: S101  it has a platform
        self.sums.calls_usd += world.usd_per_request + float(
            world.compute_usd(np.array([row[6] + cold_s]))[0]
        )
        self.sums.called += 1
        self._push(now + took_s, _JOB_CALLED)
        self._ended(now + took_s, due_at, counts=False)
        return True

    def _ended(self, ends: float, due_at: float, *, counts: bool = True) -> None:
        self.sums.jobs += counts
        self.sums.late += ends > due_at
        self.sums.last_s = max(self.sums.last_s, ends)

    # -- events ------------------------------------------------------------------------------------

    def _seldom(self, now: float, kind: int, number: int, first: float) -> None:
        if kind == _JOB_LOOK:
            self._look(now)
            if self._open:
                self._push(now + LOOK_EVERY_S, _JOB_LOOK)
            elif self._coming:
                self._push(self._coming[0].at, _JOB_LOOK)
        elif kind == _JOB_DONE:
            assert self._pool is not None  # noqa: S101
            self.replicas.release(number, now)
            self._slots_of_jobs -= 1
            self._running -= 1
            self._pump_pool(now)
            self._look(now)
        elif kind == _JOB_CALLED:
            self._running -= 1
            self._look(now)
        else:
            super()._seldom(now, kind, number, first)

    def _hold(self, waiter: Waiter, queue: Queue, now: float, patience_s: float = inf) -> Outcome:
        if queue is self._pool_queue:
            self.sums.held += 1
            if self._slots_of_jobs and self._in_flight < self._alone:
                self.sums.delayed += 1
        return super()._hold(waiter, queue, now, patience_s)
