"""The clairvoyant optimum against brute force and a joint integer programme."""

import time
from collections.abc import Sequence

import numpy as np
import pytest

from router.replay.demand import DemandSeries
from router.replay.optimum import LevelParams, Optimum, optimum, price
from tests.unit.replay_optimum.exhaustive import bill, cheapest_bill, joint_programme, lives_of

DT = 10.0
REPLICA_USD_PER_S = 0.1  # one USD per bin


def level(mu: float = 1.0, startup_bins: int = 0, min_billing_bins: int = 0) -> LevelParams:
    return LevelParams(mu, REPLICA_USD_PER_S, startup_bins * DT, min_billing_bins * DT)


def demand_of(
    load: Sequence[float], rho: float = 3.0, captive: Sequence[float] | None = None
) -> DemandSeries:
    """Serverless costs `rho` times a full replica."""
    loads = np.array(load, dtype=np.float64)
    captive_load = None if captive is None else np.array(captive, dtype=np.float64)
    free = loads if captive_load is None else loads - captive_load
    return DemandSeries(DT, loads, free * rho * REPLICA_USD_PER_S, captive_load)


def solve(demand: DemandSeries, params: LevelParams, replicas: int) -> Optimum:
    return optimum(
        demand.load,
        demand.serverless_usd_per_s,
        demand.dt,
        params,
        replicas,
        demand.captive_load,
    )


def random_demand(seed: int, bins: int, peak: float, rho: float = 3.0) -> DemandSeries:
    """Loads that rest, jump and fade, with prices that differ by bin."""
    rng = np.random.default_rng(seed)
    load = rng.uniform(0, peak, bins) * (rng.random(bins) < 0.7)
    return DemandSeries(DT, load, load * rho * REPLICA_USD_PER_S * rng.uniform(0.5, 1.5, bins))


