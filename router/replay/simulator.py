"""One model under one policy: where each request goes, and what came of it.

Drives the live policy under a virtual clock: `decide` with its estimates for every request. The
common decisions are taken by shortcuts that are tested to equal `decide`.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isnan, nan, nextafter, sqrt
from random import Random

import numpy as np

from router.domain.decision import Backend, Reason
from router.domain.errors import AttemptError, ResponseLostError, RouterError, UpstreamRejectedError
from router.domain.request import AnswerForm, InferenceRequest, Protocol
from router.domain.snapshot import PoolSnapshot, ServerlessSnapshot
from router.policy.decide import ModelPolicy, State, decide
from router.policy.demand import USUAL_PAYLOAD_BYTES
from router.policy.estimates import DurationEstimate, believed_s, payload_bucket
from router.policy.recovery import Failure, Final, Step, what_follows
from router.policy.rules import Match, Route, Rule
from router.policy.steering import BEGUN, SPARE
from router.replay.beliefs import BUCKETS, FunctionSeen, Waiter, bytes_of
from router.replay.distributions import Floats, Ints
from router.replay.machine import (
    CUT,
    HELD,
    IN_POOL,
    ON_SERVERLESS,
    POOL_DONE,
    REFUSED,
    SPILLED,
    WARM,
    Late,
    Machine,
    Outcome,
)
from router.replay.sizers import Sizer
from router.replay.workload import WISH_NONE, WISH_POOL, WISH_SERVERLESS, Block, ModelSetup, Row

_BACKENDS = {WISH_NONE: None, WISH_POOL: Backend.POOL, WISH_SERVERLESS: Backend.SERVERLESS}
_SPILL_REASONS = frozenset({Reason.SPILLOVER, Reason.DEADLINE})
_NOT_TRIED: dict[Backend, Reason] = {}
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.05, 1.0
_AT_ONCE = 0, inf
_LAST = nextafter(inf, 0.0)
_USUAL_BUCKET = payload_bucket(USUAL_PAYLOAD_BYTES)
_NO_TIMES = [DurationEstimate(0.0)] * BUCKETS


class _NoWire(Protocol):
    """Stands where requests have a wire protocol: those of a replay come over none."""

    name = "replay"
    answers = AnswerForm.TEXT

    def path(self, action: str, model: str, version: str | None) -> str:
        """Nothing is asked."""
        del action, model, version
        return ""

    def error_document(self, message: str, code: str, status: int) -> dict[str, object]:
        """Nobody is told."""
        del message, code, status
        return {}


_NO_WIRE = _NoWire()


@dataclass(frozen=True, slots=True)
class Results:
    """What became of a block's rows: seconds (NaN while held or refused) and bits.

    `late` are the outcomes of rows of earlier blocks that were held.
    """

    latency_s: Floats
    bits: Ints
    late: list[Late]


class Simulation(Machine):
    """A model's traffic through a gateway with one sizer (None: replicas are not used).

    `may_overflow` False leaves the function out: everything waits for replicas. `shortcuts` False
    asks `decide` for every request, to the same effect.
    """

    def __init__(
        self,
        setup: ModelSetup,
        sizer: Sizer | None,
        seed: int,
        *,
        may_overflow: bool = True,
        shortcuts: bool = True,
    ) -> None:
        super().__init__(setup, sizer, seed, may_overflow=may_overflow)
        self._name = setup.name
        self._max_attempts = setup.runtime.settings.attempts
        self._is_idempotent = setup.runtime.settings.idempotent
        self._policies = {
            wish: ModelPolicy((Rule("", Match(), Route(backend)),), self._slo)
            for wish, backend in _BACKENDS.items()
        }
        self._shortcuts = shortcuts and setup.world.crash_after_s is None
        self._budget, self._budget_used = setup.runtime.budget.as_new(), False
        self._jitter = Random(seed)  # noqa: S311  simulated pauses

    @property
    def objective_s(self) -> float:
        """The model's latency objective."""
        return self._slo.latency_s

    def function(self, now: float) -> FunctionSeen | None:
        """The function as it is believed to be, for a usual payload."""
        function = self._function
        return None if function is None else FunctionSeen(function, _USUAL_BUCKET, now)

    def believed_function(self, bucket: int, now: float) -> ServerlessSnapshot | None:
        """The function as the policy sees it, for a payload bucket; None without one."""
        function = self._function
        if function is None:
            return None
        return function.snapshot(bucket, now, self._function_queue, self.signals.arrivals)

    def believed_pool(self, bucket: int, now: float) -> PoolSnapshot | None:
        """The pool as the policy sees it, for a payload bucket; None without one."""
        pool = self._pool
        if pool is None:
            return None
        queue, requests = self._pool_queue, self.signals.arrivals
        return pool.snapshot(bucket, now, self.replicas, queue, requests)

    def run(self, block: Block) -> Results:
        """Take the block's requests, which come after all earlier ones."""
        for _ in self.running(block):
            pass
        return self.results(block)

    def running(self, block: Block) -> Iterator[float]:
        """As `run`, request by request: stops before each, and says when it comes."""
        self._latencies, self._bits = [], []
        return self._advance(block)

    def results(self, block: Block) -> Results:
        """What became of the block that was run last."""
        results = Results(np.array(self._latencies), np.array(self._bits, np.int64), self._late)
        self._late = []
        self._first_row += len(block)
        self._latencies, self._bits = [], []
        return results

    def finish(self, horizon: float) -> list[Late]:
        """Go on to the horizon, where sizing stops, and let what is under way end."""
        self.advance(horizon)
        self._stop_sizing()
        self.advance(_LAST)
        late, self._late = self._late, []
        return late

    def _advance(self, block: Block) -> Iterator[float]:
        """Route each row. One pass with few calls for most of them, because rows are millions."""
        latencies, bits = self._latencies, self._bits
        events, push = self._events, heapq.heappush
        replicas, waiting, signals = self.replicas, self._pool_queue.waiting, self.signals
        arrived, advance = signals.arrived, self.advance
        # Without a function no call is learned from, and it stays as it is.
        expected_usd = self._function.expected_usd if self._function is not None else {}
        pool_best = self._pool.table.best if self._pool is not None else _NO_TIMES
        shortcuts = self._shortcuts and bool(np.isnan(block.deadline_s).all())
        sizes = block.payload_bytes.tolist()
        for index, row in enumerate(block.rows(self._slo.latency_s)):
            at, bucket, wish, fits, left_s, service_s, _, _, _ = row
            yield at
            if events[0][0] <= at:
                advance(at)
            service = pool_best[bucket]
            usd = expected_usd.get(bucket) if fits else -1.0
            if usd is None:
                usd = expected_usd[bucket] = self._price_usd(bucket)
            work_s = service.mean_s if service.count else self._believed_s(bucket)
            arrived(work_s, usd if usd >= 0 else 0.0, usd < 0)
            if self._nap is not None and (self._nap.disturbs(at, signals.totals()) or usd < 0):
                self._end_nap(at)
            if self._budget_used:
                self._budget.deposit(at)
            elif shortcuts and not self._keeps_replica_by_prior(bucket):
                if (
                    replicas.free > 0
                    and not waiting
                    and wish != WISH_SERVERLESS
                    and (wish == WISH_POOL or service.upper_s <= left_s)
                ):
                    slot, ends = replicas.take(at, service_s)
                    push(events, (ends, POOL_DONE, slot, bucket, ends - at, 0.0, WARM))
                    latencies.append(ends - at)
                    bits.append(IN_POOL)
                    continue
                outcome = self._obvious(row, usd, sizes[index], index)
                if outcome is not None:
                    latencies.append(outcome[0])
                    bits.append(outcome[1])
                    continue
            outcome = self._routed(self._waiter(block, index, row), at)
            latencies.append(outcome[0])
            bits.append(outcome[1])

    def _believed_s(self, bucket: int) -> float:
        """As `ModelRuntime.believed_work_s`."""
        if self._pool is None:
            return 0.0
        function = self._function.times.service if self._function is not None else None
        return believed_s(self._pool.table.times, function, bytes_of(bucket))

    def _keeps_replica_by_prior(self, bucket: int) -> bool:
        """As `steering.keeps_replica_by_prior`."""
        if self._function is None:
            return False
        call = self._function.service.best[bucket]
        return call.count == 0 and call.mean_s > self._slo.latency_s

    def _price_usd(self, bucket: int) -> float:
        """Expected price of a call, negative if only the pool can carry such a request."""
        function = self._function
        if function is None or not function.params.enabled:
            return -1.0
        if function.service.best[bucket].mean_s > function.limits.timeout_s:
            return -1.0
        return function.price_usd(bucket)

    def _obvious(self, row: Row, usd: float, payload_bytes: int, index: int) -> Outcome | None:
        """What `_routed` would do, where little needs to be looked at; None: more is needed."""
        at, _, wish, _, _, _, _, _, _ = row
        function, pool = self._function, self._pool
        if function is None or usd < 0 or wish == WISH_POOL:
            return None
        if function.in_flight >= function.limit.current:
            return None
        steered: tuple[int, float] | None = _AT_ONCE
        if wish == WISH_NONE and pool is not None and pool.params.enabled:
            steered = self._steered(row, payload_bytes)
        if steered is None:
            return None
        bits, patience_s = steered
        if bits & HELD:
            waiter = Waiter(self._first_row + index, row, payload_bytes, inf)
            return self._hold(waiter, self._pool_queue, at, patience_s)
        called = self._call(at, row)
        if called is None:
            waiter = Waiter(self._first_row + index, row, payload_bytes, inf)
            return self._refused_call(waiter, at)
        return called[0], called[1] | bits

    def _steered(self, row: Row, payload_bytes: int) -> tuple[int, float] | None:
        """Bits of what a request does that may go to both, and its patience if it is held."""
        at, bucket, _, _, left_s, _, _, _, _ = row
        function, pool, queue = self._function, self._pool, self._pool_queue
        assert function is not None and pool is not None  # noqa: S101, PT018
        if not queue.has_room(payload_bytes):
            return None
        waiting = len(queue.waiting)
        if not self.replicas.ready:
            return _AT_ONCE
        if self.replicas.free > 0 and not waiting:
            return None
        service, slots = pool.table.best[bucket], self.replicas.slots
        call = function.service.best[bucket]
        upper_s = call.upper_s
        if not self._slo.cold_allowed:
            upper_s += function.environments.p_cold(at) * function.times.init.mean_s
        mean_s, high_s = service.mean_s, service.upper_s
        wait_s = (waiting + BEGUN) * mean_s / slots
        needed_s = upper_s + SPARE * (call.upper_s - call.mean_s)
        patience_s = left_s - (max(high_s, needed_s))
        if wait_s <= patience_s:
            return HELD, patience_s
        margin_s = (high_s - mean_s) * sqrt(1 + (waiting + 1) / slots**2)
        if wait_s + mean_s + margin_s <= left_s:
            return HELD, inf
        return (SPILLED, inf) if upper_s <= left_s else None

    # -- one request, with all that may happen to it -----------------------------------------------

    def _waiter(self, block: Block, index: int, row: Row) -> Waiter:
        deadline_s = float(block.deadline_s[index])
        deadline = inf if isnan(deadline_s) else row[0] + deadline_s
        return Waiter(self._first_row + index, row, int(block.payload_bytes[index]), deadline)

    def _routed(self, waiter: Waiter, now: float) -> Outcome:
        """Do what the policy says: the outcome, or HELD."""
        decided = self._decided(waiter, now, waiter.failed or _NOT_TRIED)
        if decided is None and waiter.failed:
            # No other way: the backend that refused is better than no answer.
            decided = self._decided(waiter, now, _NOT_TRIED)
        if decided is None:
            return nan, REFUSED
        backend, explores, spilled, patience_s = decided
        if explores:
            self._explores(backend, waiter.row[1], now)
        if backend is Backend.POOL:
            if self.replicas.free > 0 and not self._pool_queue.waiting:
                return self._in_pool(waiter, now)
            if not self.replicas.wanted:
                if self._nap is not None:
                    self._end_nap(now)
                self._tick_at(now)
            return self._hold(waiter, self._pool_queue, now, patience_s)
        function = self._function
        assert function is not None  # noqa: S101  the policy only chooses what exists
        if self._function_queue.waiting or function.in_flight >= function.limit.current:
            latency_s, bits = self._hold(waiter, self._function_queue, now)
            return latency_s, bits | ON_SERVERLESS
        latency_s, bits = self._called(waiter, now)
        return latency_s, bits if bits & HELD else bits | spilled

    def _request(self, waiter: Waiter) -> InferenceRequest:
        return InferenceRequest(
            request_id="",
            protocol=_NO_WIRE,
            model=self._name,
            method="POST",
            action="infer",
            path="",
            payload_bytes=waiter.payload_bytes,
            received_at=waiter.row[0],
            deadline=None if waiter.deadline == inf else waiter.deadline,
            is_idempotent=self._is_idempotent,
        )

    def _decided(
        self, waiter: Waiter, now: float, failed: dict[Backend, Reason]
    ) -> tuple[Backend, bool, int, float] | None:
        _, bucket, wish, _, _, _, _, _, _ = waiter.row
        state = State(self.believed_function(bucket, now), self.believed_pool(bucket, now), failed)
        try:
            decision = decide(self._request(waiter), self._policies[wish], state, now)
        except RouterError:
            return None
        crowded = decision.reason in _SPILL_REASONS and decision.backend is Backend.SERVERLESS
        explores = decision.reason is Reason.EXPLORE
        return decision.backend, explores, SPILLED if crowded else 0, decision.patience_s

    def _gave_up(self, waiter: Waiter, now: float) -> Outcome:
        if not waiter.moves_on:
            return nan, REFUSED | CUT if now >= waiter.deadline else REFUSED
        waiter.failed = {**(waiter.failed or {}), Backend.POOL: Reason.SPILLOVER}
        return self._routed(waiter, now)

    def _refused_call(self, waiter: Waiter, now: float) -> Outcome:
        error = UpstreamRejectedError("the platform refuses the call")
        return self._failed(waiter, now, Backend.SERVERLESS, error, has_siblings=False)

    def _lost(self, waiter: Waiter, now: float) -> Outcome:
        error = ResponseLostError("the replica crashed")
        has_siblings = self.replicas.ready > 0
        return self._failed(waiter, now, Backend.POOL, error, has_siblings=has_siblings)

    def _failed(
        self,
        waiter: Waiter,
        now: float,
        backend: Backend,
        error: AttemptError,
        *,
        has_siblings: bool,
    ) -> Outcome:
        """Do what follows a failed attempt."""
        waiter.attempts += 1
        failed = waiter.failed or {}
        other = self._function if backend is Backend.POOL else self._pool
        failure = Failure(
            error=error,
            backend=backend,
            tries=waiter.attempts,
            attempts=self._max_attempts,
            can_resend=True,
            has_budget=self._budget.tokens >= 1.0,
            has_siblings=has_siblings,
            is_only_backend=other is None,
            failed_before=backend in failed,
        )
        recovery = what_follows(failure, self._request(waiter), now)
        if recovery.costs_retry or recovery.final is Final.NO_BUDGET:
            self._withdraw(now)
        if recovery.step is Step.ANSWER:
            return nan, REFUSED
        if recovery.step is Step.ELSEWHERE:
            waiter.failed = {**failed, backend: recovery.reason}
        return self._after_pause(waiter, now) if recovery.pauses else self._routed(waiter, now)

    def _withdraw(self, now: float) -> None:
        if not self._budget_used:
            # A full budget stays full, so deposits count from the first withdrawal on.
            self._budget_used = True
            self._budget.deposit(now)
        self._budget.withdraw()

    def _after_pause(self, waiter: Waiter, now: float) -> Outcome:
        longest_s = min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2**waiter.attempts)
        return self._retry_at(now + self._jitter.uniform(0.0, longest_s), waiter)
