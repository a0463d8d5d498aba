"""When a level gives up following its counter, and when it comes back."""

from itertools import pairwise

import pytest

from router.policy.sizing import Demand, Level, Sizing, SizingParams, size
from tests.fakes.builders import NOW

RHO = 3.0
PARAMS = SizingParams(0, 1, 1.0, 1.0, startup_s=10.0, min_billing_s=10.0)
BETA = PARAMS.beta_usd(0.0)

BURST = [1.0] * 20 + [0.0] * 100
"""The counter buys after 10 s, the replica is ready as the burst ends, then it idles."""


def run(loads, levels=(), params=PARAMS) -> list[Sizing]:
    steps, now = [], NOW
    for load in loads:
        now += 1.0
        steps.append(size(params, levels, Demand(load, RHO * load), 1.0, now))
        levels = steps[-1].levels
    return steps


def starts(steps) -> int:
    return sum(after.wanted > before.wanted for before, after in pairwise(steps))


def gave_up(steps) -> set[bool]:
    return {step.levels[0].gave_up for step in steps}


def test_bursts_that_end_when_the_replica_is_ready_are_left_to_serverless():
    steps = run(BURST * 20)
    assert steps[-1].levels[0].gave_up
    assert starts(steps) < 5, "bought again and again for nothing"


def test_one_burst_is_no_history():
    assert gave_up(run(BURST)) == {False}


@pytest.mark.parametrize("load", [0.2, 0.4, 0.9], ids=lambda load: f"{load} replicas")
def test_steady_demand_stays_with_the_counter(load):
    assert gave_up(run([load] * 2000)) == {False}


def test_pauses_that_the_counter_bridges_are_no_reason_to_give_up():
    assert gave_up(run(([1.0] * 60 + [0.0] * 8) * 40)) == {False}


def test_captive_work_overrules_history():
    levels = run(BURST * 20)[-1].levels
    held = size(PARAMS, levels, Demand(0.0, 0.0, held=1), 1.0, NOW + 9999.0)
    assert (held.wanted, held.levels[0].gave_up) == (1, False)


def test_without_demand_a_level_rests():
    idle = run(BURST * 3 + [0.0] * 10)
    assert idle[-1].levels == idle[-2].levels


def bill(steps, loads) -> float:
    """Price and rent of each second under the decision before it; unused minimum bills count."""
    total, since = 0.0, None
    for second, (step, load) in enumerate(zip(steps, loads, strict=True)):
        total += 1.0 if since is not None else 0.0
        ready = since is not None and second - since >= PARAMS.startup_s
        total += 0.0 if ready else RHO * load
        if step.wanted and since is None:
            since = second + 1
        elif not step.wanted and since is not None:
            total += max(PARAMS.min_billing_s - (second + 1 - since), 0.0)
            since = None
    return total


def counter_only(loads) -> list[Sizing]:
    """The counter alone: a level that has overspent follows it."""
    steps: list[Sizing] = []
    levels: tuple[Level, ...] = ()
    now = NOW
    for load in loads:
        now += 1.0
        steps.append(size(PARAMS, levels, Demand(load, RHO * load), 1.0, now))
        levels = tuple(level._replace(excess_usd=1e9) for level in steps[-1].levels)
    return steps


def test_giving_up_is_cheaper_than_the_counter():
    loads = BURST * 40
    assert bill(run(loads), loads) < 0.9 * bill(counter_only(loads), loads)


def demand_until_ready(steps: list[Sizing]) -> list[float]:
    """An adversary: demand only while no replica is ready."""
    levels: tuple[Level, ...] = ()
    loads: list[float] = []
    for second in range(30_000):
        since = levels[0].running_since if levels else None
        is_ready = since is not None and NOW + second - since >= PARAMS.startup_s
        loads.append(0.0 if is_ready else 1.0)
        demand = Demand(loads[-1], RHO * loads[-1])
        steps.append(size(PARAMS, levels, demand, 1.0, NOW + second + 1))
        levels = steps[-1].levels
    return loads


def test_the_clamp_bounds_what_giving_up_costs():
    steps: list[Sizing] = []
    loads = demand_until_ready(steps)
    assert gave_up(steps) == {True, False}, "the adversary never got it to change"
    assert bill(steps, loads) <= 1.1 * bill(counter_only(loads), loads) + 10 * BETA


def test_old_savings_do_not_pay_for_new_mistakes():
    history = run(BURST * 400)[-1].levels
    steady = [1.0] * 400
    extra = bill(run(steady, history), steady) - bill(counter_only(steady), steady)
    assert extra <= 6 * BETA


def test_captive_work_has_no_part_in_the_price_of_the_rest():
    """One replica's captive work beside half a replica's that pays: 0.5 x 3 > 1."""
    params = SizingParams(0, 5, 1.0, 1.0, 10.0, 10.0, captive_packing=1.0)
    levels: tuple[Level, ...] = ()
    for second in range(100):
        demand = Demand(1.5, RHO * 0.5, captive_load=1.0)
        levels = size(params, levels, demand, 1.0, NOW + second).levels
    assert [level.running_since is not None for level in levels] == [True, True]


def test_history_is_forgotten_after_some_betas():
    """However long the bursts went on, steady demand soon gets its replica."""
    steady = run([1.0] * 500, run(BURST * 400)[-1].levels)
    waited_s = next(second for second, step in enumerate(steady) if step.wanted)
    assert BETA < waited_s < 5 * BETA


def test_serverless_that_is_a_little_dearer_is_noticed_too():
    """Within the allowance, so that only the comparison with the counter can tell."""
    history = run(BURST * 400)[-1].levels
    steady = [1.05 / RHO] * 4000
    assert run(steady[:60], history)[-1].wanted == 0
    assert run(steady, history)[-1].wanted == 1


def test_giving_up_within_the_minimum_is_charged_what_remains_of_it():
    fooled = Level(BETA, bought_at=NOW, running_since=NOW, never_usd=-1.04 * BETA)
    (level,) = size(PARAMS, (fooled,), Demand(0.0, 0.0), 1.0, NOW + 1.0).levels
    assert (level.gave_up, level.running_since) == (True, None)
    second_of_rent, allowed = 1.0, 1.1
    assert level.excess_usd == pytest.approx(second_of_rent - allowed + PARAMS.min_billing_s - 1.0)
