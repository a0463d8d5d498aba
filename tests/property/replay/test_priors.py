"""A configured guess decides little: from any prior within a factor of 20, the bill is the same."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from router.replay.simulator import Simulation
from router.replay.tally import Sums, Tally
from router.replay.workload import Block
from tests.fakes.replays import make_block, make_setup, router_sizer

_KNOWN = 200
"""So many requests may be dearer while times become known."""
_WORLD = (
    "{service_time_ms: {lognormal: {p50: 95, p99: 190}}, startup_s: 57,"
    " serverless: {overhead_ms: {lognormal: {p50: 8, p99: 40}}, cold_start_ms: 1200}}"
)
_WRONG = [pair for pair in product((0.05, 1.0, 20.0), repeat=2) if pair != (1.0, 1.0)]


def _cut(block: Block, rows: slice) -> Block:
    return replace(block, **{name: getattr(block, name)[rows] for name in Block.__slots__})


@cache
def _bill(pool_prior_ms: float, function_prior_ms: float, per_s: float, horizon_s: float) -> Sums:
    setup = make_setup(
        _WORLD,
        slo="{latency_ms: 500, percentile: 99.9}",
        serverless=(
            "{kind: local, memory_mb: 1769, max_concurrency: 1000, cold_start_ms: 1200,"
            f" service_time_ms: {function_prior_ms}}}"
        ),
        pool=(
            "{kind: process, max_replicas: 20, startup: 57s, min_billing: 60s, concurrency: 1,"
            f" price_per_replica_hour: 0.04937, service_time_ms: {pool_prior_ms}}}"
        ),
    )
    gaps = np.random.default_rng(1).exponential(1 / per_s, int(per_s * horizon_s))
    block = make_block(setup, np.cumsum(gaps))
    simulation = Simulation(setup, router_sizer(setup), 1)
    tally = Tally(setup, horizon_s, horizon_s)
    simulation.run(_cut(block, slice(_KNOWN)))
    rest = _cut(block, slice(_KNOWN, None))
    since = float(rest.at[0])
    results = simulation.run(rest)
    late = [*results.late, *simulation.finish(horizon_s)]
    tally.add(rest, replace(results, late=[]))
    tally.add_late([one for one in late if one.row[0] >= since])
    tally.close(np.maximum(simulation.replicas.paid(), since), simulation.throttled)
    return tally.sums


@pytest.mark.parametrize(("per_s", "horizon_s"), [(20.0, 1800.0), (5.0, 3600.0), (1.0, 1800.0)])
@pytest.mark.parametrize(("pool", "function"), _WRONG)
def test_a_wrong_prior_costs_two_percent_at_the_most(
    pool: float, function: float, per_s: float, horizon_s: float
) -> None:
    right = _bill(100.0, 100.0, per_s, horizon_s)
    found = _bill(100.0 * pool, 100.0 * function, per_s, horizon_s)
    assert found.cost_usd <= 1.02 * right.cost_usd
    assert found.violations <= right.violations + 0.0005 * right.requests
