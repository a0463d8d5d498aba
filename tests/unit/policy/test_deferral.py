from dataclasses import replace
from math import inf

import pytest

from router.policy.deferral import (
    NOTHING,
    SLACK,
    Idle,
    Jointly,
    Need,
    Together,
    Waiting,
    Way,
    defer,
    size_jointly,
)
from router.policy.sizing import Demand, Level, SizingParams, SizingReason

RENT = 1e-5
PARAMS = SizingParams(
    min_replicas=0, max_replicas=20, packing=0.9, replica_usd_per_s=RENT,
    startup_s=30.0, min_billing_s=60.0,
)  # fmt: skip
HOUR = 3600.0
CALM = Demand(0.0, 0.0)


def need(work: float, due_at: float, price: float = 5.0) -> Need:
    """Work of so many replica-seconds; serverless costs `price` times what a replica does."""
    return Need(due_at, work, work * RENT * price)


@pytest.mark.parametrize(
    ("needs", "spare", "way"),
    [
        ([], 0.0, Way.FREE),
        ([need(HOUR, 8 * HOUR)], 0.2, Way.FREE),
        ([need(HOUR, 8 * HOUR)], 0.14, Way.REPLICAS),
        ([need(HOUR, 8 * HOUR), need(HOUR, HOUR)], 0.9, Way.REPLICAS),
        ([need(5.0, 8 * HOUR)], 0.0, Way.FUNCTION),
        ([need(HOUR, 8 * HOUR, price=0.9)], 0.0, Way.FUNCTION),
        ([Need(8 * HOUR, 5.0, inf)], 0.0, Way.REPLICAS),
    ],
    ids=[
        "nothing waits",
        "idle time does it until the window ends",
        "idle time does not suffice, should it take a little longer",
        "idle time does not suffice for what is due first",
        "too little to start a replica for",
        "a function that is cheaper than a full replica",
        "only replicas can do it",
    ],
)
def test_the_cheapest_way_is_taken(needs, spare, way):
    assert defer(needs, PARAMS, Idle(spare, 20.0), 0, 0.0).way is way


def test_function_and_replica_are_priced_as_they_are_billed():
    found = defer([need(40.0, HOUR)], PARAMS, Idle(0.0, 20.0), 0, 0.0)
    assert found.way is Way.REPLICAS
    assert found.usd == pytest.approx((40 + 30) * RENT)
    found = defer([need(10.0, HOUR)], PARAMS, Idle(0.0, 20.0), 0, 0.0)
    assert found.way is Way.FUNCTION
    assert found.usd == pytest.approx(10 * RENT * 5)


def test_what_idle_time_will_do_is_not_paid_for():
    paid = defer([need(4 * HOUR, 8 * HOUR)], PARAMS, Idle(0.25, 20.0), 0, 0.0)
    assert paid.usd == pytest.approx(RENT * (4 * HOUR - 2 * HOUR / SLACK + 10 * 30.0))
    assert paid.worth_usd == pytest.approx(paid.usd / (4 * HOUR))


def test_work_waits_until_as_many_replicas_are_needed_as_may_be_started_together():
    work = [need(4 * HOUR, 8 * HOUR)]
    begins = next(
        now
        for now in range(0, int(8 * HOUR), 60)
        if defer(work, PARAMS, Idle(0.0, 20.0), 0, now).replicas
    )
    replicas = defer(work, PARAMS, Idle(0.0, 20.0), 0, begins).replicas
    assert replicas == 9
    # They start, and are done before the window ends.
    assert begins + PARAMS.startup_s + 4 * HOUR / replicas < 8 * HOUR


def test_little_work_is_begun_by_one_replica_as_late_as_it_can_be():
    work = [need(600.0, 8 * HOUR)]
    assert defer(work, PARAMS, Idle(0.0, 20.0), 0, 8 * HOUR - 800.0).replicas == 0
    assert defer(work, PARAMS, Idle(0.0, 20.0), 0, 8 * HOUR - 740.0).replicas == 1


def test_no_more_replicas_than_jobs_can_fill():
    found = defer([need(40 * HOUR, HOUR)], PARAMS, Idle(0.0, 4.0), 0, 0.0)
    assert found.replicas == 4


