"""Adds up what became of one model's requests and replicas: counts, latencies, dollars, violations.

Sums only, in bounded memory, so that models can be added to a total. Prices come from the world.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from router.policy.steering import Slo
from router.replay.distributions import Floats, Ints
from router.replay.machine import CUT, HELD, ON_SERVERLESS, REFUSED, SPILLED, WAS_COLD, Late
from router.replay.simulator import Results
from router.replay.workload import Block, ModelSetup
from router.replay.world import ModelWorld

_LOWEST_S = 1e-5
_STEP = 0.005
"""Relative width of a latency bin: percentiles are exact to a quarter of a percent."""
_BINS = 5000
_TOLERANCE_S = 1e-9


@dataclass(slots=True)
class Sums:
    """What is added up; over models too. Money in USD."""

    requests: int = 0
    pool: int = 0
    serverless: int = 0
    cold: int = 0
    spilled: int = 0
    refused: int = 0
    violations: int = 0
    allowed_cold_late: int = 0
    throttled: int = 0
    replica_starts: int = 0
    warm_busy_usd: float = 0.0
    warm_idle_usd: float = 0.0
    compute_usd: float = 0.0
    init_usd: float = 0.0
    fees_usd: float = 0.0
    latencies: Ints = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    @property
    def cost_usd(self) -> float:
        """The whole bill."""
        return (
            self.warm_busy_usd + self.warm_idle_usd
            + self.compute_usd + self.init_usd + self.fees_usd
        )  # fmt: skip

    def add(self, other: "Sums") -> None:
        """Add another model's sums."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def percentile_s(self, percent: float) -> float | None:
        """A latency percentile of the answered requests, None if there were none."""
        answered = int(self.latencies.sum())
        if not answered:
            return None
        # A little less, so that rounding does not ask for one more than there are.
        reached = np.cumsum(self.latencies) >= answered * percent / 100 - 1e-6
        return float(_LOWEST_S * np.exp((int(np.argmax(reached)) + 0.5) * _STEP))


@dataclass(frozen=True, slots=True)
class Timeline:
    """Per interval: counts by time of arrival, mean replicas, USD."""

    arrivals: Ints
    replicas_ready: Floats
    replicas_billed: Floats
    pool_requests: Ints
    serverless_requests: Ints
    cold_starts: Ints
    violations: Ints
    cost_usd: Floats


@dataclass(frozen=True, slots=True)
class _Rows:
    """Requests whose outcome is known, as columns."""

    at: Floats
    latency_s: Floats
    bits: Ints
    service_s: Floats
    function_s: Floats
    cold_s: Floats
    has_deadline: npt.NDArray[np.bool_]


