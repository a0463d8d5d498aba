"""Single scenes through a simulated gateway: who runs where, what waits, what is refused."""

from typing import Any

import numpy as np
import pytest

from router.replay.baselines import Fixed
from router.replay.machine import (
    CUT,
    HELD,
    IN_POOL,
    ON_SERVERLESS,
    REFUSED,
    SPILLED,
    WAS_COLD,
)
from router.replay.simulator import Simulation
from router.replay.sizers import BaselineSizer, Observed, RouterSizer, ScheduleSizer, Sizer
from router.replay.workload import WISH_POOL, WISH_SERVERLESS, ModelSetup
from tests.fakes.replays import POOL, make_block, make_setup, router_sizer, run_all

WORLD = "{service_time_ms: 100, startup_s: 20, serverless: {overhead_ms: 10, cold_start_ms: 1000}}"
COLD, WARM = ON_SERVERLESS | WAS_COLD, ON_SERVERLESS


def fixed(replicas: int) -> Sizer:
    return BaselineSizer(Fixed("fixed", replicas, overflow=True), 2)


def simulate(setup: ModelSetup, sizer: Sizer | None, at: list[float], **columns: Any):
    ended = run_all(Simulation(setup, sizer, 1), make_block(setup, at, **columns))
    return ended.bits.tolist(), ended.latency_s.tolist()


def test_without_replicas_the_function_carries_all_of_it() -> None:
    bits, latency_s = simulate(make_setup(WORLD), fixed(0), [1.0, 5.0, 9.0])
    assert bits == [COLD, WARM, WARM]
    assert latency_s == pytest.approx([1.11, 0.11, 0.11])


def test_a_ready_replica_is_preferred_and_the_function_bridges_until_then() -> None:
    bits, latency_s = simulate(make_setup(WORLD), fixed(1), [1.0, 19.9, 20.1, 30.0])
    assert bits == [COLD, WARM, IN_POOL, IN_POOL]
    assert latency_s[2:] == pytest.approx([0.1, 0.1])


def test_a_short_queue_is_waited_for_and_a_long_one_spills() -> None:
    at = [30.0 + 0.001 * n for n in range(14)]
    bits, latency_s = simulate(make_setup(WORLD), fixed(1), at)
    in_pool = [number for number, bit in enumerate(bits) if not bit & ON_SERVERLESS]
    spilled = [number for number, bit in enumerate(bits) if bit & ON_SERVERLESS]
    assert in_pool == list(range(len(in_pool)))
    assert len(in_pool) > 2
    assert all(bits[number] & SPILLED for number in spilled)
    assert max(latency_s[number] for number in in_pool) <= 0.5


@pytest.mark.parametrize("shortcuts", [True, False], ids=["by shortcuts", "by decide"])
def test_a_wait_that_takes_too_long_ends_on_the_function(shortcuts: bool) -> None:
    setup = make_setup(WORLD)
    # First the function is warmed; later two long requests take all of the replica.
    at = [1.0, 2.5, 30.0, 30.0, 30.01]
    simulation = Simulation(setup, fixed(1), 1, shortcuts=shortcuts)
    service_s = [0.1, 0.1, 5.0, 5.0, 0.1]
    ended = run_all(simulation, make_block(setup, at, service_s=service_s))
    assert ended.bits.tolist() == [COLD, WARM, IN_POOL, IN_POOL, WARM | SPILLED]
    # It leaves while a call is likely to be in time: 110 ms, and three deviations.
    assert 0.3 < ended.latency_s[4] < 0.5


def test_what_no_function_takes_is_held_for_a_replica() -> None:
    setup = make_setup(WORLD)
    simulation = Simulation(setup, router_sizer(setup), 1)
    block = make_block(setup, [1.5], payload_bytes=[9_000_000], bucket=[24], fits=[False])
    ended = run_all(simulation, block, horizon_s=60.0)
    assert ended.bits.tolist() == [IN_POOL]
    # Sizing is woken at once, not at its next second.
    assert ended.latency_s.tolist() == pytest.approx([20.1])


