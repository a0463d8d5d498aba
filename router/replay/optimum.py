"""The cheapest bill anybody could have reached who knew all demand in advance.

An exact dynamic programme over bins of time for each level of one replica (level k carries
`clip(load - (k-1) mu, 0, mu)`), all levels at once, linear in bins. Decides nothing online.

Why no policy can be cheaper where loads are constant in their bins and `mu = 1` (packed fully):

* n ready replicas carry at most `min(load, n mu)`; the rest costs its share on serverless.
* Whoever knows the future launches `startup_s` before the replica is used, so that a start costs
  `replica_usd_per_s * startup_s` and delays nothing. (In a gap shorter than that a level could not
  be stopped and started again, but keeping it on is never dearer, so this needs no constraint.)
  Nothing is ready in the first `startup_s`.
* The bill is linear in each launch and release between bin edges, so some best schedule switches at
  bin edges only.
* Costs are convex in n and switching is counted per replica, so levels are independent: their
  optima add up to the joint optimum.

The last point fails where minimum billing outlasts the start-up: replicas may then take turns
(the oldest leaves first), which levels cannot express. So the bound leaves out of the minimum what
outlasts the start-up, and the schedule is the better of two found with and without it, priced with
the oldest leaving first. Both agree wherever `min_billing_s <= startup_s`.

Loads that are averages of requests offer more: work may wait for the next bin, and replicas may be
there for the busy part of a bin only. What no policy can undercut then, request by request, is the
business of `limit`.

Conditions: a bin's requests cost alike per unit of work; replicas that still run at the end are
paid until the end. Durations that are no multiple of the bin are rounded down where that makes the
bill smaller. Captive work (serverless cannot carry it) has an infinite price there, so its levels
are on in every bin that has some. What no policy can carry when it arrives, in the first
`startup_s` or beyond the last level, is free.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from router.replay.demand import DemandSeries, FloatArray

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class LevelParams:
    """One replica: `mu` is the work it may do, in replica-seconds per second.

    A replica is paid from launch on, for at least `min_billing_s`, and ready after `startup_s`.
    If `is_warm`, as many as wanted are ready at the beginning, for which nothing was paid.
    Raises ValueError where a number is out of range.
    """

    mu: float
    replica_usd_per_s: float
    startup_s: float
    min_billing_s: float
    is_warm: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.mu <= 1:
            raise ValueError(f"mu = {self.mu}, must be above 0 and at most 1")
        for name in ("replica_usd_per_s", "startup_s", "min_billing_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} = {value}, must be finite and not negative")


class Optimum(NamedTuple):
    """`cost_usd` is the lower bound for loads that are constant in their bins, `schedule_usd` what
    the schedule costs.

    Per bin: `schedule` counts the replicas launched and billed, `ready` those that can work.
    """

    cost_usd: float
    schedule_usd: float
    schedule: IntArray
    ready: IntArray


def optimum(
    load: FloatArray,
    serverless_usd_per_s: FloatArray,
    dt: float,
    params: LevelParams,
    max_levels: int,
    captive_load: FloatArray | None = None,
) -> Optimum:
    """The lower bound and a schedule for a series of bins of `dt` seconds.

    `load` in replica-seconds per second, of which `captive_load` cannot go to serverless;
    `serverless_usd_per_s` what the rest costs there.
    Time and memory grow with bins x levels that the load reaches. Raises ValueError on bad input.
    """
    if max_levels < 0:
        raise ValueError(f"max_levels = {max_levels}, must not be negative")
    given = DemandSeries(dt, load, serverless_usd_per_s, captive_load)
    first = _bins(params.startup_s, dt)
    demand = _carried(given, params.mu * max_levels, first)
    start_usd = params.replica_usd_per_s * params.startup_s
    cost_usd, ready = _solve(demand, params, max_levels, 1, start_usd)
    schedule_usd = price(demand, params, ready)
    excess = _bins(params.min_billing_s - params.startup_s, dt)
    if excess > 1:
        _, locked = _solve(demand, params, max_levels, excess, start_usd)
        locked_usd = price(demand, params, locked)
        if locked_usd < schedule_usd:
            schedule_usd, ready = locked_usd, locked
    return Optimum(cost_usd, schedule_usd, _launched(ready, first), ready)


def price(demand: DemandSeries, params: LevelParams, ready: IntArray) -> float:
    """USD for having `ready` replicas in each bin: start-ups, minimum billing and serverless.

    The replica that has run longest is released first. Infinite where captive work has no replica.
    """
    captive = demand.captive_load
    if captive is not None and (captive > params.mu * ready + _ROUNDING).any():
        return float("inf")
    left = np.maximum(demand.load - params.mu * ready, 0.0)
    serverless_usd = float((_usd_per_work(demand) * left).sum()) * demand.dt
    return serverless_usd + params.replica_usd_per_s * _billed_s(ready, params, demand.dt)


def _usd_per_work(demand: DemandSeries) -> FloatArray:
    """Price of a replica-second on serverless per bin, of the work that may go there."""
    captive = demand.captive_load if demand.captive_load is not None else 0.0
    free = np.maximum(demand.load - captive, 0.0)
    return np.divide(
        demand.serverless_usd_per_s, free, out=np.zeros_like(free), where=free > _ROUNDING
    )


def _carried(demand: DemandSeries, capacity: float, first: int) -> DemandSeries:
    """The demand without the captive work that no replica can be there for."""
    if demand.captive_load is None:
        return demand
    captive = np.minimum(demand.captive_load, capacity)
    captive[:first] = 0.0
    load = np.maximum(demand.load - (demand.captive_load - captive), captive)
    return DemandSeries(demand.dt, load, demand.serverless_usd_per_s, captive)


def _billed_s(ready: IntArray, params: LevelParams, dt: float) -> float:
    """Replica-seconds paid when the oldest replica always leaves first."""
    change = np.diff(ready, prepend=0)
    bins = np.arange(len(ready))
    starts = np.repeat(bins, np.maximum(change, 0))
    stops = np.repeat(bins, np.maximum(-change, 0))
    at_end = np.full(len(starts) - len(stops), len(ready))
    lives_s = params.startup_s + (np.concatenate([stops, at_end]) - starts) * dt
    left_s = params.startup_s + (len(ready) - starts) * dt
    return float(np.maximum(lives_s, np.minimum(params.min_billing_s, left_s)).sum())


def _launched(ready: IntArray, first: int) -> IntArray:
    """Ready replicas and those that start: each rise was launched `first` bins before."""
    risen = np.cumsum(np.maximum(np.diff(ready, prepend=0), 0))
    last = len(ready) - 1
    launched = risen[np.minimum(np.arange(len(ready)) + first, last)] if last >= 0 else risen
    launched_and_ready: IntArray = ready + launched - risen
    return launched_and_ready


def _bins(seconds: float, dt: float) -> int:
    return max(0, int(seconds / dt + _ROUNDING))


class _Events(NamedTuple):
    """By bin and level: on was reached by a start that ends its lock here; off by a stop here."""

    started: BoolArray
    stopped: BoolArray


def _solve(
    demand: DemandSeries, params: LevelParams, max_levels: int, lock: int, start_usd: float
) -> tuple[float, IntArray]:
    """Cost and ready replicas per bin of the best schedule, a level on for `lock` bins or more.

    A start costs `start_usd` before the replica is ready.
    """
    peak = float(demand.load.max(initial=0.0))
    levels = min(max_levels, int(np.ceil(peak / params.mu - _ROUNDING)))
    programme = Programme(
        bins=len(demand),
        levels=levels,
        first=_bins(params.startup_s, demand.dt),
        hold_usd=params.replica_usd_per_s * demand.dt,
        start_usd=start_usd,
        lock=lock,
        is_warm=params.is_warm,
    )
    cost_usd, ready = programme.solve(_rents(demand, params.mu, levels))
    beyond = np.maximum(demand.load - params.mu * levels, 0.0)
    beyond_usd = float((_usd_per_work(demand) * beyond).sum()) * demand.dt
    return cost_usd + beyond_usd, ready


class Programme(NamedTuple):
    """The dynamic programme of all levels at once: what holding and starting one costs.

    No start is over before bin `first`; a level stays on for `lock` bins at least.
    """

    bins: int
    levels: int
    first: int
    hold_usd: float
    start_usd: float
    lock: int = 1
    is_warm: bool = False

    def solve(self, rents: FloatArray) -> tuple[float, IntArray]:
        """The lowest cost, and the levels that are on in each bin.

        `rents` has a row for each bin: what each level costs while it is off.
        """
        paying = np.array([self._may_pay(rents[:, level]) for level in range(self.levels)], bool)
        costs = np.zeros(self.levels)
        if not paying.all():
            # Running sums, which add up in the order of time as the programme does.
            costs[~paying] = np.cumsum(rents[:, ~paying], axis=0)[-1:].sum(axis=0)
        ready = np.zeros(self.bins, np.int64)
        if paying.any():
            costs[paying], ready = _switched(self, rents[:, paying])
        return float(costs.sum()), ready

    def _may_pay(self, rents: FloatArray) -> bool:
        """Whether being on could be cheaper for a level at any time; most levels of fleets cannot.

        It saves the most in the stretch of the largest sum of savings, for which a start is paid.
        """
        saved = np.cumsum(rents - self.hold_usd)
        if not np.isfinite(saved).all():
            return True
        since_start = saved - np.minimum(np.minimum.accumulate(saved), 0.0)
        if since_start.max(initial=0.0) >= self.start_usd * (1 - _ROUNDING):
            return True
        return self.is_warm and saved.max(initial=-np.inf) >= -_ROUNDING * self.hold_usd


def _switched(programme: Programme, rents: FloatArray) -> tuple[FloatArray, IntArray]:
    """The lowest cost of each level, and how many are on in each bin."""
    bins, levels, lock = programme.bins, rents.shape[1], programme.lock
    events = _Events(np.zeros((bins, levels), np.bool_), np.zeros((bins, levels), np.bool_))
    start_usd = programme.start_usd + lock * programme.hold_usd
    # Cheapest costs up to a time, ending off or on; a start looks back at its launch's off.
    off_before = deque([np.zeros(levels)], maxlen=lock)
    on = np.full(levels, 0.0 if programme.is_warm else np.inf)
    for t, rent_usd in enumerate(rents):
        off = off_before[-1]
        np.less(on, off, out=events.stopped[t])
        off_next = np.minimum(on, off) + rent_usd
        on = on + programme.hold_usd
        if t + 1 - lock >= programme.first:
            launched = off_before[0] + start_usd
            np.less(launched, on, out=events.started[t])
            on = np.minimum(on, launched)
        off_before.append(off_next)
    # A start that is still locked cannot reach back to before any replica is ready.
    ends = _ends(on, off_before, start_usd, programme.hold_usd)
    ends = ends[: 2 + max(bins - programme.first, 0)]
    ready = np.zeros(bins + 1, np.int64)
    for level, end in enumerate(ends.argmin(axis=0)):
        _trace_back(ready, events, level, int(end), lock)
    return ends.min(axis=0), np.cumsum(ready[:-1])


def _rents(demand: DemandSeries, mu: float, levels: int) -> FloatArray:
    """By bin and level, what its work costs on serverless; infinite where it cannot go there."""
    below = np.arange(levels, dtype=np.float64)
    filled = demand.load / mu
    full_usd = _usd_per_work(demand) * mu * demand.dt
    captive = np.zeros(len(demand), np.int64)
    if demand.captive_load is not None:
        captive = np.ceil(demand.captive_load / mu - _ROUNDING).astype(np.int64)
    rents: FloatArray = filled[:, None] - below
    np.clip(rents, 0.0, 1.0, out=rents)
    rents *= full_usd[:, None]
    rents[np.arange(levels) < captive[:, None]] = np.inf
    return rents


def _ends(
    on: FloatArray, off_before: Sequence[FloatArray], start_usd: float, hold_usd: float
) -> FloatArray:
    """Cost by final state and level: off, on, and on since 1, 2, ... bins, within the lock."""
    lock = len(off_before)
    within = [off_before[-1 - j] + start_usd - (lock - j) * hold_usd for j in range(1, lock)]
    return np.stack([off_before[-1], on, *within])


def _trace_back(ready: IntArray, events: _Events, level: int, end: int, lock: int) -> None:
    """Add one level's on-times to `ready`, which holds changes; `end` is a row of `_ends`."""
    starts = np.flatnonzero(events.started[:, level]) + 1
    stops = np.flatnonzero(events.stopped[:, level])
    t = len(events.started)
    if end > 1:
        ready[t] -= 1
        t -= end - 1
        ready[t] += 1
    is_on = end == 1
    while True:
        edges = starts if is_on else stops
        # A start is found at the end of its lock, a stop at the edge before its bin.
        at = int(np.searchsorted(edges, t, side="right" if is_on else "left")) - 1
        if at < 0:
            if is_on:  # from the beginning
                ready[t] -= 1
                ready[0] += 1
            return
        if is_on:
            ready[t] -= 1
            ready[edges[at] - lock] += 1
            t = int(edges[at]) - lock
        else:
            t = int(edges[at])
        is_on = not is_on
