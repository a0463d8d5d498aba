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

Loads that are averages of requests offer more: replicas that are there for the busy part of a bin
only, and work that waits for the next bin. With `latency_s` the bound allows both:

* Requests answered within `latency_s` are worked on in their bin or that long after it, so that a
  replica carries up to `1 + latency_s / bin` of what arrives in a bin.
* Take a policy's replicas at one random moment of each such stretch: the expected rent is the same
  (over where bins begin), starts are no more, and serverless gets more only where replicas change
  within the stretch, by at most a quarter of a bin of a full replica for each that comes or goes.
  So a start is charged half a bin of a full replica on serverless less.

Both loosen the bound (by 1 to 4 % at 500 ms): long bins suffer from the second, short ones from the
first, so it is the highest of several lengths; 0 where half a bin on serverless costs more than a
start. Without `latency_s` the programme of the averages has been undercut by 2 % where requests
waited 2 s for bins of 10 s.

Conditions: a bin's requests cost alike per unit of work; replicas that still run at the end are
paid until the end. Durations that are no multiple of the bin are rounded down where that makes the
bill smaller. Captive work (serverless cannot carry it) has an infinite price there, so its levels
are on in every bin that has some. What no policy can carry when it arrives, in the first
`startup_s` or beyond the last level, is free. The bound does not hold for policies that refuse
captive work, or hold it for longer than a bin.
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
_COARSER = (2, 3, 6, 12, 30)
"""Lengths of bins, in given bins, that are tried for the bound of averaged loads."""


@dataclass(frozen=True, slots=True)
class LevelParams:
    """One replica: `mu` is the work it may do, in replica-seconds per second.

    A replica is paid from launch on, for at least `min_billing_s`, and ready after `startup_s`.
    Where loads are averages of requests, `latency_s` is the time within which the pool answers
    them; 0: each load is constant in its bin. Raises ValueError where a number is out of range.
    """

    mu: float
    replica_usd_per_s: float
    startup_s: float
    min_billing_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.mu <= 1:
            raise ValueError(f"mu = {self.mu}, must be above 0 and at most 1")
        for name in ("replica_usd_per_s", "startup_s", "min_billing_s", "latency_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} = {value}, must be finite and not negative")


class Optimum(NamedTuple):
    """`cost_usd` is the lower bound for loads that are constant in their bins, `bound_usd` the one
    for averages (the same without `latency_s`), `schedule_usd` what the schedule costs.

    Per bin: `schedule` counts the replicas launched and billed, `ready` those that can work.
    """

    cost_usd: float
    bound_usd: float
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
    bound_usd = cost_usd
    if params.latency_s > 0:
        bound_usd = _bound_of_averages(demand, params, max_levels)
    return Optimum(cost_usd, bound_usd, schedule_usd, _launched(ready, first), ready)


def _bound_of_averages(demand: DemandSeries, params: LevelParams, max_levels: int) -> float:
    """The highest bound of several lengths of bins that are averages of what happens in them."""
    series = [demand]
    if demand.captive_load is not None:
        # A replica need not be on all of a long bin for captive work: leave that work out.
        load = np.maximum(demand.load - demand.captive_load, 0.0)
        demand = DemandSeries(demand.dt, load, demand.serverless_usd_per_s)
    series += [demand.coarser(factor) for factor in _COARSER]
    return max(_bound_of_average(bins, params, max_levels) for bins in series)


def _bound_of_average(demand: DemandSeries, params: LevelParams, max_levels: int) -> float:
    eased = _eased(demand, 1 + params.latency_s / demand.dt)
    full_usd_per_s = params.mu * float(_usd_per_work(eased).max(initial=0.0))
    start_usd = params.replica_usd_per_s * params.startup_s - full_usd_per_s * demand.dt / 2
    if start_usd < 0:
        return 0.0
    return _solve(eased, params, max_levels, 1, start_usd)[0]


def _eased(demand: DemandSeries, factor: float) -> DemandSeries:
    """The demand for replicas that carry `factor` times as much: the same price for less load."""
    captive = None if demand.captive_load is None else demand.captive_load / factor
    return DemandSeries(demand.dt, demand.load / factor, demand.serverless_usd_per_s, captive)


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
    bins, first = len(demand), _bins(params.startup_s, demand.dt)
    peak = float(demand.load.max(initial=0.0))
    levels = min(max_levels, int(np.ceil(peak / params.mu - _ROUNDING)))
    events = _Events(np.zeros((bins, levels), np.bool_), np.zeros((bins, levels), np.bool_))
    hold_usd = params.replica_usd_per_s * demand.dt
    start_usd += lock * hold_usd
    # Cheapest costs up to a time, ending off or on; a start looks back at the off of its launch.
    off_before = deque([np.zeros(levels)], maxlen=lock)
    on = np.full(levels, np.inf)
    for t, rent_usd in enumerate(_rents(demand, params.mu, levels)):
        off = off_before[-1]
        np.less(on, off, out=events.stopped[t])
        off_next = np.minimum(on, off) + rent_usd
        on = on + hold_usd
        if t + 1 - lock >= first:
            launched = off_before[0] + start_usd
            np.less(launched, on, out=events.started[t])
            on = np.minimum(on, launched)
        off_before.append(off_next)
    beyond = np.maximum(demand.load - params.mu * levels, 0.0)
    beyond_usd = float((_usd_per_work(demand) * beyond).sum()) * demand.dt
    # A start that is still locked cannot reach back to before any replica is ready.
    ends = _ends(on, off_before, start_usd, hold_usd)[: 2 + max(bins - first, 0)]
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
            return
        if is_on:
            ready[t] -= 1
            ready[edges[at] - lock] += 1
            t = int(edges[at]) - lock
        else:
            t = int(edges[at])
        is_on = not is_on
