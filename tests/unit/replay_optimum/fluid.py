"""Runs a sizing rule over a demand series and prices it, without simulating single requests.

For tests of cost, with the rule that `serve` runs. Work is a fluid: queues, cold
starts and violations do not show, so it never says what a policy does to latency.
"""

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple, Protocol

from router.policy.sizing import Demand, Level, SizingParams, size
from router.replay.baselines import Baseline, Tick
from router.replay.demand import DemandSeries


class Facts(NamedTuple):
    """What was seen in the `dt` seconds before `now`."""

    now: float
    dt: float
    demand: Demand
    busy_ratio: float
    ready: int
    wanted: int


class Sizer(Protocol):
    """Says at the start of each bin how many replicas it wants. Called in order of time."""

    overflow: bool

    def wanted(self, facts: Facts) -> int:
        """Replicas wanted from `facts.now` on."""
        ...


class FluidBill(NamedTuple):
    """What a series has cost in USD, and how many replicas were started."""

    warm_usd: float
    serverless_usd: float
    starts: int

    @property
    def total_usd(self) -> float:
        """Warm and serverless."""
        return self.warm_usd + self.serverless_usd


class LevelSizer:
    """The rent-or-buy rule behind the controller's averaging window."""

    overflow = True

    def __init__(self, params: SizingParams, window_s: float = 10.0) -> None:
        self._params = params
        self._window_s = window_s
        self._seen: deque[Facts] = deque()
        self._levels: tuple[Level, ...] = ()

    def wanted(self, facts: Facts) -> int:
        """Advance the rule by one bin."""
        self._seen.append(facts)
        while self._seen[0].now <= facts.now - self._window_s:
            self._seen.popleft()
        sizing = size(self._params, self._levels, self._averaged(), facts.dt, facts.now)
        self._levels = sizing.levels
        return sizing.wanted

    def _averaged(self) -> Demand:
        seconds = sum(facts.dt for facts in self._seen)
        if seconds <= 0:
            return Demand(0.0, 0.0)
        return Demand(
            load=sum(facts.demand.load * facts.dt for facts in self._seen) / seconds,
            serverless_usd_per_s=sum(
                facts.demand.serverless_usd_per_s * facts.dt for facts in self._seen
            )
            / seconds,
            captive_load=sum(facts.demand.captive_load * facts.dt for facts in self._seen)
            / seconds,
            held=self._seen[-1].demand.held,
        )


class BaselineSizer:
    """A baseline at its own interval."""

    def __init__(self, baseline: Baseline) -> None:
        self.overflow = baseline.overflow
        self._baseline = baseline
        self._wanted: int | None = None
        self._seconds = self._work_s = self._busy_s = 0.0

    def wanted(self, facts: Facts) -> int:
        """The baseline's answer, asked again once its interval has passed."""
        self._seconds += facts.dt
        self._work_s += facts.demand.load * facts.dt
        self._busy_s += facts.busy_ratio * facts.dt
        if self._wanted is None or self._seconds >= self._baseline.interval_s:
            self._wanted = self._baseline.wanted(self._tick(facts))
            self._seconds = self._work_s = self._busy_s = 0.0
        return self._wanted

    def _tick(self, facts: Facts) -> Tick:
        busy = self._busy_s / self._seconds if self._seconds else 0.0
        return Tick(facts.now, self._seconds, 0, self._work_s, busy, facts.ready, facts.wanted, 0)


@dataclass(slots=True)
class _Replicas:
    """Launch times, oldest first. The youngest is released first, as the process driver does."""

    params: SizingParams
    end_s: float
    launched_at: list[float] = field(default_factory=list)
    released_s: float = 0.0
    starts: int = 0

    def want(self, count: int, now: float) -> None:
        while len(self.launched_at) < count:
            self.launched_at.append(now)
            self.starts += 1
        while len(self.launched_at) > count:
            # What remains of the minimum is still paid, but nobody uses it.
            paid_until = min(self.launched_at.pop() + self.params.min_billing_s, self.end_s)
            self.released_s += max(paid_until - now, 0.0)

    def ready_s(self, now: float, dt: float) -> float:
        """Replica-seconds that can work in the next bin."""
        ready_at = [at + self.params.startup_s for at in self.launched_at]
        return sum(min(max(now + dt - at, 0.0), dt) for at in ready_at)

    def ready(self, now: float) -> int:
        return sum(at + self.params.startup_s <= now for at in self.launched_at)


class _Carried(NamedTuple):
    by_pool_s: float
    by_serverless_s: float


@dataclass(slots=True)
class _Backlog:
    """Work that waits for a replica, in replica-seconds; captive work waits as long as it takes."""

    wait_s: float
    free_s: float = 0.0
    captive_s: float = 0.0

    def carry(self, free_s: float, captive_s: float, ready_s: float, dt: float) -> _Carried:
        """One bin: the pool takes captive work first; free work that waits too long leaves."""
        self.captive_s += captive_s
        self.free_s += free_s
        captive = min(self.captive_s, ready_s)
        free = min(self.free_s, ready_s - captive)
        self.captive_s -= captive
        self.free_s -= free
        may_wait_s = self.wait_s * ready_s / dt if self.wait_s < inf else inf
        leaves = max(self.free_s - may_wait_s, 0.0)
        self.free_s -= leaves
        return _Carried(captive + free, leaves)


def run(series: DemandSeries, params: SizingParams, sizer: Sizer, wait_s: float = 0.0) -> FluidBill:
    """The bill of a sizing rule that starts without replicas and sees a bin once it is over.

    Free work waits up to `wait_s` for a replica, then goes to serverless; without overflow it waits
    on. Replicas that still run at the end are paid until then.
    """
    replicas = _Replicas(params, len(series) * series.dt)
    backlog = _Backlog(wait_s if sizer.overflow else inf)
    dt = series.dt
    warm_s = serverless_usd = busy_ratio = usd_per_work = 0.0
    demand = Demand(0.0, 0.0)
    captives = series.captive_load.tolist() if series.captive_load is not None else []
    for t, (load, usd_per_s) in enumerate(
        zip(series.load.tolist(), series.serverless_usd_per_s.tolist(), strict=True)
    ):
        now = t * dt
        facts = Facts(
            now,
            dt if t else 0.0,
            demand,
            busy_ratio,
            replicas.ready(now),
            len(replicas.launched_at),
        )
        replicas.want(sizer.wanted(facts), now)
        captive = captives[t] if captives else 0.0
        ready_s = replicas.ready_s(now, dt)
        carried = backlog.carry((load - captive) * dt, captive * dt, ready_s, dt)
        if load > captive:
            usd_per_work = usd_per_s / (load - captive)
        serverless_usd += carried.by_serverless_s * usd_per_work
        warm_s += len(replicas.launched_at) * dt
        busy_ratio = carried.by_pool_s / ready_s if ready_s > 0 else 0.0
        demand = Demand(load, usd_per_s, captive, held=int(backlog.captive_s > 0 and not ready_s))
    warm_s += replicas.released_s
    return FluidBill(warm_s * params.replica_usd_per_s, serverless_usd, replicas.starts)
