"""A nightly batch beside the requests of a trace: what it adds to the bill, and what it had to.

Every model with replicas of its own gets as many jobs as a share of its requests, all at one time
of the trace and with one window. Joins the parts; prints nothing.
"""

from collections import defaultdict
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from router.replay.arrivals import Dropped, Sender, bare
from router.replay.jobs import Batch, JobsSimulation
from router.replay.measure import BIN_S, Measure
from router.replay.optimum import LevelParams
from router.replay.optimum_together import Deferred, optimum_together
from router.replay.policies import model_seed, router_simulation, typical
from router.replay.reading import ModelMap, parts
from router.replay.replay import ReplayOptions
from router.replay.simulator import Simulation
from router.replay.tally import Sums, Tally
from router.replay.traces import Trace
from router.replay.workload import Block, ModelSetup, Workload
from router.replay.world import World, model_world
from router.runtime import Runtime

_JOBS_SEED = 1 << 20
"""Jobs are drawn apart from requests."""


class BatchPlan(NamedTuple):
    """Jobs for a share of the requests, at a time of the trace, due a window later; seconds."""

    share: float
    at: float
    window_s: float


def replay_batch(
    runtime: Runtime, world: World, trace: Trace, options: ReplayOptions, plan: BatchPlan
) -> dict[str, Any]:
    """Figures by model. Raises TraceError where the trace cannot be read."""
    names = ModelMap(frozenset(runtime.models), options.model_map, options.each_like)
    setups: dict[str, ModelSetup] = {}
    workloads: dict[str, Workload] = {}
    blocks: defaultdict[str, list[Block]] = defaultdict(list)
    for part in parts(trace, names, Dropped(), lambda _: None):
        name, model = part.target.name, runtime.models[part.target.like]
        pool = model.settings.pool
        if pool is None or not pool.enabled or model.group or model.serverless is None:
            continue
        if name not in setups:
            setups[name] = ModelSetup(name, model, model_world(world, model, name))
            workloads[name] = Workload(setups[name], options.seed)
        blocks[name].append(workloads[name].block(part.arrivals, part.senders))
    return {
        name: _figures(runtime, setup, blocks[name], options.seed, plan)
        for name, setup in setups.items()
    }


def _figures(
    runtime: Runtime, setup: ModelSetup, blocks: list[Block], seed: int, plan: BatchPlan
) -> dict[str, Any]:
    """One model: alone, with the batch, and the optimum of both."""
    measure = Measure(setup)
    for block in blocks:
        measure.add(block)
    end_s = max(measure.last_at, plan.at + plan.window_s)
    horizon_s = ceil((end_s + 1.0) / BIN_S) * BIN_S
    count = int(measure.requests * plan.share)
    jobs = Workload(setup, seed + _JOBS_SEED).block(bare(np.full(count, plan.at), 0), [Sender()])
    batch = Batch(plan.at, plan.window_s, jobs)
    controller, concurrency = runtime.settings.controller, runtime.settings.jobs.concurrency
    both = JobsSimulation(setup, controller, model_seed(setup, seed), [batch], concurrency)
    alone_usd = _run(router_simulation(setup, controller, seed), setup, blocks, horizon_s).cost_usd
    with_jobs = _run(both, setup, blocks, horizon_s)
    total_usd = with_jobs.cost_usd + both.sums.calls_usd
    function, usd_per_s = setup.world.function, setup.world.replica_usd_per_s
    assert function is not None  # noqa: S101  it has a function
    called_usd = function.usd_per_request + function.compute_usd(jobs.function_s)
    on_functions_usd = float(called_usd.sum())
    work_s = float(jobs.service_s.sum()) / setup.world.throughput
    demand = measure.series(0.0, horizon_s)
    level = LevelParams(1.0, usd_per_s, typical(setup.world.startup_s), setup.world.min_billing_s)
    optimum_usd = None
    if demand.captive_load is None and count:
        deferred = Deferred(plan.at, plan.at + plan.window_s, work_s, on_functions_usd)
        peak = ceil(float(demand.load.max(initial=0.0)))
        optimum_usd = optimum_together(demand, [deferred], level, max(peak, 1))
    added_usd = total_usd - alone_usd
    return {
        "jobs": count,
        "late": both.sums.late,
        "on_function": both.sums.called,
        "alone_usd": alone_usd,
        "added_usd": added_usd,
        "on_functions_usd": on_functions_usd,
        "added_ratio": added_usd / on_functions_usd if on_functions_usd else None,
        "total_usd": total_usd,
        "optimum_usd": optimum_usd,
        "optimum_ratio": total_usd / optimum_usd if optimum_usd else None,
        "delayed_ratio": both.sums.delayed / max(measure.requests, 1),
        "refused": with_jobs.refused,
    }


def _run(simulation: Simulation, setup: ModelSetup, blocks: list[Block], horizon_s: float) -> Sums:
    tally = Tally(setup, horizon_s, horizon_s)
    for block in blocks:
        tally.add(block, simulation.run(block))
    tally.add_late(simulation.finish(horizon_s))
    tally.close(simulation.replicas.paid(), simulation.throttled)
    return tally.sums
