"""The cheapest bill in hindsight for requests and jobs together.

As `optimum` for the requests; the jobs are an amount of work that is due by the end of a window,
and may run at any time in it, on what replicas have idle or on the function. With a price for each
second of that work, a replica's idle time has a value of its own, so that levels are independent
once more and `optimum`'s programme solves them exactly. Any price gives a lower bound on the joint
bill (Lagrangian duality), and the best price gives the highest: that of the linear relaxation.

The price cannot be above the function's, nor above what a replica costs that is started for jobs
alone and does nothing else for all of the window: so replicas beyond those that requests could ever
use need not be looked at. Several windows share one price, which makes the bound lower if anything.
"""

from collections.abc import Iterator, Sequence
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np

from router.replay.demand import DemandSeries, FloatArray
from router.replay.optimum import LevelParams, Programme

_STEPS = 24
_RATIO = (sqrt(5.0) - 1.0) / 2.0


class Deferred(NamedTuple):
    """Work, in seconds of a whole replica, that may be done from `at` until `due_at` (seconds).

    It would cost `usd` on the function.
    """

    at: float
    due_at: float
    work: float
    usd: float


def optimum_together(
    demand: DemandSeries, deferred: Sequence[Deferred], params: LevelParams, max_levels: int
) -> float:
    """A lower bound in USD on what any policy pays for both.

    Loads are constant in their bins, replicas are full at a load of 1 (`mu`), starts take
    `startup_s` and cost that long; minimum billing beyond is left out. Captive work is not allowed.
    Raises ValueError where it is.
    """
    if demand.captive_load is not None:
        raise ValueError("captive work has no price that jobs could be compared with")
    dual = _Dual(demand, deferred, params, max_levels)
    low, high = 0.0, dual.most_usd
    inner = [high - _RATIO * (high - low), low + _RATIO * (high - low)]
    found = [dual.value(price) for price in inner]
    best = max(*found, dual.value(low), dual.value(high))
    for _ in range(_STEPS):  # golden section: the dual is concave
        if found[0] < found[1]:
            low, inner, found = inner[0], [inner[1], 0.0], [found[1], 0.0]
            inner[1] = low + _RATIO * (high - low)
            found[1] = dual.value(inner[1])
        else:
            high, inner, found = inner[1], [0.0, inner[0]], [0.0, found[0]]
            inner[0] = high - _RATIO * (high - low)
            found[0] = dual.value(inner[0])
        best = max(best, *found)
    return best


class _Dual:
    """What both cost at least if each second of the jobs' work is worth a price."""

    def __init__(
        self,
        demand: DemandSeries,
        deferred: Sequence[Deferred],
        params: LevelParams,
        max_levels: int,
    ) -> None:
        peak = float(demand.load.max(initial=0.0))
        self._levels = max(1, min(max_levels, ceil(peak / params.mu - 1e-9)))
        self._demand, self._params = demand, params
        self._work = sum(one.work for one in deferred)
        times = np.arange(len(demand)) * demand.dt
        # In how many windows each bin lies, as a share: an edge may cut it.
        self._open = np.zeros(len(demand))
        for one in deferred:
            inside = np.minimum(times + demand.dt, one.due_at) - np.maximum(times, one.at)
            self._open = np.maximum(self._open, np.clip(inside / demand.dt, 0.0, 1.0))
        rate = params.replica_usd_per_s
        windows_s = [one.due_at - one.at for one in deferred]
        started_usd = rate * (1 + params.startup_s / max(windows_s, default=1.0))
        function_usd = max((one.usd / one.work for one in deferred if one.work), default=0.0)
        self.most_usd = min(function_usd, started_usd)
        self._usd_per_work = np.divide(
            demand.serverless_usd_per_s, demand.load,
            out=np.zeros(len(demand)), where=demand.load > 0,
        )  # fmt: skip

    def value(self, price_usd: float) -> float:
        """The bound that a price gives."""
        params, dt = self._params, self._demand.dt
        programme = Programme(
            bins=len(self._demand),
            levels=self._levels,
            first=int(params.startup_s / dt + 1e-9),
            hold_usd=params.replica_usd_per_s * dt,
            start_usd=params.replica_usd_per_s * params.startup_s,
            is_warm=params.is_warm,
        )
        off_usd, _ = programme.solve(np.stack(list(self._rents(price_usd))))
        idle = self._levels * float(self._open.sum()) * dt - self._idle_taken()
        beyond = np.maximum(self._demand.load - params.mu * self._levels, 0.0)
        beyond_usd = float((self._usd_per_work * beyond).sum()) * dt
        return off_usd + beyond_usd - price_usd * idle + price_usd * self._work

    def _idle_taken(self) -> float:
        """Replica-seconds of open bins that requests take on the levels looked at."""
        carried = np.minimum(self._demand.load, self._params.mu * self._levels)
        return float((carried * self._open).sum()) * self._demand.dt

    def _rents(self, price_usd: float) -> Iterator[FloatArray]:
        """Per bin, what each level loses while it is off: its requests' bill, its idle time."""
        below, mu, dt = np.arange(self._levels, dtype=np.float64), self._params.mu, self._demand.dt
        for load, usd, is_open in zip(
            self._demand.load, self._usd_per_work, self._open, strict=True
        ):
            share = np.clip(load - below * mu, 0.0, mu)
            rents: FloatArray = (usd * share + price_usd * is_open * (1.0 - share)) * dt
            yield rents