def test_patience_ends_and_the_request_is_refused() -> None:
    pool = POOL.replace("startup: 20s", "startup: 20s, queue: {max_wait: 5s}")
    setup = make_setup(WORLD, serverless=None, pool=pool)
    simulation = Simulation(setup, router_sizer(setup), 1)
    ended = run_all(simulation, make_block(setup, [1.0, 1.1, 19.5]), horizon_s=60.0)
    assert ended.bits.tolist() == [REFUSED, REFUSED, IN_POOL]
    assert np.isnan(ended.latency_s[:2]).all()


def test_a_full_queue_refuses_at_once() -> None:
    pool = POOL.replace("startup: 20s", "startup: 20s, queue: {max_requests: 1}")
    setup = make_setup(WORLD, serverless=None, pool=pool)
    results = Simulation(setup, fixed(1), 1).run(make_block(setup, [1.0, 1.1]))
    assert results.bits.tolist() == [HELD, REFUSED]


def test_a_deadline_cuts_what_runs_and_what_waits() -> None:
    setup = make_setup(WORLD, serverless=None)
    bits, latency_s = simulate(setup, fixed(1), [1.0, 30.0, 30.0], deadline_s=[2.0, 0.05, 0.2])
    assert bits == [REFUSED | CUT, IN_POOL | CUT, IN_POOL]
    assert latency_s[1:] == pytest.approx([0.05, 0.1])


def test_a_cut_call_is_paid_for_and_its_environment_stays_busy() -> None:
    setup = make_setup(WORLD, pool=None)
    bits, _ = simulate(setup, None, [1.0, 1.5, 4.0], deadline_s=[0.2, 0.2, np.nan])
    assert bits == [COLD | CUT, COLD | CUT, WARM]


@pytest.mark.parametrize(
    ("wish", "expected"), [(WISH_POOL, IN_POOL), (WISH_SERVERLESS, COLD)], ids=["pool", "function"]
)
def test_a_rule_decides_where_both_can(wish: int, expected: int) -> None:
    bits, _ = simulate(make_setup(WORLD), fixed(1), [30.0], wish=[wish])
    assert bits == [expected]


def test_refused_calls_go_to_the_pool_and_teach_the_limit() -> None:
    setup = make_setup(WORLD.replace("overhead_ms: 10", "overhead_ms: 10, max_concurrency: 2"))
    simulation = Simulation(setup, fixed(1), 1)
    ended = run_all(simulation, make_block(setup, [1.0, 1.0, 1.0, 19.0]), horizon_s=40.0)
    assert ended.bits.tolist() == [COLD, COLD, IN_POOL, WARM]
    assert simulation.throttled == 1
    assert ended.latency_s[2] == pytest.approx(19.1)


def test_a_refused_call_without_a_pool_waits_for_the_limit_it_taught() -> None:
    world = WORLD.replace("overhead_ms: 10", "overhead_ms: 10, max_concurrency: 1")
    setup = make_setup(world, pool=None)
    simulation = Simulation(setup, None, 1)
    ended = run_all(simulation, make_block(setup, [1.0, 1.001]))
    assert ended.bits.tolist() == [COLD, WARM]
    assert ended.latency_s.tolist() == pytest.approx([1.11, 2.11 - 1.001 + 0.11])
    assert simulation.throttled == 1


def test_without_overflow_the_function_is_left_out() -> None:
    setup = make_setup(WORLD)
    simulation = Simulation(setup, fixed(1), 1, may_overflow=False)
    ended = run_all(simulation, make_block(setup, [1.0, 30.0]), horizon_s=60.0)
    assert ended.bits.tolist() == [IN_POOL, IN_POOL]
    assert ended.latency_s.tolist() == pytest.approx([19.1, 0.1])