class Tally:
    """One model under one policy, from `since_s` on: what comes before that is not counted."""

    def __init__(
        self, setup: ModelSetup, horizon_s: float, interval_s: float, since_s: float = 0.0
    ) -> None:
        self.sums = Sums()
        self._since_s = since_s
        self._world: ModelWorld = setup.world
        self._slo: Slo = setup.runtime.policy.slo
        self._interval_s = interval_s
        self._horizon_s = horizon_s
        self._bins = max(1, round(horizon_s / interval_s))
        self._counts = {
            name: np.zeros(self._bins, np.int64)
            for name in ("arrivals", "pool", "serverless", "cold", "violations")
        }
        self._serverless_usd = np.zeros(self._bins)
        self._busy_s = 0.0

    def add(self, block: Block, results: Results) -> None:
        """Count a block, and the late outcomes that came with it.

        All of the block's requests come before `since_s`, or none.
        """
        if len(block) and block.at[0] < self._since_s:
            return
        self.sums.requests += len(block)
        self._count("arrivals", block.at)
        known = (results.bits & HELD) == 0
        self._settle(
            _Rows(
                block.at[known],
                results.latency_s[known],
                results.bits[known],
                block.service_s[known],
                block.function_s[known],
                block.cold_s[known],
                ~np.isnan(block.deadline_s[known]),
            )
        )
        self.add_late(results.late)

    def add_late(self, late: Sequence[Late]) -> None:
        """Count outcomes of requests that were held beyond their block."""
        late = [outcome for outcome in late if outcome.row[0] >= self._since_s]
        if not late:
            return
        rows = np.array([outcome.row for outcome in late])
        at, _, _, _, left_s, service_s, function_s, _, cold_s = rows.T
        self._settle(
            _Rows(
                at,
                np.array([outcome.latency_s for outcome in late]),
                np.array([outcome.bits for outcome in late], np.int64),
                service_s,
                function_s,
                cold_s,
                left_s != self._slo.latency_s,
            )
        )

    def _settle(self, rows: _Rows) -> None:
        sums, bits = self.sums, rows.bits
        refused = (bits & REFUSED) > 0
        serverless = ((bits & ON_SERVERLESS) > 0) & ~refused
        pool = ~serverless & ~refused
        cold = ((bits & WAS_COLD) > 0) & serverless
        cut = (bits & CUT) > 0
        late = (rows.latency_s > self._slo.latency_s + _TOLERANCE_S) & ~rows.has_deadline
        excused = late & cold & self._slo.cold_allowed
        violated = (late & ~excused) | refused | cut
        sums.pool += int(pool.sum())
        sums.serverless += int(serverless.sum())
        sums.cold += int(cold.sum())
        sums.refused += int(refused.sum())
        sums.spilled += int(((bits & SPILLED) > 0).sum())
        sums.violations += int(violated.sum())
        sums.allowed_cold_late += int(excused.sum())
        self._busy_s += float(rows.service_s[pool].sum()) / self._world.throughput
        self._bill(rows, serverless, cold)
        self._measure(rows.latency_s[~refused & ~cut])
        for name, chosen in (
            ("pool", pool), ("serverless", serverless), ("cold", cold), ("violations", violated)
        ):  # fmt: skip
            self._count(name, rows.at[chosen])

    def _bill(
        self, rows: _Rows, serverless: npt.NDArray[np.bool_], cold: npt.NDArray[np.bool_]
    ) -> None:
        function = self._world.function
        if function is None:
            return
        called = int(serverless.sum())
        warm_s = rows.function_s[serverless]
        cold_s = np.where(cold, rows.cold_s, 0.0)[serverless]
        compute = function.compute_usd(warm_s)
        init = function.compute_usd(warm_s + cold_s) - compute
        self.sums.fees_usd += called * function.usd_per_request
        self.sums.compute_usd += float(compute.sum())
        self.sums.init_usd += float(init.sum())
        self._serverless_usd += np.bincount(
            self._bin(rows.at[serverless]),
            weights=compute + init + function.usd_per_request,
            minlength=self._bins,
        )

    def _measure(self, latency_s: Floats) -> None:
        places = np.log(np.maximum(latency_s, _LOWEST_S) / _LOWEST_S) / _STEP
        bins = np.minimum(places.astype(np.int64), _BINS - 1)
        self.sums.latencies += np.bincount(bins, minlength=_BINS)

    def _count(self, name: str, at: Floats) -> None:
        self._counts[name] += np.bincount(self._bin(at), minlength=self._bins)

    def _bin(self, at: Floats) -> Ints:
        bins = ((at - self._since_s) / self._interval_s).astype(np.int64)
        counted: Ints = np.minimum(bins, self._bins - 1)
        return counted

    @property
    def busy_s(self) -> float:
        """Replica-seconds of work that was done in the pool."""
        return self._busy_s

    def add_work_of(self, others: Iterable["Tally"]) -> None:
        """Count as work of these replicas what models did on them that are counted elsewhere."""
        self._busy_s += sum(other.busy_s for other in others)

    def close(self, paid: Floats, throttled: int) -> Timeline:
        """Add what replicas cost, given a row (launched, ready, unready, paid until) for each."""
        paid = paid - self._since_s
        launched, ready, unready, until = np.clip(paid, 0.0, self._horizon_s).T
        billed_s = self._seconds(launched, until)
        usd_per_s = self._world.replica_usd_per_s
        total_s = float((until - launched).sum())
        busy_s = min(self._busy_s, total_s)
        self.sums.warm_busy_usd += busy_s * usd_per_s
        self.sums.warm_idle_usd += (total_s - busy_s) * usd_per_s
        began = (paid[:, 0] < self._horizon_s) & (paid[:, 0] >= 0)
        self.sums.replica_starts += int(began.sum())
        self.sums.throttled += throttled
        return Timeline(
            arrivals=self._counts["arrivals"],
            replicas_ready=self._seconds(ready, np.maximum(unready, ready)) / self._interval_s,
            replicas_billed=billed_s / self._interval_s,
            pool_requests=self._counts["pool"],
            serverless_requests=self._counts["serverless"],
            cold_starts=self._counts["cold"],
            violations=self._counts["violations"],
            cost_usd=self._serverless_usd + billed_s * usd_per_s,
        )

    def _seconds(self, starts: Floats, ends: Floats) -> Floats:
        """How many replica-seconds between `starts` and `ends` fall into each interval."""
        edges: Floats = np.arange(self._bins + 1, dtype=np.float64) * self._interval_s
        return np.diff(_seconds_before(edges, starts) - _seconds_before(edges, ends))


def _seconds_before(edges: Floats, times: Floats) -> Floats:
    """For each edge, the seconds since those of `times` that lie before it, added up."""
    ordered = np.sort(times)
    before = np.searchsorted(ordered, edges)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    seconds: Floats = before * edges - sums[before]
    return seconds
