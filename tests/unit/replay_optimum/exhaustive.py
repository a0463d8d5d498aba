"""Optima found another way: by trying everything, and by a joint integer programme."""

import itertools

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from router.replay.demand import DemandSeries, FloatArray
from router.replay.optimum import LevelParams

Lives = tuple[tuple[int, int], ...]
"""Launch and release of each replica, in bins."""


def bill(demand: DemandSeries, params: LevelParams, lives: Lives) -> float:
    """What these replicas and the work they leave to serverless cost until the last bin."""
    total, horizon_s = 0.0, len(demand) * demand.dt
    ready = np.zeros(len(demand))
    for launch, release in lives:
        begin_s = launch * demand.dt
        end_s = min(max(release * demand.dt, begin_s + params.min_billing_s), horizon_s)
        total += (end_s - begin_s) * params.replica_usd_per_s
        ready[launch + round(params.startup_s / demand.dt) : release] += 1
    for load, usd_per_s, count in zip(demand.load, demand.serverless_usd_per_s, ready, strict=True):
        if load > 0:
            total += usd_per_s * max(load - params.mu * count, 0.0) / load * demand.dt
    return total


def cheapest_bill(demand: DemandSeries, params: LevelParams, replicas: int) -> float:
    """The lowest bill of all ways to have up to so many replicas ready in each bin."""
    startup_bins = round(params.startup_s / demand.dt)
    choices = [range(1 if t < startup_bins else replicas + 1) for t in range(len(demand))]
    return min(
        bill(demand, params, lives_of(ready, startup_bins)) for ready in itertools.product(*choices)
    )


def lives_of(ready: tuple[int, ...], startup_bins: int) -> Lives:
    """Lives with these ready counts; the replica that was launched first leaves first."""
    begins: list[int] = []
    ends: list[int] = []
    for t, (before, after) in enumerate(itertools.pairwise((0, *ready, 0))):
        begins += [t - startup_bins] * (after - before)
        ends += [t] * (before - after)
    return tuple(zip(begins, ends, strict=True))


def joint_programme(demand: DemandSeries, params: LevelParams, replicas: int) -> float:
    """The lowest bill by integer programming, for durations that are multiples of the bin.

    Variables per bin: replicas launched, released, billed; work carried.
    """
    n = len(demand)
    startup_bins = round(params.startup_s / demand.dt)
    keep_bins = max(round(params.min_billing_s / demand.dt), startup_bins, 1)
    nothing, every = np.zeros((n, n)), np.eye(n)
    so_far = np.tril(np.ones((n, n)))

    def late(bins: int) -> FloatArray:
        return np.eye(n, k=-bins) @ so_far

    billed_are_launched = np.hstack([so_far, -so_far, -every, nothing])
    old_ones_leave = np.hstack([-late(keep_bins), so_far, nothing, nothing])
    ready_ones_carry = np.hstack(
        [-params.mu * late(startup_bins), params.mu * so_far, nothing, every]
    )
    usd_per_work = np.divide(
        demand.serverless_usd_per_s, demand.load, out=np.zeros(n), where=demand.load > 0
    )
    hold = np.full(n, params.replica_usd_per_s)
    result = milp(
        np.concatenate([np.zeros(2 * n), hold, -usd_per_work]) * demand.dt,
        integrality=np.repeat([1, 1, 1, 0], n),
        bounds=Bounds(0, np.concatenate([np.full(3 * n, replicas), demand.load])),
        constraints=[
            LinearConstraint(billed_are_launched, 0, 0),
            LinearConstraint(np.vstack([old_ones_leave, ready_ones_carry]), -np.inf, 0),
        ],
    )
    assert result.success, result.message
    return float(result.fun) + float(demand.serverless_usd_per_s.sum()) * demand.dt