def test_start_ups_are_learned_from_those_that_were() -> None:
    setup = make_setup(WORLD, pool=POOL.replace("startup: 20s", "startup: 5s"))
    simulation = Simulation(setup, ScheduleSizer(np.array([1, 1, 1, 0]), dt=10.0), 1)
    run_all(simulation, make_block(setup, [1.0]), horizon_s=60.0)
    believed = simulation.believed_pool(0, 60.0)
    assert believed is not None
    assert believed.ready == 0
    assert believed.ready_in_s == pytest.approx(20.0)


def test_the_limit_recovers_as_calls_succeed() -> None:
    world = WORLD.replace("overhead_ms: 10", "overhead_ms: 10, max_concurrency: 2")
    setup = make_setup(world, pool=None)
    simulation = Simulation(setup, None, 1)
    block = make_block(setup, [1.0, 1.0, 1.0, *np.arange(20.0, 60.0)])
    run_all(simulation, block)
    believed = simulation.believed_function(0, 70.0)
    assert believed is not None
    assert simulation.throttled == 1
    assert 2 < believed.max_concurrency < 1000


def test_a_schedule_is_followed_bin_by_bin() -> None:
    setup = make_setup(WORLD)
    sizer = ScheduleSizer(np.array([0, 1, 1, 1, 1, 1, 1, 1, 0, 2]), dt=10.0)
    simulation = Simulation(setup, sizer, 1)
    run_all(simulation, make_block(setup, [1.0]), horizon_s=100.0)
    assert [(life.launched, life.unready) for life in simulation.replicas.lives] == [
        (10.0, 80.0), (90.0, np.inf), (90.0, np.inf),
    ]  # fmt: skip


def test_steady_work_above_break_even_ends_up_in_the_pool() -> None:
    setup = make_setup(WORLD)
    block = make_block(setup, np.arange(0.0, 900.0, 0.1))
    ended = run_all(Simulation(setup, router_sizer(setup), 1), block)
    assert (ended.bits[:100] & ON_SERVERLESS).all()
    assert not (ended.bits[-1000:] & ON_SERVERLESS).any()


def test_sporadic_work_never_starts_a_replica() -> None:
    setup = make_setup(WORLD)
    simulation = Simulation(setup, router_sizer(setup), 1)
    ended = run_all(simulation, make_block(setup, np.arange(0.0, 9000.0, 100.0)))
    assert (ended.bits & ON_SERVERLESS).all()
    assert not simulation.replicas.lives


class _EveryStep(RouterSizer):
    """The router's sizing, never calm."""

    steps = 0

    def wanted(self, observed: Observed, now: float) -> int:
        self.steps += 1
        wanted = super().wanted(observed, now)
        self.calm_usd = None
        return wanted


@pytest.mark.parametrize("cold_start", ["allow", "avoid"])
def test_skipping_idle_steps_of_the_sizing_changes_nothing(cold_start: str) -> None:
    setup = make_setup(WORLD, slo=f"{{latency_ms: 500, cold_start: {cold_start}}}")
    bursts = [start + 0.05 * n for start in (10.0, 400.3, 2000.7, 9000.0) for n in range(600)]
    seldom = np.random.default_rng(1).uniform(0.0, 12_000.0, 300)
    block = make_block(setup, np.sort(np.concatenate([bursts, seldom])))
    careful, quick = router_sizer(setup, kind=_EveryStep), router_sizer(setup)
    seen = []
    for sizer in (careful, quick):
        simulation = Simulation(setup, sizer, 1)
        ended = run_all(simulation, block, horizon_s=12_000.0)
        seen.append(
            (repr(ended.latency_s.tolist()), ended.bits.tolist(), simulation.replicas.lives)
        )
    assert seen[0] == seen[1]
    assert isinstance(careful, _EveryStep)
    assert careful.steps == 12_001
