"""Which plan a level follows: when history says that the counter is fooled, and when not."""

from itertools import pairwise

import pytest

from router.policy.sizing import Demand, Level, Plan, Sizing, SizingParams, size
from tests.fakes.builders import NOW

RHO = 3.0
PARAMS = SizingParams(0, 1, 1.0, 1.0, startup_s=10.0, min_billing_s=10.0)
BETA = PARAMS.beta_usd(0.0)

BURST = [1.0] * 20 + [0.0] * 100
"""The counter buys after 10 s, the replica is ready as the burst ends, then it idles."""
PAUSE = [1.0] * 60 + [0.0] * 25
"""The counter gives the replica up in the pause, and pays the next start on top."""


def run(loads, levels=(), params=PARAMS) -> list[Sizing]:
    steps, now = [], NOW
    for load in loads:
        now += 1.0
        steps.append(size(params, levels, Demand(load, RHO * load), 1.0, now))
        levels = steps[-1].levels
    return steps


def starts(steps) -> int:
    return sum(after.wanted > before.wanted for before, after in pairwise(steps))


def last_plan(steps: list[Sizing]) -> Plan:
    return steps[-1].levels[0].plan


def test_bursts_that_end_when_the_replica_is_ready_are_left_to_serverless():
    steps = run(BURST * 20)
    assert last_plan(steps) is Plan.NEVER
    assert starts(steps) < 5, "bought again and again for nothing"


def test_a_replica_is_kept_over_pauses_that_cost_more_starts():
    steps = run(PAUSE * 40)
    assert last_plan(steps) is Plan.ALWAYS
    assert starts(steps[-10 * len(PAUSE) :]) == 0


def test_one_burst_is_no_history():
    assert {step.levels[0].plan for step in run(BURST)} == {Plan.COUNTER}


def test_steady_demand_stays_with_the_counter():
    assert {step.levels[0].plan for step in run([0.9] * 2000)} == {Plan.COUNTER}


@pytest.mark.parametrize(
    ("history", "then", "wanted"),
    [
        pytest.param(BURST * 40, [1.0] * 200, 1, id="bursts that become steady"),
        pytest.param(PAUSE * 40, [0.0] * 400, 0, id="pauses that do not end"),
    ],
)
def test_history_is_outlived_within_some_betas(history, then, wanted):
    steps = run(history + then)
    assert steps[-1].wanted == wanted


def test_without_demand_a_level_rests():
    idle = run(PAUSE * 3 + [0.0] * int(8 * BETA))
    assert idle[-1].levels == idle[-2].levels


def test_captive_work_overrules_a_plan():
    never = run(BURST * 20)[-1].levels
    held = size(PARAMS, never, Demand(0.0, 0.0, held=1), 1.0, NOW + 9999.0)
    assert (held.wanted, held.levels[0].plan) == (1, Plan.COUNTER)


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
    """The counter without plans: a level that has overspent follows it."""
    steps: list[Sizing] = []
    levels: tuple[Level, ...] = ()
    now = NOW
    for load in loads:
        now += 1.0
        sizing = size(PARAMS, levels, Demand(load, RHO * load), 1.0, now)
        levels = tuple(level._replace(excess_usd=1e9, plan=Plan.COUNTER) for level in sizing.levels)
        steps.append(sizing)
    return steps


@pytest.mark.parametrize("shape", [BURST, PAUSE], ids=["bursts", "pauses"])
def test_following_a_plan_is_cheaper_than_the_counter(shape):
    loads = shape * 40
    assert bill(run(loads), loads) < 0.9 * bill(counter_only(loads), loads)


def demand_until_ready(steps: list[Sizing], levels: tuple[Level, ...] = ()) -> list[float]:
    """An adversary: demand only while no replica is ready."""
    loads: list[float] = []
    for second in range(30_000):
        since = levels[0].running_since if levels else None
        is_ready = since is not None and NOW + second - since >= PARAMS.startup_s
        loads.append(0.0 if is_ready else 1.0)
        demand = Demand(loads[-1], RHO * loads[-1])
        steps.append(size(PARAMS, levels, demand, 1.0, NOW + second + 1))
        levels = steps[-1].levels
    return loads


def test_the_clamp_bounds_what_wrong_plans_cost():
    steps: list[Sizing] = []
    loads = demand_until_ready(steps)
    assert {step.levels[0].plan for step in steps} > {Plan.COUNTER}, "never left the counter"
    assert bill(steps, loads) <= 1.1 * bill(counter_only(loads), loads) + 10 * BETA


def test_old_savings_do_not_pay_for_new_mistakes():
    history = [level._replace(running_since=None) for level in run(BURST * 400)[-1].levels]
    steps: list[Sizing] = []
    loads = demand_until_ready(steps, tuple(history))
    assert bill(steps, loads) <= 1.1 * bill(counter_only(loads), loads) + 10 * BETA


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
