"""What one model's trace is run through: the router, the best schedule in hindsight, the baselines.

Builds simulations and computes the optimum; runs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import NamedTuple
from zlib import crc32

import numpy as np

from router.replay.baselines import baselines
from router.replay.demand import DemandSeries
from router.replay.distributions import Distribution, Floats
from router.replay.optimum import IntArray, LevelParams, Optimum, optimum
from router.replay.shared import SharedSimulation
from router.replay.simulator import Simulation
from router.replay.sizers import BaselineSizer, RouterSizer, ScheduleSizer, SharedSizer, Sizer
from router.replay.workload import ModelSetup
from router.settings.schema import ControllerSettings

ROUTER = "router"
CLAIRVOYANT = "clairvoyant_replayed"
"""The cheapest schedule in hindsight, with the router deciding where each request goes."""


class Bound(NamedTuple):
    """The cheapest bill in hindsight, in all and per bin, with its replicas launched.

    `usd` takes the demand for constant within its bins. `load` is the demand it was computed for,
    in replicas.
    """

    bin_s: float
    usd: float
    usd_per_bin: Floats
    launched: IntArray
    load: Floats


def bound_of(setup: ModelSetup, demand: DemandSeries, *, is_warm: bool = False) -> Bound:
    """The clairvoyant optimum of a model's demand, with replicas packed fully.

    If `is_warm`, it begins with as many replicas as it likes.
    """
    pool, world = setup.runtime.settings.pool, setup.world
    if pool is None or not pool.enabled:
        usd = demand.serverless_usd_per_s * demand.dt
        total_usd, none = float(usd.sum()), np.zeros(len(demand), np.int64)
        return Bound(demand.dt, total_usd, usd, none, demand.load)
    params = LevelParams(
        mu=1.0,
        replica_usd_per_s=world.replica_usd_per_s,
        startup_s=typical(world.startup_s),
        min_billing_s=world.min_billing_s,
        is_warm=is_warm,
    )
    # A bound on any policy: it may hold more replicas than the configuration lets the router.
    peak = ceil(float(demand.load.max(initial=0.0)))
    best = optimum(
        demand.load,
        demand.serverless_usd_per_s,
        demand.dt,
        params,
        max(peak, 1),
        demand.captive_load,
    )
    usd = _usd_per_bin(demand, best, params)
    return Bound(demand.dt, best.cost_usd, usd, best.schedule, demand.load)


def _usd_per_bin(demand: DemandSeries, best: Optimum, params: LevelParams) -> Floats:
    captive = 0.0 if demand.captive_load is None else demand.captive_load
    free = np.maximum(demand.load - captive, 0.0)
    left = np.clip(demand.load - params.mu * best.ready, 0.0, free)
    share = np.divide(left, free, out=np.zeros_like(left), where=free > 0)
    rented = best.schedule * params.replica_usd_per_s
    usd: Floats = (demand.serverless_usd_per_s * share + rented) * demand.dt
    return usd


def typical(distribution: Distribution) -> float:
    """The median."""
    middle = distribution.draw(np.zeros(1), np.full(1, 0.5), np.zeros(1, np.int64))
    return float(middle[0])


def router_simulation(setup: ModelSetup, controller: ControllerSettings, seed: int) -> Simulation:
    """The model under the router's own policy."""
    params, pool = setup.runtime.sizing_params, setup.runtime.settings.pool
    sizer = None
    if params is not None and pool is not None and pool.enabled:
        sizer = RouterSizer(
            params,
            setup.runtime.policy.slo,
            pool.concurrency,
            controller.interval_s,
            controller.window_s,
        )
    return Simulation(setup, sizer, model_seed(setup, seed))


def shared_simulations(
    setups: Sequence[ModelSetup],
    controller: ControllerSettings,
    bound: Bound,
    seed: int,
    warm_s: float = 0.0,
) -> Mapping[str, SharedSimulation]:
    """The router, and the schedule in hindsight for all together, for models that share a pool."""
    runtime = setups[0].runtime
    params, pool = runtime.sizing_params, runtime.settings.pool
    assert params is not None and pool is not None  # noqa: S101, PT018
    seeds = [model_seed(setup, seed) for setup in setups]
    routed, scheduled = SharedSimulation(setups, seeds), SharedSimulation(setups, seeds)
    times = controller.interval_s, controller.window_s
    if pool.enabled:
        slo = runtime.policy.slo
        routed.size_by(SharedSizer(params, slo, pool.concurrency, times, routed.has_duty))
        scheduled.size_by(ScheduleSizer(bound.launched, bound.bin_s, warm_s))
    return {ROUTER: routed, CLAIRVOYANT: scheduled}


def simulations(
    setup: ModelSetup,
    controller: ControllerSettings,
    bound: Bound,
    train: DemandSeries | None,
    seed: int,
    warm_s: float = 0.0,
) -> Mapping[str, Simulation]:
    """A simulation for every policy; baselines are chosen on `train`, None: no baselines.

    The schedule in hindsight begins after `warm_s`; until then, its first replicas run.
    """
    schedule = ScheduleSizer(bound.launched, bound.bin_s, warm_s)
    runs = {
        ROUTER: router_simulation(setup, controller, seed),
        CLAIRVOYANT: _simulation(setup, schedule, seed),
    }
    params, pool = setup.runtime.sizing_params, setup.runtime.settings.pool
    if train is None or params is None or pool is None:
        return runs
    priced = replace(params, replica_usd_per_s=setup.world.replica_usd_per_s)
    for baseline in baselines(train, priced):
        sizer = BaselineSizer(baseline, pool.concurrency)
        runs[baseline.name] = _simulation(setup, sizer, seed, may_overflow=baseline.overflow)
    return runs


def _simulation(
    setup: ModelSetup, sizer: Sizer, seed: int, *, may_overflow: bool = True
) -> Simulation:
    has_pool = setup.runtime.pool is not None
    return Simulation(
        setup, sizer if has_pool else None, model_seed(setup, seed), may_overflow=may_overflow
    )


def model_seed(setup: ModelSetup, seed: int) -> int:
    """The seed of a model's draws: the same for every policy, another for every model."""
    return crc32(f"{setup.name} {seed}".encode())