@pytest.mark.parametrize("mu", [1.0, 0.7])
@pytest.mark.parametrize(("startup_bins", "min_billing_bins"), [(0, 0), (1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("seed", range(6))
def test_no_schedule_is_cheaper(seed, startup_bins, min_billing_bins, mu):
    demand = random_demand(seed, bins=6, peak=2.2)
    params = level(mu, startup_bins, min_billing_bins)
    found = solve(demand, params, 3)
    assert found.cost_usd == pytest.approx(cheapest_bill(demand, params, 3))
    assert found.schedule_usd == pytest.approx(found.cost_usd)


@pytest.mark.parametrize(
    ("startup_bins", "min_billing_bins"), [(0, 2), (0, 3), (1, 3), (1, 9), (7, 12)]
)
@pytest.mark.parametrize("seed", range(8))
def test_minimum_billing_of_one_replica_is_exact(seed, startup_bins, min_billing_bins):
    demand = random_demand(seed, bins=9, peak=1.3)
    params = level(1.0, startup_bins, min_billing_bins)
    found = solve(demand, params, 1)
    assert found.schedule_usd == pytest.approx(cheapest_bill(demand, params, 1))
    assert found.cost_usd <= found.schedule_usd + 1e-9


@pytest.mark.parametrize(
    ("startup_bins", "min_billing_bins"), [(0, 0), (2, 2), (6, 0), (6, 6), (18, 6)]
)
@pytest.mark.parametrize("seed", range(3))
def test_levels_add_up_to_the_joint_optimum(seed, startup_bins, min_billing_bins):
    demand = random_demand(seed, bins=60, peak=5.0)
    params = level(1.0, startup_bins, min_billing_bins)
    found = solve(demand, params, 5)
    assert found.cost_usd == pytest.approx(joint_programme(demand, params, 5), rel=1e-6)
    assert found.schedule_usd == pytest.approx(found.cost_usd)


@pytest.mark.parametrize(("startup_bins", "min_billing_bins"), [(0, 3), (2, 6), (5, 6)])
@pytest.mark.parametrize("seed", range(3))
def test_bound_and_schedule_enclose_the_joint_optimum(seed, startup_bins, min_billing_bins):
    demand = random_demand(seed, bins=60, peak=5.0)
    params = level(1.0, startup_bins, min_billing_bins)
    found = solve(demand, params, 5)
    joint = joint_programme(demand, params, 5)
    assert found.cost_usd <= joint * (1 + 1e-6)
    assert found.schedule_usd >= joint * (1 - 1e-6)


def test_replicas_that_take_turns_are_not_billed_as_levels():
    # The first serves bins 0-2, the second 2-4: each its minimum of three bins.
    demand = demand_of([1, 1, 2, 1, 1], rho=100.0)
    found = solve(demand, level(min_billing_bins=3), 2)
    assert found.schedule_usd == pytest.approx(6.0)
    assert found.ready.tolist() == [1, 1, 2, 1, 1]


@pytest.mark.parametrize("min_billing_bins", [0, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_schedule_costs_what_it_says(seed, min_billing_bins):
    demand = random_demand(seed, bins=200, peak=6.0)
    params = level(0.9, 3, min_billing_bins)
    found = solve(demand, params, 6)
    assert found.schedule_usd == pytest.approx(price(demand, params, found.ready))
    lives = lives_of(tuple(found.ready.tolist()), startup_bins=3)
    for t, launched in enumerate(found.schedule.tolist()):
        assert launched == sum(begin <= t < end for begin, end in lives)
    assert bill(demand, params, lives) == pytest.approx(found.schedule_usd)


@pytest.mark.parametrize("seed", range(5))
def test_no_schedule_between_the_bins_beats_the_bound(seed):
    """Replicas that switch at any second, serving loads that change every second."""
    rng = np.random.default_rng(seed)
    fine_load = rng.poisson(np.repeat(rng.uniform(0, 3, 12), 10)).astype(np.float64)
    fine = DemandSeries(1.0, fine_load, fine_load * 3 * REPLICA_USD_PER_S)
    params = LevelParams(1.0, REPLICA_USD_PER_S, 13.0, 13.0)
    exact = solve(fine, params, 4).cost_usd
    assert solve(fine.coarser(10), params, 4).cost_usd <= exact
    for _ in range(50):
        edges = np.sort(rng.integers(0, 121, (4, 2)), axis=1)
        assert bill(fine, params, tuple((int(a), int(b)) for a, b in edges)) >= exact - 1e-9


def test_a_warm_beginning_is_free_and_needs_no_start():
    params = LevelParams(1.0, REPLICA_USD_PER_S, 60.0, 0.0, is_warm=True)
    found = solve(demand_of([2.0] * 3 + [0.0] * 20, rho=3.0), params, 4)
    assert found.ready.tolist() == [2, 2, 2] + [0] * 20
    assert found.cost_usd == pytest.approx(2 * 3 * DT * REPLICA_USD_PER_S)


CAPTIVE_CASES = [
    pytest.param([0, 0.1, 0], [0, 0.1, 0], [0, 1, 0], id="a replica for captive work"),
    pytest.param([0, 2.0, 0], [0, 1.5, 0], [0, 2, 0], id="as many as captive work needs"),
    pytest.param([0, 0.1, 0], [0, 0.0, 0], [0, 0, 0], id="none for work that may leave"),
    pytest.param([0, 5.0, 0], [0, 5.0, 0], [0, 2, 0], id="no more than there may be"),
]


@pytest.mark.parametrize(("load", "captive", "ready"), CAPTIVE_CASES)
def test_captive_work_is_carried_at_any_price(load, captive, ready):
    found = solve(demand_of(load, 1.0, captive), level(), 2)
    assert found.ready.tolist() == ready
    assert found.schedule_usd == pytest.approx(sum(ready) or 0.1)


def test_captive_work_that_nobody_could_carry_is_free():
    found = solve(demand_of([1, 0, 0, 0], 1.0, [1, 0, 0, 0]), level(startup_bins=2), 1)
    assert found.cost_usd == 0
    assert found.ready.tolist() == [0, 0, 0, 0]


def test_free_work_beside_captive_work_keeps_its_price():
    # Half a replica is captive; leaving the second level's half to serverless costs half of rho.
    found = solve(demand_of([1.5, 1.5], 1.4, [0.5, 0.5]), level(), 2)
    assert found.ready.tolist() == [1, 1]
    assert found.cost_usd == pytest.approx(2 * (1 + 0.5 * 1.4))


def test_captive_work_without_a_replica_has_no_price():
    demand = demand_of([1.5, 1.5], 1.4, [0.5, 0.5])
    assert price(demand, level(), np.array([1, 0])) == float("inf")


@pytest.mark.parametrize("bins", [0, 1, 7])
def test_no_demand_costs_nothing(bins):
    found = solve(demand_of([0.0] * bins), level(startup_bins=3, min_billing_bins=5), 3)
    assert (found.cost_usd, found.schedule_usd) == (0, 0)
    assert found.schedule.tolist() == found.ready.tolist() == [0] * bins


def test_without_replicas_all_work_goes_to_serverless():
    assert solve(demand_of([1, 2, 3], rho=2.0), level(), 0).cost_usd == pytest.approx(12.0)


def test_starts_are_launched_before_they_are_ready():
    found = solve(demand_of([0, 0, 0, 1, 1, 1, 1, 1, 0, 0], rho=9.0), level(startup_bins=2), 1)
    assert found.ready.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert found.schedule.tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: level(mu=0), "mu = 0"),
        (lambda: level(mu=1.01), "mu = 1.01"),
        (lambda: level(startup_bins=-1), "startup_s = -10"),
        (lambda: LevelParams(1.0, float("nan"), 0, 0), "replica_usd_per_s = nan"),
        (lambda: solve(demand_of([1]), level(), -1), "max_levels = -1"),
        (lambda: demand_of([-1]), "load: must be finite and not negative"),
        (lambda: demand_of([float("inf")]), "load: must be finite"),
        (lambda: DemandSeries(0, np.zeros(1), np.zeros(1)), "dt = 0"),
        (lambda: DemandSeries(1, np.zeros(1), np.zeros(2)), r"shape \(2,\), must be \(1,\)"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_work_grows_with_bins_only():
    """A day in seconds with 30 levels, in bounded time: the inner loop is one step per bin."""
    demand = random_demand(1, bins=20_000, peak=30.0)
    began = time.perf_counter()
    solve(demand, level(startup_bins=6), 30)
    assert time.perf_counter() - began < 10
