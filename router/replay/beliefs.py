"""What the simulated gateway believes of its two backends: the live estimates, looked up by bucket.

Holds the same state machines as the live backends. The tables only save the search for the nearest
bucket that has been seen.
"""

from collections import deque
from math import inf

from router.admission.limits import AimdLimit
from router.backends.pool.endpoints import PoolParams
from router.backends.serverless.function import FunctionParams
from router.domain.decision import Backend, Reason
from router.domain.snapshot import PoolSnapshot, ServerlessSnapshot
from router.policy.estimates import (
    DurationEstimate,
    FunctionTimes,
    ServiceTimes,
    WarmEnvironments,
    payload_bucket,
)
from router.policy.exploration import Exploration
from router.replay.replicas import Replicas
from router.replay.workload import Row

BUCKETS = payload_bucket(1 << 62) + 1


def bytes_of(bucket: int) -> int:
    """A payload size that falls into the bucket."""
    return (1 << bucket) >> 1


class Waiter:
    """A request that is not started at once: its number, its row, and what has been tried.

    `deadline` is absolute, or infinite; `give_up_at` says how long it waits where it waits now,
    `moves_on` that the other backend gets it then.
    """

    __slots__ = (
        "attempts", "deadline", "failed", "give_up_at", "index", "moves_on", "payload_bytes", "row",
    )  # fmt: skip

    def __init__(self, index: int, row: Row, payload_bytes: int, deadline: float) -> None:
        self.index = index
        self.row = row
        self.payload_bytes = payload_bytes
        self.deadline = deadline
        self.give_up_at = 0.0
        self.moves_on = False
        self.attempts = 0
        self.failed: dict[Backend, Reason] | None = None


class Queue:
    """Held requests of one backend, first come first served."""

    def __init__(self, max_requests: int, max_bytes: int, max_wait_s: float) -> None:
        self.waiting: deque[Waiter] = deque()
        self.queued_bytes = 0
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.max_wait_s = max_wait_s

    def has_room(self, payload_bytes: int) -> bool:
        """Whether one more of that size may wait."""
        return (
            len(self.waiting) < self.max_requests
            and self.queued_bytes + payload_bytes <= self.max_bytes
        )

    def join(self, waiter: Waiter, now: float, patience_s: float) -> None:
        """Wait at the end; after `patience_s` the other backend may have it."""
        gives_up_at, leaves_at = now + self.max_wait_s, now + patience_s
        gives_up_at = min(gives_up_at, waiter.deadline)
        if leaves_at < gives_up_at:
            waiter.moves_on, gives_up_at = True, leaves_at
        else:
            waiter.moves_on = False
        waiter.give_up_at = gives_up_at
        self.waiting.append(waiter)
        self.queued_bytes += waiter.payload_bytes

    def first(self) -> Waiter:
        """Take out the one that has waited longest."""
        waiter = self.waiting.popleft()
        self.queued_bytes -= waiter.payload_bytes
        return waiter

    def expired(self, now: float) -> list[Waiter]:
        """Take out all that give up."""
        gone = [waiter for waiter in self.waiting if waiter.give_up_at <= now]
        if len(gone) == len(self.waiting):
            self.waiting.clear()
            self.queued_bytes = 0
            return gone
        for waiter in gone:
            self.waiting.remove(waiter)
            self.queued_bytes -= waiter.payload_bytes
        return gone

    def next_give_up(self) -> float:
        """When the next one gives up; infinite if nobody waits."""
        return min([waiter.give_up_at for waiter in self.waiting]) if self.waiting else inf


class BucketTable:
    """For each bucket the estimate that answers for it now."""

    def __init__(self, times: ServiceTimes) -> None:
        self.times = times
        self.best: list[DurationEstimate] = []
        self._seen: list[DurationEstimate | None] = [None] * BUCKETS
        self._refresh()

    def observe(self, bucket: int, seconds: float) -> None:
        """Learn how long a request of that bucket took."""
        seen = self._seen[bucket]
        if seen is not None:
            seen.observe(seconds)
            return
        self.times.observe(bytes_of(bucket), seconds)
        self._seen[bucket] = self.times.estimate(bytes_of(bucket))
        self._refresh()

    def _refresh(self) -> None:
        # In place: whoever holds the list keeps seeing the present.
        self.best[:] = [self.times.estimate(bytes_of(bucket)) for bucket in range(BUCKETS)]


