"""Replicas, function calls and queues of one model under a virtual clock: what happens when.

Carries out what was decided for a request, lets the live estimates learn from how it went, and asks
the sizer at its times. Decides nothing itself.
"""

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection
from math import inf, nan
from typing import NamedTuple

from router.domain.decision import Backend
from router.policy.demand import breaks_objective, starting_since
from router.replay.beliefs import FunctionBelief, PoolBelief, Queue, Waiter, bytes_of
from router.replay.nap import Nap
from router.replay.platform import Platform
from router.replay.replicas import Replicas
from router.replay.sizers import Observed, Sizer
from router.replay.workload import ModelSetup, Row
from router.settings.functions import ServerlessSettings
from router.settings.pools import PoolSettings
from router.signals.memory import ModelSignals
from router.signals.snapshot import ModelTotals

IN_POOL, ON_SERVERLESS, WAS_COLD, SPILLED, HELD, REFUSED, CUT = 0, 1, 2, 4, 8, 16, 32
"""Bits of a result: where it ran, and what else happened. HELD: its outcome comes later. CUT: its
client's deadline ended it."""

Outcome = tuple[float, int]
"""Latency in seconds (NaN if unknown or none) and bits."""

WARM = -1.0
"""Stands for the cold start of a call that had none."""

# Events are (time, kind, slot or bucket or number of a waiter, and up to four numbers of the kind).
POOL_DONE, _POOL_CUT, FUNCTION_DONE, _FUNCTION_CUT, _ENVIRONMENT_DONE = range(5)
_READY, _POOL_GIVE_UP, _FUNCTION_GIVE_UP, _RETRY, _TICK, _CRASH, _LOST = range(5, 12)
Event = tuple[float, int, int, float, float, float, float]


class Late(NamedTuple):
    """The outcome of a held request of an earlier block."""

    row: Row
    latency_s: float
    bits: int


