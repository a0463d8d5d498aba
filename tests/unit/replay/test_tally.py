"""Sums of outcomes: the bill, violations, percentiles, intervals."""

import numpy as np
import pytest

from router.replay.baselines import Fixed
from router.replay.machine import CUT, IN_POOL, ON_SERVERLESS, REFUSED, SPILLED, WAS_COLD
from router.replay.simulator import Results, Simulation
from router.replay.sizers import BaselineSizer
from router.replay.tally import Tally
from router.replay.workload import ModelSetup
from tests.fakes.replays import make_block, make_setup

WORLD = (
    "{service_time_ms: 100, startup_s: 20, min_billing_s: 60, replica_usd_per_hour: 3.6,"
    " serverless: {usd_per_request: 0.5, usd_per_gb_s: 2, memory_mb: 512, cold_start_ms: 1000}}"
)
NOTHING_PAID = np.zeros((0, 4))


def tallied(setup: ModelSetup, rows: list[tuple[float, float, int]], **columns: object) -> Tally:
    """A tally of rows of (arrival, latency, bits)."""
    at, latency_s, bits = (np.array(column) for column in zip(*rows, strict=True))
    tally = Tally(setup, horizon_s=120.0, interval_s=60.0)
    tally.add(make_block(setup, at, 1, **columns), Results(latency_s, bits.astype(int), []))
    return tally


COLD = ON_SERVERLESS | WAS_COLD
OUTCOMES = {
    "in time": ([(1.0, 0.5, IN_POOL)], 0, 0),
    "late": ([(1.0, 0.51, IN_POOL)], 1, 0),
    "refused": ([(1.0, np.nan, REFUSED)], 1, 0),
    "late by a cold start": ([(1.0, 1.1, COLD)], 0, 1),
    "cold but in time": ([(1.0, 0.4, COLD)], 0, 0),
}


@pytest.mark.parametrize(("rows", "violations", "excused"), OUTCOMES.values(), ids=OUTCOMES)
def test_violations_are_told_from_allowed_cold_starts(
    rows: list[tuple[float, float, int]], violations: int, excused: int
) -> None:
    sums = tallied(make_setup(WORLD), rows).sums
    assert (sums.violations, sums.allowed_cold_late) == (violations, excused)


def test_cold_starts_that_are_to_be_avoided_violate_the_objective() -> None:
    setup = make_setup(WORLD, slo="{latency_ms: 500, cold_start: avoid}")
    sums = tallied(setup, [(1.0, 1.1, COLD)]).sums
    assert (sums.violations, sums.allowed_cold_late) == (1, 0)


def test_a_clients_own_deadline_replaces_the_objective() -> None:
    rows = [(1.0, 0.9, IN_POOL), (2.0, 0.2, IN_POOL | CUT)]
    sums = tallied(make_setup(WORLD), rows, deadline_s=[2.0, 0.2]).sums
    assert sums.violations == 1


def test_the_bill_has_its_parts() -> None:
    rows = [(1.0, 0.1, ON_SERVERLESS), (2.0, 1.1, COLD | SPILLED), (70.0, 0.1, IN_POOL)]
    tally = tallied(make_setup(WORLD), rows)
    timeline = tally.close(np.array([[10.0, 30.0, 80.0, 90.0]]), throttled=3)
    sums = tally.sums
    assert sums.fees_usd == pytest.approx(2 * 0.5)
    assert sums.compute_usd == pytest.approx(2 * 0.1 * 2 * 0.5)
    assert sums.init_usd == pytest.approx(1.0 * 2 * 0.5)
    assert sums.warm_busy_usd == pytest.approx(0.001 * 0.1 / 2)
    assert sums.warm_busy_usd + sums.warm_idle_usd == pytest.approx(0.001 * 80)
    assert sums.cost_usd == pytest.approx(1.0 + 0.2 + 1.0 + 0.08)
    assert (sums.throttled, sums.replica_starts, sums.spilled) == (3, 1, 1)
    assert timeline.cost_usd.tolist() == pytest.approx([1 + 0.2 + 1 + 0.05, 0.03])
    assert timeline.replicas_billed.tolist() == pytest.approx([50 / 60, 30 / 60])
    assert timeline.replicas_ready.tolist() == pytest.approx([30 / 60, 20 / 60])
    assert timeline.arrivals.tolist() == [2, 1]
    assert timeline.serverless_requests.tolist() == [2, 0]
    assert timeline.pool_requests.tolist() == [0, 1]
    assert timeline.cold_starts.tolist() == [1, 0]


def test_the_bill_rounds_as_the_platform_does() -> None:
    """A cold start is paid as part of its call: only the sum is rounded."""
    steps = WORLD.replace("cold_start_ms: 1000", "cold_start_ms: 120, billing_step_ms: 50")
    rows = [(1.0, 0.11, ON_SERVERLESS), (2.0, 0.23, COLD)]
    sums = tallied(make_setup(steps), rows, function_s=[0.11, 0.11]).sums
    assert sums.compute_usd == pytest.approx(2 * 0.15)
    assert sums.init_usd == pytest.approx(0.25 - 0.15)
    least = WORLD.replace("cold_start_ms: 1000", "min_billed_ms: 200")
    assert tallied(make_setup(least), rows[:1], function_s=[0.11]).sums.compute_usd == 0.2


def test_nothing_is_paid_beyond_the_horizon() -> None:
    tally = tallied(make_setup(WORLD), [(1.0, 0.1, IN_POOL)])
    tally.close(np.array([[100.0, np.inf, np.inf, np.inf], [119.0, np.inf, np.inf, 180.0]]), 0)
    assert tally.sums.cost_usd == pytest.approx(0.001 * 21)


@pytest.mark.parametrize("percent", [1, 50, 90, 99, 99.9])
def test_percentiles_are_exact_to_a_quarter_of_a_percent(percent: float) -> None:
    latency_s = np.random.default_rng(2).lognormal(-3, 1, 20_000)
    rows = [(1.0, float(one), IN_POOL) for one in latency_s]
    measured = tallied(make_setup(WORLD), rows).sums.percentile_s(percent)
    exact = np.sort(latency_s)[round(len(latency_s) * percent / 100) - 1]
    assert measured == pytest.approx(exact, rel=0.0026)


def test_without_answers_there_is_no_percentile() -> None:
    assert tallied(make_setup(WORLD), [(1.0, np.nan, REFUSED)]).sums.percentile_s(50) is None


def test_late_outcomes_count_in_the_interval_of_their_arrival() -> None:
    setup = make_setup(WORLD, serverless=None)
    simulation = Simulation(setup, BaselineSizer(Fixed("f", 1, overflow=False), 2), 1)
    tally = Tally(setup, 120.0, 60.0)
    for at in ([1.0, 2.0], [70.0]):
        block = make_block(setup, at)
        tally.add(block, simulation.run(block))
    tally.add_late(simulation.finish(120.0))
    timeline = tally.close(simulation.replicas.paid(), 0)
    assert timeline.arrivals.tolist() == [2, 1]
    assert timeline.pool_requests.tolist() == [2, 1]
    assert timeline.violations.tolist() == [2, 0]
    assert tally.sums.requests == tally.sums.pool == 3