class PoolBelief:
    """Service times of the pool, and its queue's bounds."""

    def __init__(self, params: PoolParams) -> None:
        self.params = params
        self.table = BucketTable(ServiceTimes(params.service_time_s))
        self.exploration = Exploration()
        self.startup = DurationEstimate(params.startup_s)
        self.starting_since: float | None = None

    def snapshot(
        self, bucket: int, now: float, replicas: Replicas, queue: Queue, requests: int
    ) -> PoolSnapshot:
        """As `Pool.snapshot`."""
        params, service = self.params, self.table.best[bucket]
        return PoolSnapshot(
            enabled=params.enabled,
            can_start=params.can_start,
            ready=replicas.ready,
            wanted=replicas.wanted,
            slots=replicas.slots,
            # Whoever waits goes first.
            free_slots=0 if queue.waiting else replicas.free,
            queued=len(queue.waiting),
            queued_bytes=queue.queued_bytes,
            max_queued=queue.max_requests,
            max_queued_bytes=queue.max_bytes,
            expected_s=service.mean_s,
            upper_s=service.upper_s,
            ready_in_s=0.0 if replicas.ready else self.ready_in_s(now),
            signals_stale=False,
            may_try=self.exploration.is_due(bytes_of(bucket), service.count, requests, now),
        )

    def ready_in_s(self, now: float) -> float:
        """When the first starting replica takes traffic."""
        waited_s = now - self.starting_since if self.starting_since is not None else 0.0
        return max(self.startup.mean_s - waited_s, 0.0)


class FunctionSeen:
    """The function as the latency duty sees it at one moment: of a snapshot, only what is asked."""

    __slots__ = ("_belief", "_service", "p_cold")

    def __init__(self, belief: "FunctionBelief", bucket: int, now: float) -> None:
        self._belief = belief
        self._service = belief.service.best[bucket]
        # Asked in any case: it forgets the environments that are gone, which `cold_at` relies on.
        self.p_cold = belief.environments.p_cold(now)

    @property
    def enabled(self) -> bool:
        """Whether it may be called."""
        return self._belief.params.enabled

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return self._belief.in_flight

    @property
    def expected_s(self) -> float:
        """Mean time of a warm call."""
        return self._service.mean_s

    @property
    def upper_s(self) -> float:
        """High estimate of it."""
        return self._service.upper_s

    @property
    def is_learned(self) -> bool:
        """Whether enough calls were seen to judge their spread."""
        return self._service.is_learned

    @property
    def init_s(self) -> float:
        """What a cold start adds."""
        return self._belief.times.init.mean_s


class FunctionBelief:
    """Times, warmth and concurrency of the function."""

    def __init__(self, params: FunctionParams, max_payload_bytes: int) -> None:
        self.params = params
        self.times = FunctionTimes(params.service_time_s, params.cold_start_s)
        self.service = BucketTable(self.times.service)
        self.billed = BucketTable(self.times.billed)
        self.environments = WarmEnvironments(params.reclaim_s, params.max_concurrency)
        self.limit = AimdLimit(params.max_concurrency)
        self.exploration = Exploration()
        self.limits = params.limits._replace(max_payload_bytes=max_payload_bytes)
        self.in_flight = 0
        self.expected_usd: dict[int, float] = {}
        """By bucket what a request is expected to cost; holds until a call is learned from."""

    def learn(self, bucket: int, served_s: float, billed_s: float, cold_s: float | None) -> None:
        """What `Function` learns from a call that was answered; `cold_s` None: it was warm."""
        self.expected_usd.clear()
        if cold_s is None:
            self.service.observe(bucket, served_s)
        else:
            self.times.cold(bytes_of(bucket), served_s, cold_s)
        self.billed.observe(bucket, billed_s)

    def snapshot(self, bucket: int, now: float, queue: Queue, requests: int) -> ServerlessSnapshot:
        """As `Function.snapshot`; replays have no failures that would open the circuit."""
        params, service = self.params, self.service.best[bucket]
        return ServerlessSnapshot(
            enabled=params.enabled,
            breaker_open=False,
            in_flight=self.in_flight,
            max_concurrency=self.limit.current,
            queued=len(queue.waiting),
            queued_bytes=queue.queued_bytes,
            max_queued=queue.max_requests,
            max_queued_bytes=queue.max_bytes,
            limits=self.limits,
            expected_s=service.mean_s,
            upper_s=service.upper_s,
            is_learned=service.is_learned,
            is_untried=service.is_untried,
            may_try=self.exploration.is_due(bytes_of(bucket), service.count, requests, now),
            p_cold=self.environments.p_cold(now),
            init_s=self.times.init.mean_s,
            price_usd=self.price_usd(bucket),
            max_wait_s=queue.max_wait_s,
        )

    def price_usd(self, bucket: int) -> float:
        """What a warm call of that bucket is expected to cost."""
        return self.params.price_usd(self.billed.best[bucket].mean_s)
