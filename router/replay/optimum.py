"""The cheapest bill anybody could have reached who knew all demand in advance.

An exact dynamic programme over bins of time for each level of one replica (level k carries
`clip(load - (k-1) mu, 0, mu)`), all levels at once, linear in bins. Decides nothing online.

Why it bounds every policy from below, with `mu = 1` (a replica fully packed):

* In a bin, n ready replicas carry at most `min(load, n mu)`. That is concave in the load, so a
  bin's average is carried at least as well as the moments it is made of. The rest costs its share
  of `serverless_usd_per_s`.
* Whoever knows the future launches `startup_s` before the replica is used, so that a start costs
  `replica_usd_per_s * startup_s` and delays nothing. (In a gap shorter than that a level could not
  be stopped and started again, but keeping it on is never dearer, so this needs no constraint.)
  Nothing is ready in the first `startup_s`.
* For fixed loads the bill is linear in each launch and release between bin edges, so some best
  schedule switches at bin edges only.
* Costs are convex in n and switching is counted per replica, so levels are independent: their
  optima add up to the joint optimum.

The last point fails where minimum billing outlasts the start-up: replicas may then take turns
(the oldest leaves first), which levels cannot express. So the bound leaves out of the minimum what
outlasts the start-up, and the schedule is the better of two found with and without it, priced with
the oldest leaving first. Both agree wherever `min_billing_s <= startup_s`.

Conditions: a bin's requests cost alike per unit of work; requests wait much less than a bin (use
10 s or more); replicas that still run at the end are paid until the end. Durations that are no
multiple of the bin are rounded down where that makes the bill smaller. Captive work (serverless
cannot carry it) has an infinite price there, so its levels are on in every bin that has some. What
no policy can carry when it arrives, in the first `startup_s` or beyond the last level, is free. The
bound does not hold for policies that refuse captive work, or hold it for longer than a bin.
"""

from collections import deque
from collections.abc import Iterator, Sequence
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
    Raises ValueError where a number is out of range.
    """

    mu: float
    replica_usd_per_s: float
    startup_s: float
    min_billing_s: float

    def __post_init__(self) -> None:
        if not 0 < self.mu <= 1:
            raise ValueError(f"mu = {self.mu}, must be above 0 and at most 1")
        for name in ("replica_usd_per_s", "startup_s", "min_billing_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} = {value}, must be finite and not negative")


class Optimum(NamedTuple):
    """`cost_usd` is the lower bound, `schedule_usd` what the schedule costs: at least as much.

    Per bin: `schedule` counts the replicas launched and billed, `ready` those that can work.
    """

    cost_usd: float
    schedule_usd: float
    schedule: IntArray
    ready: IntArray


class _Timing(NamedTuple):
    """Durations in bins: none is ready before `first`; a start stays on for `lock` bins."""

    dt: float
    first: int
    lock: int


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
    peak = float(demand.load.max(initial=0.0))
    levels = min(max_levels, int(np.ceil(peak / params.mu - _ROUNDING)))
    excess = _bins(params.min_billing_s - params.startup_s, dt)
    cost_usd, ready = _solve(demand, params, levels, _Timing(dt, first, 1))
    schedule_usd = price(demand, params, ready)
    if excess > 1:
        _, locked = _solve(demand, params, levels, _Timing(dt, first, excess))
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
    demand: DemandSeries, params: LevelParams, levels: int, timing: _Timing
) -> tuple[float, IntArray]:
    """Cost and ready replicas per bin of the best schedule, each level locked after a start."""
    bins, lock = len(demand), timing.lock
    events = _Events(np.zeros((bins, levels), np.bool_), np.zeros((bins, levels), np.bool_))
    hold_usd = params.replica_usd_per_s * timing.dt
    start_usd = params.replica_usd_per_s * params.startup_s + lock * hold_usd
    # Cheapest costs up to a time, ending off or on; a start looks back at the off of its launch.
    off_before = deque([np.zeros(levels)], maxlen=lock)
    on = np.full(levels, np.inf)
    for t, rent_usd in enumerate(_rents(demand, params.mu, levels)):
        off = off_before[-1]
        np.less(on, off, out=events.stopped[t])
        off_next = np.minimum(on, off) + rent_usd
        on = on + hold_usd
        if t + 1 - lock >= timing.first:
            launched = off_before[0] + start_usd
            np.less(launched, on, out=events.started[t])
            on = np.minimum(on, launched)
        off_before.append(off_next)
    beyond = np.maximum(demand.load - params.mu * levels, 0.0)
    beyond_usd = float((_usd_per_work(demand) * beyond).sum()) * timing.dt
    ends = _ends(on, off_before, params, timing, bins)
    ready = np.zeros(bins + 1, np.int64)
    for level, end in enumerate(ends.argmin(axis=0)):
        _trace_back(ready, events, level, int(end), lock)
    cost_usd = float(ends.min(axis=0).sum()) + beyond_usd
    return cost_usd, np.cumsum(ready[:-1])


def _rents(demand: DemandSeries, mu: float, levels: int) -> Iterator[FloatArray]:
    """Per bin, what each level's work costs on serverless; infinite where it cannot go there."""
    below = np.arange(levels, dtype=np.float64)
    filled = demand.load / mu
    full_usd = _usd_per_work(demand) * mu * demand.dt
    captive = np.zeros(len(demand), np.int64)
    if demand.captive_load is not None:
        captive = np.ceil(demand.captive_load / mu - _ROUNDING).astype(np.int64)
    for t in range(len(demand)):
        rent = np.minimum(np.maximum(filled[t] - below, 0.0), 1.0) * full_usd[t]
        rent[: captive[t]] = np.inf
        yield rent


def _ends(
    on: FloatArray,
    off_before: Sequence[FloatArray],
    params: LevelParams,
    timing: _Timing,
    bins: int,
) -> FloatArray:
    """Cost by final state and level: off, on, and on since j bins within the lock."""
    states = [off_before[-1], on]
    for j in range(1, timing.lock):
        cost = np.full_like(on, np.inf)
        if bins - j >= timing.first and j < len(off_before):
            paid_s = params.startup_s + j * timing.dt
            cost = off_before[-1 - j] + params.replica_usd_per_s * paid_s
        states.append(cost)
    return np.stack(states)


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
            return
        if is_on:
            ready[t] -= 1
            ready[edges[at] - lock] += 1
            t = int(edges[at]) - lock
        else:
            t = int(edges[at])
        is_on = not is_on