def test_what_has_begun_goes_on_although_estimates_waver():
    for work in (3.0 * HOUR, 3.3 * HOUR, 2.7 * HOUR):
        assert defer([need(work, HOUR)], PARAMS, Idle(0.0, 20.0), 4, 0.0).replicas == 4
    assert defer([need(4.5 * HOUR, HOUR)], PARAMS, Idle(0.0, 20.0), 4, 0.0).replicas == 5
    # The last of it is not left for another start.
    assert defer([need(10.0, HOUR)], PARAMS, Idle(0.0, 20.0), 4, 0.0).replicas == 4


def test_when_and_for_how_much_it_will_be_done():
    found = defer([need(HOUR, 8 * HOUR)], PARAMS, Idle(0.5, 20.0), 0, 0.0)
    assert (found.done_in_s(HOUR, 8 * HOUR), found.usd) == (2 * HOUR, 0.0)
    found = defer([need(HOUR, 8 * HOUR)], PARAMS, Idle(0.0, 20.0), 0, 0.0)
    assert found.done_in_s(HOUR, 8 * HOUR) == 8 * HOUR


def step(
    demand: Demand,
    needs: list[Need],
    before: Jointly | None = None,
    levels: tuple[Level, ...] = (),
    now: float = 1.0,
) -> Jointly:
    state = (before.sizing.levels, before.state) if before else (levels, None)
    waiting = Waiting(tuple(needs), 20.0, now)
    return size_jointly(PARAMS, state, demand, waiting, 16, (1.0, now))


def run(demand: Demand, needs: list[Need], seconds: int, levels: tuple[Level, ...] = ()) -> Jointly:
    found = step(demand, needs, levels=levels)
    for now in range(2, seconds):
        found = step(demand, needs, found, now=float(now))
    return found


def test_jobs_alone_start_no_replica_before_their_time():
    found = run(CALM, [need(HOUR, 8 * HOUR)], 900)
    assert (found.sizing.wanted, found.alone) == (0, 0)


def test_replicas_for_jobs_come_on_top_of_those_for_requests():
    demand = Demand(1.7, 1.7 * RENT * 5)
    found = run(demand, [need(9 * HOUR, HOUR + 900.0)], 900)
    assert found.alone == 2
    assert found.sizing.wanted == 2 + found.deferral.replicas > 2
    assert found.sizing.reason is SizingReason.BATCH_DEADLINE


def test_a_replica_that_requests_alone_do_not_pay_for_pays_with_jobs_beside_them():
    # Half a replica of requests, for which serverless asks 1.9 times its price.
    demand = Demand(0.5, 0.5 * RENT * 1.9)
    assert run(demand, [], 900).sizing.wanted == 0
    found = run(demand, [need(9 * HOUR, 8 * HOUR)], 900)
    assert (found.alone, found.sizing.wanted) == (0, 1)
    # Where idle time does all of the work, it is worth nothing.
    assert run(demand, [need(0.0, 8 * HOUR)], 900).sizing.wanted == 0


def test_a_running_replica_stays_while_another_would_have_to_be_started_for_jobs_later():
    busy = Demand(0.9, 0.9 * RENT * 5)
    levels = run(busy, [], 600).sizing.levels
    assert levels[0].running_since is not None
    calm_from = [need(HOUR, 8 * HOUR)]
    found = step(CALM, calm_from, levels=levels, now=600.0)
    for now in range(601, 1800):
        found = step(CALM, calm_from, found, now=float(now))
    assert (found.alone, found.sizing.wanted) == (0, 1)


def test_without_jobs_it_is_the_sizing_of_requests():
    demand = Demand(2.5, 2.5 * RENT * 5)
    found = run(demand, [], 900)
    assert (found.sizing.wanted, found.deferral) == (found.alone, NOTHING)
    assert found.sizing.levels == found.state.alone


def test_free_switching_has_no_starts_to_spare():
    params = replace(PARAMS, startup_s=0.0, min_billing_s=0.0)
    found = defer([need(HOUR, 8 * HOUR)], params, Idle(0.0, 4.0), 0, 0.0)
    assert (found.way, found.replicas) == (Way.REPLICAS, 0)
    assert Together().begun == 0
