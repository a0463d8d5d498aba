import math
from typing import Any

import pytest

from router.policy.sizing import Demand, Level, Sizing, SizingParams, SizingReason, size
from tests.fakes.builders import NOW

# One replica: 1 USD/s, one request-second costs 3 USD on serverless (rho = 3 at mu = 1).
PARAMS = SizingParams(
    min_replicas=0, max_replicas=3, packing=1.0, replica_usd_per_s=1.0, startup_s=10.0,
    min_billing_s=20.0,
)  # fmt: skip


def demand(load: float, **facts) -> Demand:
    return Demand(load, 3.0 * load, **facts)


def run(params, loads, dt=1.0, levels=(), **facts) -> list[Sizing]:
    steps, now = [], NOW
    for load in loads:
        now += dt
        steps.append(size(params, levels, demand(load, **facts), dt, now))
        levels = steps[-1].levels
    return steps


def test_a_level_is_bought_once_renting_has_cost_as_much_as_a_start():
    # Rent 3, buy 1: the counter grows by 2 a second up to beta = 1 x (10 + 20).
    wanted = [step.wanted for step in run(PARAMS, [1.0] * 20)]
    assert wanted == [0] * 14 + [1] * 6


def test_below_break_even_nothing_is_ever_bought():
    steps = run(PARAMS, [0.33] * 500)
    assert {step.wanted for step in steps} == {0}
    assert {step.reason for step in steps} == {SizingReason.IDLE}


def test_silence_gives_the_replica_back_after_it_has_cost_as_much_again():
    bought = run(PARAMS, [1.0] * 40)[-1]
    steps = run(PARAMS, [0.0] * 60, levels=bought.levels)
    gone_after = next(n for n, step in enumerate(steps, 1) if step.wanted == 0)
    # Once the minimum bill is over only the start-up bill (10 s) is left to regret.
    assert gone_after == 10


def test_a_pause_shorter_than_the_regret_keeps_the_replica():
    bought = run(PARAMS, [1.0] * 40)[-1]
    pauses = ([0.0] * 8 + [1.0] * 5) * 10
    assert {step.wanted for step in run(PARAMS, pauses, levels=bought.levels)} == {1}


def test_each_level_counts_its_own_share():
    steps = run(PARAMS, [2.2] * 100)
    assert steps[14].wanted == 2
    # The third level has 0.2 of a replica's work: rent 0.6 < buy 1.
    assert steps[-1].wanted == 2
    assert (steps[-1].levels[2].counter_usd, steps[-1].levels[2].running_since) == (0.0, None)


def test_packing_leaves_headroom():
    packed = SizingParams(0, 3, 0.5, 1.0, 10.0, 20.0)
    assert run(PARAMS, [1.0] * 100)[-1].wanted == 1
    assert run(packed, [1.0] * 100)[-1].wanted == 2


@pytest.mark.parametrize(
    ("bounds", "facts", "load", "expected"),
    [
        ((0, 3), {}, 0.0, (0, SizingReason.IDLE)),
        ((1, 3), {}, 0.0, (1, SizingReason.MIN_REPLICAS)),
        ((2, 3), {}, 1.0, (2, SizingReason.MIN_REPLICAS)),
        ((0, 3), {"latency_duty": True}, 0.0, (1, SizingReason.LATENCY_DUTY)),
        ((0, 3), {"held": 1}, 0.0, (1, SizingReason.CAPTIVE_WORK)),
        ((0, 4), {"captive_load": 1.5}, 1.5, (3, SizingReason.CAPTIVE_WORK)),
        ((0, 3), {}, 1.0, (1, SizingReason.RENT_OR_BUY)),
        ((0, 3), {}, 9.0, (3, SizingReason.MAX_REPLICAS)),
        ((0, 1), {"captive_load": 9.0}, 9.0, (1, SizingReason.MAX_REPLICAS)),
    ],
    ids=[
        "nothing to do",
        "the minimum is kept",
        "the minimum is above what is bought",
        "the objective needs a replica",
        "a held request needs a replica",
        "captive work needs room for its bursts",
        "traffic pays for one",
        "more would pay than are allowed",
        "captive work is bounded too",
    ],
)
def test_wanted_and_why(bounds, facts, load, expected):
    params = SizingParams(bounds[0], bounds[1], 1.0, 1.0, 10.0, 20.0)
    last = run(params, [load] * 60, **facts)[-1]
    assert (last.wanted, last.reason) == expected


@pytest.mark.parametrize("facts", [{"held": 1}, {"captive_load": 0.5}], ids=["held", "captive"])
def test_work_that_cannot_be_rented_starts_a_replica_at_once(facts):
    """Also in the very first step, which has no duration yet."""
    first = size(PARAMS, (), demand(0.5, **facts), 0.0, NOW)
    assert first.wanted == 1
    assert all(math.isfinite(level.counter_usd) for level in first.levels)


def test_a_free_switch_follows_the_load_both_ways():
    free = SizingParams(0, 1, 1.0, 1.0, 0.0, 0.0)
    wanted = [step.wanted for step in run(free, [1.0, 0.1, 1.0, 0.1])]
    assert wanted == [1, 0, 1, 0]


def cost_of(steps, loads, startup_s, dt) -> Any:
    """Rent while a replica is not ready, its price while it is wanted."""
    total, on_for = 0.0, 0.0
    for step, load in zip(steps, loads, strict=True):
        on_for = on_for + dt if step.wanted else 0.0
        ready = on_for > startup_s
        total += (0.0 if ready else 3.0 * load * dt) + (1.0 * dt if step.wanted else 0.0)
    return total


def test_an_adversary_cannot_make_it_pay_more_than_three_times_the_optimum():
    """Demand stops when the replica is ready and returns when it is given back."""
    params = SizingParams(0, 1, 1.0, 1.0, 0.0, 10.0)
    steps: list[Sizing] = []
    loads: list[float] = []
    levels: tuple[Level, ...] = ()
    now = NOW
    for _ in range(4000):
        load = 0.0 if steps and steps[-1].wanted else 1.0
        now += 0.1
        steps.append(size(params, levels, demand(load), 0.1, now))
        loads.append(load)
        levels = steps[-1].levels
    ours = cost_of(steps, loads, 0.0, 0.1)
    always_on, never_on = len(loads) * 0.1 * 1.0, sum(loads) * 0.1 * 3.0
    assert len({step.wanted for step in steps}) == 2, "the adversary never got it to switch"
    assert ours <= 3.0 * min(always_on, never_on) * 1.02
