"""What a world can do to a gateway: crashes, storms of refusals, slow batches, late counters."""

from typing import Any

import numpy as np
import pytest

from router.replay.baselines import Fixed
from router.replay.machine import IN_POOL, ON_SERVERLESS, REFUSED
from router.replay.measure import Measure
from router.replay.simulator import Simulation
from router.replay.sizers import BaselineSizer, ScheduleSizer, Sizer
from tests.fakes.replays import POOL, make_block, make_setup, router_sizer, run_all

CRASHING = "{service_time_ms: 100, startup_s: 20, crash_after_s: 40}"


def fixed(replicas: int) -> Sizer:
    return BaselineSizer(Fixed("fixed", replicas, overflow=True), 2)


def ended_at(world: str, sizer: Sizer, at: list[float], horizon_s: float, **config: Any):
    simulation = Simulation(setup := make_setup(world, **config), sizer, 1)
    ended = run_all(simulation, make_block(setup, at), horizon_s)
    return simulation, ended


def test_a_crashed_replica_is_followed_by_another_that_starts_and_is_paid() -> None:
    simulation, _ = ended_at(CRASHING, fixed(1), [1.0], 130.0)
    lives = [(life.launched, life.ready, life.gone) for life in simulation.replicas.lives]
    assert lives == [(0.0, 20.0, 60.0), (60.0, 80.0, 120.0), (120.0, 140.0, 180.0)]
    # A minute each, the shortest that is billed; the last one too.
    assert simulation.replicas.paid()[:, 3].tolist() == [60.0, 120.0, 180.0]


def test_what_a_crashed_replica_worked_on_runs_again_on_the_function() -> None:
    _, ended = ended_at(CRASHING, fixed(1), [59.5, 59.95], 100.0)
    assert ended.bits[0] == IN_POOL
    assert ended.latency_s[0] == pytest.approx(0.1)
    assert ended.bits[1] & ON_SERVERLESS
    # 50 ms until the crash, then a cold call.
    assert ended.latency_s[1] == pytest.approx(0.05 + 1.0 + 0.1)


def test_what_a_crashed_replica_worked_on_runs_again_on_another_replica() -> None:
    world = "{service_time_ms: 2000, startup_s: 5, crash_after_s: {exponential: 60}}"
    work = np.arange(10.0, 300.0, 0.5).tolist()
    simulation, ended = ended_at(world, fixed(6), work, 300.0, serverless=None)
    assert len(simulation.replicas.lives) > 15
    assert not (ended.bits & REFUSED).any()
    again = ended.latency_s > 2.0 + 1e-9
    assert 5 < again.sum() < 60
    assert (ended.latency_s[again] < 2 * 2.0).mean() > 0.8


def test_another_replica_is_preferred_to_the_function() -> None:
    """The second one is launched 20 s later, so it crashes 20 s later."""
    sizer = ScheduleSizer(np.array([1, 1, 2, 2, 2, 2, 2, 2]), dt=10.0)
    _, ended = ended_at(CRASHING, sizer, [59.95], 70.0)
    assert ended.bits.tolist() == [IN_POOL]
    assert ended.latency_s.tolist() == pytest.approx([0.05 + 0.1])


def test_nothing_runs_twice_that_may_not() -> None:
    model = POOL + "\n    idempotent: false"
    _, ended = ended_at(CRASHING, fixed(1), [59.5, 59.95], 100.0, pool=model)
    assert ended.bits.tolist() == [IN_POOL, REFUSED]


def test_a_deadline_ends_a_request_before_its_replica_crashes() -> None:
    simulation = Simulation(setup := make_setup(CRASHING), fixed(1), 1)
    block = make_block(setup, [59.95], deadline_s=[0.02])
    assert run_all(simulation, block, 100.0).latency_s.tolist() == pytest.approx([0.02])


def test_storms_come_at_their_times_and_refuse_every_call() -> None:
    world = "{service_time_ms: 100, serverless: {refusal_storms: {every_s: 100, for_s: 10}}}"
    at = [1.0, 99.0, 105.0, 111.0, 250.0]
    simulation, ended = ended_at(world, fixed(0), at, 300.0, pool=None)
    assert [bool(bit & REFUSED) for bit in ended.bits] == [False, False, True, False, False]
    # The refused one was tried as often as a request may be.
    assert simulation.throttled >= 2


def test_requests_at_once_take_as_long_as_the_curve_says() -> None:
    world = "{service_time_ms: 100, slowdown_at_once: [1, 1.5], startup_s: 0}"
    _, ended = ended_at(world, fixed(1), [1.0, 1.0, 5.0], 10.0)
    assert ended.latency_s.tolist() == pytest.approx([0.1, 0.15, 0.1])


@pytest.mark.parametrize(
    ("curve", "load"),
    [
        ("", 0.05),
        (", slowdown_at_once: [1, 1]", 0.05),
        (", slowdown_at_once: [1, 2]", 0.1),
        (", slowdown_at_once: [1, 1.6]", 0.08),
    ],
    ids=["no curve", "batches are free", "no gain from batches", "some gain"],
)
def test_the_demand_is_what_a_replica_at_its_best_needs(curve: str, load: float) -> None:
    """100 ms a second, two at once in a replica."""
    setup = make_setup(f"{{service_time_ms: 100, concurrency: 2{curve}}}")
    measure = Measure(setup)
    measure.add(make_block(setup, np.arange(0.5, 10.0)))
    assert measure.series(0.0, 10.0).load.tolist() == pytest.approx([load])


@pytest.mark.parametrize("delay_s", [0, 30], ids=["fresh", "30 s old"])
def test_sizing_learns_of_a_burst_by_the_delay_later(delay_s: int) -> None:
    world = f"{{service_time_ms: 100, startup_s: 20, signals_delay_s: {delay_s}}}"
    simulation = Simulation(setup := make_setup(world), router_sizer(setup), 1)
    run_all(simulation, make_block(setup, np.arange(5.0, 300.0, 0.05)), 300.0)
    first = simulation.replicas.lives[0].launched
    fresh = Simulation(setup := make_setup(world.replace("30", "0")), router_sizer(setup), 1)
    run_all(fresh, make_block(setup, np.arange(5.0, 300.0, 0.05)), 300.0)
    assert first == pytest.approx(fresh.replicas.lives[0].launched + delay_s, abs=1.0)