class Machine(ABC, Observed):
    """The moving parts; `may_overflow` False leaves the function out."""

    def __init__(
        self, setup: ModelSetup, sizer: Sizer | None, seed: int, *, may_overflow: bool
    ) -> None:
        runtime, world, settings = setup.runtime, setup.world, setup.runtime.settings
        self.signals = ModelSignals()
        self.busy_s = 0.0
        self.replicas = Replicas(world, settings.pool.concurrency if settings.pool else 1, seed)
        self._may_crash = world.crash_after_s is not None
        self._pool = PoolBelief(runtime.pool.params) if runtime.pool is not None else None
        self._pool_queue = _queue(settings.pool)
        # Whoever waits for a slot that comes free.
        self._contenders: Collection[object] = self._pool_queue.waiting
        self._platform: Platform | None = None
        self._function: FunctionBelief | None = None
        if runtime.serverless is not None and world.function is not None and may_overflow:
            self._platform = Platform(world.function)
            self._function = FunctionBelief(runtime.serverless.params, setup.max_payload_bytes)
        self._function_queue = _queue(settings.serverless)
        # The last event never comes, so that there always is a next one.
        self._events: list[Event] = [(inf, _TICK, 0, 0.0, 0.0, 0.0, WARM)]
        self._timers = {_POOL_GIVE_UP: inf, _FUNCTION_GIVE_UP: inf}
        # Requests that come back: after a pause, or once their replica has crashed.
        self._retrying: dict[int, Waiter] = {}
        self._told: deque[tuple[float, ModelTotals]] = deque([(-inf, ModelTotals())])
        self._delay_s = world.signals_delay_s
        # The present block: its first row's number, and what is known of its rows.
        self._first_row = 0
        self._latencies: list[float] = []
        self._bits: list[int] = []
        self._late: list[Late] = []
        self._sizer, self._next_tick = sizer, inf
        self._nap: Nap | None = None
        self._slo = runtime.policy.slo
        if sizer is not None:
            self._tick_at(0.0)

    @abstractmethod
    def _routed(self, waiter: Waiter, now: float) -> Outcome:
        """Decide where a request goes, and send or hold it there."""

    @abstractmethod
    def _refused_call(self, waiter: Waiter, now: float) -> Outcome:
        """The platform refused a call; what becomes of its request."""

    @abstractmethod
    def _gave_up(self, waiter: Waiter, now: float) -> Outcome:
        """A request has waited for as long as it may; what becomes of it."""

    @abstractmethod
    def _lost(self, waiter: Waiter, now: float) -> Outcome:
        """A replica crashed with a request; what becomes of it."""

    def totals(self, now: float) -> ModelTotals:
        """The model's counters as sizing sees them now."""
        totals, told = self.signals.totals(), self._told
        if not self._delay_s:
            return totals
        told.append((now, totals))
        while told[1][0] <= now - self._delay_s:
            told.popleft()
        return told[0][1]

    @property
    def queued(self) -> int:
        """Requests that wait for a replica."""
        return len(self._pool_queue.waiting)

    @property
    def ready(self) -> int:
        """Replicas that take requests."""
        return self.replicas.ready

    @property
    def wanted(self) -> int:
        """Replicas asked for last."""
        return self.replicas.wanted

    @property
    def startup_s(self) -> float:
        """How long a replica is believed to start."""
        return self._pool.startup.mean_s if self._pool is not None else 0.0

    @property
    def throttled(self) -> int:
        """Calls that the platform refused."""
        return self._platform.refused if self._platform is not None else 0

    # -- requests ----------------------------------------------------------------------------------

    def _in_pool(self, waiter: Waiter, now: float) -> Outcome:
        """Start on a replica with a free place."""
        at, bucket, _, _, _, service_s, _, _, _ = waiter.row
        slot, ends = self.replicas.take(now, service_s)
        if self._may_crash and (crash_at := self.replicas.crash_at(slot)) < min(
            ends, waiter.deadline
        ):
            self._retrying[waiter.index] = waiter
            self._push(crash_at, _LOST, waiter.index, crash_at - now)
            return nan, HELD
        if ends > waiter.deadline:
            self._push(waiter.deadline, _POOL_CUT, slot, waiter.deadline - now)
            return waiter.deadline - at, IN_POOL | CUT
        event = (ends, POOL_DONE, slot, bucket, ends - now, 0.0, WARM)
        heapq.heappush(self._events, event)
        return ends - at, IN_POOL

    def _called(self, waiter: Waiter, now: float) -> Outcome:
        """Start a call for a request that may have waited."""
        called = self._call(now, waiter.row, waiter.deadline)
        if called is None:
            return self._refused_call(waiter, now)
        return now - waiter.row[0] + called[0], called[1]

    def _call(self, now: float, row: Row, deadline: float = inf) -> Outcome | None:
        """Call the function; None if the platform refuses. The latency counts from now."""
        function, platform = self._function, self._platform
        assert function is not None and platform is not None  # noqa: S101, PT018
        _, bucket, _, _, _, _, function_s, overhead_s, cold_s = row
        expected_warm = function.environments.take(now)
        is_cold = platform.call(now)
        if is_cold is None:
            function.limit.refused(function.in_flight + 1)
            return None
        function.in_flight += 1
        took_s = function_s + overhead_s + (cold_s if is_cold else 0.0)
        bits = ON_SERVERLESS | WAS_COLD if is_cold else ON_SERVERLESS
        ends = now + took_s
        if ends > deadline:
            self._push(deadline, _FUNCTION_CUT)
            self._push(ends, _ENVIRONMENT_DONE)
            return deadline - now, bits | CUT
        if self._nap is not None and self._sizer is not None and self._sizer.has_duty:
            self._reconsider(now)
        paid_cold_s = cold_s if is_cold else WARM
        event = (ends, FUNCTION_DONE, bucket, expected_warm, took_s, function_s, paid_cold_s)
        heapq.heappush(self._events, event)
        return took_s, bits

    def _hold(self, waiter: Waiter, queue: Queue, now: float, patience_s: float = inf) -> Outcome:
        """Let it wait, as long as its queue, its deadline and its patience allow."""
        queue.join(waiter, now, patience_s)
        kind = _POOL_GIVE_UP if queue is self._pool_queue else _FUNCTION_GIVE_UP
        if waiter.give_up_at < self._timers[kind]:
            self._arm(kind, waiter.give_up_at)
        return nan, HELD

    def _retry_at(self, at: float, waiter: Waiter) -> Outcome:
        """Let it come back later."""
        self._retrying[waiter.index] = waiter
        self._push(at, _RETRY, waiter.index)
        return nan, HELD if self._function is None else HELD | ON_SERVERLESS

    def _settle(self, waiter: Waiter, outcome: Outcome) -> None:
        """Report a request that was held, unless it is held again."""
        latency_s, bits = outcome
        if bits & HELD:
            return
        place = waiter.index - self._first_row
        if place >= 0:
            self._latencies[place] = latency_s
            self._bits[place] = bits
        else:
            self._late.append(Late(waiter.row, latency_s, bits))

    # -- events ------------------------------------------------------------------------------------

    def _push(self, at: float, kind: int, number: int = 0, first: float = 0.0) -> None:
        heapq.heappush(self._events, (at, kind, number, first, 0.0, 0.0, WARM))

    def advance(self, until: float) -> None:
        """Let everything happen that is due by then; the next request comes later than that."""
        events, pop, happen = self._events, heapq.heappop, self._happen
        while events[0][0] <= until:
            happen(pop(events))

    def _happen(self, event: Event) -> None:
        """What an event does."""
        now, kind, number, first, second, third, fourth = event
        if kind == POOL_DONE:
            self.replicas.release(number, now)
            self.busy_s += second
            assert self._pool is not None  # noqa: S101
            self._pool.table.observe(int(first), second)
            if self._contenders:
                self._pump_pool(now)
        elif kind == FUNCTION_DONE:
            self._function_done(now, number, bool(first), (second, third, fourth))
        elif kind == _TICK:
            if now == self._next_tick:
                self._tick(now)
        elif kind == _READY:
            self._became_ready(now, number, first)
        else:
            self._seldom(now, kind, number, first)

    def _seldom(self, now: float, kind: int, number: int, first: float) -> None:
        if kind == _POOL_CUT:
            self.busy_s += first
            self.replicas.release(number, now)
            self._pump_pool(now)
        elif kind == _FUNCTION_CUT:
            self._end_call(now)
        elif kind == _ENVIRONMENT_DONE:
            assert self._platform is not None  # noqa: S101
            self._platform.ended(now)
        elif kind == _RETRY:
            waiter = self._retrying.pop(number)
            self._settle(waiter, self._routed(waiter, now))
        elif kind == _CRASH:
            successor = self.replicas.crashed(number, now, replaced=self._sizer is not None)
            if successor is not None:
                self._push(successor[0], _READY, successor[1], now)
        elif kind == _LOST:
            self.busy_s += first
            waiter = self._retrying.pop(number)
            self._settle(waiter, self._lost(waiter, now))
        elif now == self._timers[kind]:
            self._give_up(kind, now)

    def _explores(self, backend: Backend, bucket: int, now: float) -> None:
        """As `ModelRuntime.explores`."""
        requests = self.signals.arrivals
        if backend is Backend.POOL:
            assert self._pool is not None  # noqa: S101
            place, answers = self._pool.exploration, self._pool.table.best[bucket].count
        else:
            assert self._function is not None  # noqa: S101
            place, answers = self._function.exploration, self._function.service.best[bucket].count
        place.begun(bytes_of(bucket), answers, requests, now)

    def _became_ready(self, now: float, slot: int, launched: float) -> None:
        if self.replicas.became_ready(slot, launched, now):
            assert self._pool is not None  # noqa: S101
            self._pool.startup.observe(now - launched)
            self._pool.exploration.renewed()
            if (crash_at := self.replicas.crash_at(slot)) < inf:
                self._push(crash_at, _CRASH, slot)
            self._pump_pool(now)

    def _function_done(
        self, now: float, bucket: int, expected_warm: bool, times: tuple[float, float, float]
    ) -> None:
        function, platform = self._function, self._platform
        assert function is not None and platform is not None  # noqa: S101, PT018
        served_s, billed_s, cold_s = times
        is_cold = cold_s >= 0.0
        platform.ended(now)
        function.limit.succeeded()
        function.environments.give_back(now, expected_warm=expected_warm, was_cold=is_cold)
        function.learn(bucket, served_s, billed_s, cold_s if is_cold else None)
        self._end_call(now)
        if self._nap is not None:
            self._reconsider(now)

    def _end_call(self, now: float) -> None:
        function, queue = self._function, self._function_queue
        assert function is not None  # noqa: S101
        function.in_flight -= 1
        while queue.waiting and function.in_flight < function.limit.current:
            waiter = queue.first()
            self._settle(waiter, self._called(waiter, now))

    def _pump_pool(self, now: float) -> None:
        """Whoever has waited longest gets a slot that came free."""
        while self._pool_queue.waiting and self.replicas.free > 0:
            waiter = self._pool_queue.first()
            self._settle(waiter, self._in_pool(waiter, now))

    def _arm(self, kind: int, at: float) -> None:
        """Look at a queue's patience at that time, if not earlier."""
        if at < self._timers[kind]:
            self._timers[kind] = at
            self._push(at, kind)

    def _give_up(self, kind: int, now: float) -> None:
        queue = self._pool_queue if kind == _POOL_GIVE_UP else self._function_queue
        for waiter in queue.expired(now):
            self._settle(waiter, self._gave_up(waiter, now))
        self._timers[kind] = inf
        self._arm(kind, queue.next_give_up())

    # -- sizing ------------------------------------------------------------------------------------

    def _tick_at(self, at: float) -> None:
        if self._sizer is not None:
            self._next_tick = at
            if at < inf:
                self._push(at, _TICK)

    def _tick(self, now: float) -> None:
        if self._nap is not None:
            self._end_nap(now)
            return
        sizer, pool, replicas = self._sizer, self._pool, self.replicas
        assert sizer is not None  # noqa: S101
        wanted = sizer.wanted(self, now)
        if pool is not None:
            pool.starting_since = starting_since(
                pool.starting_since, replicas.wanted, wanted, replicas.ready, now
            )
        if wanted != replicas.wanted:
            for ready_at, slot in replicas.want(wanted, now):
                self._push(ready_at, _READY, slot, now)
        calm_usd = sizer.calm_usd
        # What sizing has not yet been told of makes no time a quiet one.
        if calm_usd is None or self._delay_s:
            self._tick_at(sizer.next_step(now))
            return
        self._nap = Nap(sizer, calm_usd, sizer.window_began, now)
        self._tick_when_cold()

    def _end_nap(self, now: float) -> None:
        """Sizing has to be asked again from the next step on."""
        assert self._nap is not None  # noqa: S101
        self._tick_at(self._nap.end(now))
        self._nap = None

    def _reconsider(self, now: float) -> None:
        """A call began or ended: is a replica to be kept from now on, or no longer?"""
        assert self._sizer is not None  # noqa: S101
        if breaks_objective(self._slo, self.function(now)) != self._sizer.has_duty:
            self._end_nap(now)
        elif self._next_tick == inf:
            self._tick_when_cold()

    def _tick_when_cold(self) -> None:
        """A function that gets cold may break the objective from then on."""
        assert self._sizer is not None  # noqa: S101
        if not (self._sizer.has_duty or self._slo.cold_allowed) and self._function is not None:
            self._tick_at(self._function.environments.cold_at)

    def _stop_sizing(self) -> None:
        self._sizer, self._next_tick, self._nap = None, inf, None


def _queue(backend: PoolSettings | ServerlessSettings | None) -> Queue:
    if backend is None:
        return Queue(0, 0, 0.0)
    return Queue(backend.queue.max_requests, backend.queue.max_bytes, backend.queue.max_wait_s)
