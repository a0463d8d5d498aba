"""A batch beside a trace: what it adds, and the optimum of both as an integer programme."""

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from router.replay.demand import DemandSeries
from router.replay.jobs import Batch, JobsSimulation
from router.replay.optimum import LevelParams
from router.replay.optimum_together import Deferred, optimum_together
from tests.fakes.replays import make_block, make_setup, run_all

WORLD = "{service_time_ms: 100, startup_s: 20, serverless: {overhead_ms: 10, cold_start_ms: 1000}}"


def integer_programme(load: np.ndarray, usd_per_work: float, work: float, price: float) -> float:
    """The least bill of both with whole replicas: rent and starts of `n`, calls of the rest.

    Bins of 60 s, starts of 60 s; the work may run in any bin. Columns: replicas, starts, work of
    requests and of jobs on replicas, each per bin, and the jobs' work on the function.
    """
    bins, dt, rent, start = len(load), 60.0, 1.0, 60.0
    columns = 4 * bins + 1
    cost = np.zeros(columns)
    cost[:bins], cost[bins : 2 * bins] = rent * dt, rent * start
    cost[2 * bins : 3 * bins], cost[-1] = -usd_per_work * dt, price
    rows: list[np.ndarray] = []
    low: list[float] = []
    high: list[float] = []
    for t in range(bins):
        fits = np.zeros(columns)
        fits[t], fits[2 * bins + t], fits[3 * bins + t] = 1, -1, -1
        rises = np.zeros(columns)
        rises[t], rises[bins + t] = -1, 1
        if t:
            rises[t - 1] = 1
        rows += [fits, rises]
        low, high = [*low, 0.0, 0.0], [*high, np.inf, np.inf]
    done = np.zeros(columns)
    done[3 * bins : 4 * bins], done[-1] = dt, 1
    upper = np.full(columns, np.inf)
    upper[0] = 0.0  # nothing is ready in the first bin
    upper[2 * bins : 3 * bins] = load
    whole = np.zeros(columns)
    whole[: 2 * bins] = 1
    found = milp(
        cost, integrality=whole, bounds=Bounds(0, upper),
        constraints=LinearConstraint([*rows, done], [*low, work], [*high, np.inf]),
    )  # fmt: skip
    assert found.success
    return float(found.fun + usd_per_work * load.sum() * dt)


@pytest.mark.parametrize("seed", range(6))
def test_no_schedule_of_whole_replicas_is_cheaper_than_the_optimum_of_both(seed):
    rng = np.random.default_rng(seed)
    load = rng.uniform(0.0, 2.5, 40)
    usd_per_work, work = rng.uniform(1.2, 6.0), rng.uniform(300.0, 3000.0)
    exact = integer_programme(load, usd_per_work, work, usd_per_work)
    demand = DemandSeries(60.0, load, load * usd_per_work)
    params = LevelParams(1.0, 1.0, 60.0, 0.0)
    deferred = Deferred(0.0, 2400.0, work, work * usd_per_work)
    bound = optimum_together(demand, [deferred], params, 3)
    assert 0.93 * exact <= bound <= exact * (1 + 1e-6)


def test_jobs_beside_requests_are_done_in_time_and_refuse_none():
    setup = make_setup(WORLD)
    rng = np.random.default_rng(1)
    block = make_block(setup, np.sort(rng.uniform(0.0, 3600.0, 20_000)))
    jobs = make_block(setup, np.full(10_000, 60.0), seed=2)
    controller = setup_controller()
    simulation = JobsSimulation(setup, controller, 1, [Batch(60.0, 3000.0, jobs)], 16)
    ended = run_all(simulation, block, horizon_s=3600.0)
    sums = simulation.sums
    assert sums.in_pool + sums.called == 10_000
    # The very last ones may meet a cold start of the function, which takes a second.
    assert sums.late <= 10
    assert sums.last_s <= 60.0 + 3000.0 + 1.2
    assert not (ended.bits & 16).any()  # none is refused
    assert sums.delayed <= 0.002 * len(block)


def setup_controller():
    from router.settings.schema import ControllerSettings  # noqa: PLC0415  one use

    return ControllerSettings()
