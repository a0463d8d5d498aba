"""The request-level limit against everything that can be tried on small cases."""

from itertools import product

import numpy as np
import pytest

from router.replay.demand import DemandSeries
from router.replay.limit import Limit, backlogs
from router.replay.workload import Block, ModelSetup
from tests.fakes.replays import make_block, make_setup

STEP_S = 0.05
STARTUP_S = 3.0
SLO_S = 0.5
_SERVERLESS = (
    "{kind: local, memory_mb: 1024, service_time_ms: 100, price: {usd_per_request: 0,"
    " usd_per_gb_s: 0.00002}}"
)
_POOL = (
    "{kind: process, max_replicas: 8, concurrency: 1, service_time_ms: 100, startup: 3s,"
    " price_per_replica_hour: 0.036}"
)
"""A replica costs 0.00001 USD a second, its work twice as much on serverless."""


def small_setup() -> ModelSetup:
    return make_setup("{startup_s: 3}", serverless=_SERVERLESS, pool=_POOL, slo="{latency_ms: 500}")


def clumps(setup: ModelSetup, seed: int, horizon_s: float) -> Block:
    """Requests in clumps of up to six, on whole steps; most take longer than a clump."""
    rng = np.random.default_rng(seed)
    starts = np.round(rng.uniform(0, horizon_s - 1, 5) / STEP_S) * STEP_S
    at = np.sort(np.repeat(starts, rng.integers(1, 7, 5)))
    service_s = rng.integers(2, 12, len(at)) * STEP_S
    return make_block(setup, at, service_s=service_s, function_s=service_s)


def limit_of(setup: ModelSetup, block: Block, horizon_s: float) -> float:
    bins = round(horizon_s)
    work = np.bincount(block.at.astype(np.int64), block.service_s, bins)
    load = work.astype(np.float64)
    demand = DemandSeries(1.0, load, load * 0.00002)
    limit = Limit(setup, demand, STARTUP_S, is_warm=True)
    half = len(block) // 2
    for part in (slice(None, half), slice(half, None)):
        limit.add(Block(**{name: getattr(block, name)[part] for name in Block.__slots__}))
    return limit.usd()


def cheapest(block: Block, counts: np.ndarray, steps_per_count: int) -> float:
    """The lowest bill of all rows of `counts`, replicas ready in each stretch of steps.

    Step by step and request by request: the oldest first, none beyond its objective, and parts of
    a request count. The first replicas are there for nothing, others for a start.
    """
    ready = np.repeat(counts, steps_per_count, axis=1)
    left = np.tile(block.service_s, (len(counts), 1))
    for step in range(ready.shape[1]):
        now, can_do = step * STEP_S, ready[:, step] * STEP_S
        for request in np.flatnonzero((block.at <= now + 1e-9) & (now < block.at + SLO_S - 1e-9)):
            does = np.minimum(left[:, request], can_do)
            left[:, request] -= does
            can_do = can_do - does
    rises = np.diff(counts, axis=1)
    starts = np.maximum(rises, 0).sum(axis=1)
    first = round(STARTUP_S / (steps_per_count * STEP_S))
    too_early = (rises[:, : first - 1] > 0).any(axis=1)
    rent_s = ready.sum(axis=1) * STEP_S + starts * STARTUP_S
    bills = rent_s * 0.00001 + left.sum(axis=1) * 0.00002
    return float(bills[~too_early].min())


@pytest.mark.parametrize("seed", range(6))
def test_no_way_to_switch_replicas_each_second_is_cheaper(seed: int) -> None:
    setup = small_setup()
    block = clumps(setup, seed, horizon_s=8.0)
    counts = np.array(list(product(range(3), repeat=8)))
    best = cheapest(block, counts, steps_per_count=20)
    found = limit_of(setup, block, horizon_s=8.0)
    assert 0.8 * best < found <= best + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_no_way_to_switch_a_replica_between_the_bins_is_cheaper(seed: int) -> None:
    setup = small_setup()
    block = clumps(setup, seed, horizon_s=8.0)
    counts = np.array(list(product(range(2), repeat=16)))
    assert limit_of(setup, block, 8.0) <= cheapest(block, counts, steps_per_count=10) + 1e-12


def test_backlogs_are_those_of_one_arrival_after_the_other() -> None:
    rng = np.random.default_rng(1)
    gaps, jobs = rng.exponential(0.1, 101), rng.exponential(0.12, (3, 101))
    start = np.array([0.0, 0.3, 0.5])
    found = backlogs(start, gaps, jobs, 0.5)
    now = start
    for place, gap in enumerate(gaps):
        now = np.minimum(np.maximum(now - gap, 0.0) + jobs[:, place], 0.5)
        assert found[:, place] == pytest.approx(now)


def test_nothing_is_proven_where_starts_cost_less_than_what_is_allowed_for_them() -> None:
    setup = small_setup()
    block = make_block(setup, np.arange(0.0, 8.0, 0.1))
    demand = DemandSeries(1.0, np.ones(8), np.full(8, 0.00002))
    limit = Limit(setup, demand, 0.5, is_warm=True)
    limit.add(block)
    assert limit.usd() == 0.0
