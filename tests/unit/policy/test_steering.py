from math import inf, sqrt

import pytest

from router.domain.decision import Backend, Reason
from router.policy.steering import (
    Slo,
    forecast_pool,
    forecast_serverless,
    steer,
    time_left_s,
)
from tests.fakes.builders import NOW, SLO, make_pool, make_request, make_serverless

COLD_COUNTS = Slo(0.25, 99, cold_allowed=False)
BUSY = {"free_slots": 0, "queued": 45}
LATE = {"free_slots": 0, "queued": 50}


@pytest.mark.parametrize(
    ("slo", "request_facts", "pool", "serverless", "expected"),
    [
        (SLO, {}, {}, {}, (Backend.POOL, Reason.WARM_CAPACITY)),
        (SLO, {}, {"free_slots": 0}, {}, (Backend.POOL, Reason.WARM_CAPACITY)),
        (SLO, {}, BUSY, {}, (Backend.SERVERLESS, Reason.SPILLOVER)),
        (
            COLD_COUNTS,
            {},
            {"free_slots": 0},
            {"p_cold": 1.0},
            (Backend.POOL, Reason.WARM_CAPACITY),
        ),
        (SLO, {}, {"upper_s": 0.3}, {}, (Backend.SERVERLESS, Reason.DEADLINE)),
        (SLO, {}, BUSY, {"upper_s": 0.3}, (Backend.SERVERLESS, Reason.DEADLINE)),
        (
            SLO,
            {},
            {"upper_s": 0.3, "expected_s": 0.05},
            {"upper_s": 0.3},
            (Backend.POOL, Reason.DEADLINE),
        ),
        (SLO, {}, BUSY, {"p_cold": 1.0}, (Backend.SERVERLESS, Reason.SPILLOVER)),
        (COLD_COUNTS, {}, BUSY, {"p_cold": 1.0}, (Backend.POOL, Reason.DEADLINE)),
        (COLD_COUNTS, {}, LATE, {"p_cold": 1.0}, (Backend.SERVERLESS, Reason.DEADLINE)),
        (
            COLD_COUNTS,
            {},
            LATE,
            {"p_cold": 1.0, "init_s": 30.0},
            (Backend.POOL, Reason.DEADLINE),
        ),
        (
            COLD_COUNTS,
            {"deadline": NOW + 0.25},
            LATE,
            {"p_cold": 1.0},
            (Backend.POOL, Reason.DEADLINE),
        ),
        (
            SLO,
            {"deadline": NOW + 0.2},
            BUSY,
            {"p_cold": 1.0},
            (Backend.POOL, Reason.DEADLINE),
        ),
        (
            SLO,
            {"deadline": NOW + 9.0},
            BUSY,
            {},
            (Backend.POOL, Reason.WARM_CAPACITY),
        ),
        (
            SLO,
            {"received_at": NOW - 0.22},
            {},
            {},
            (Backend.POOL, Reason.DEADLINE),
        ),
    ],
    ids=[
        "a free slot costs nothing",
        "a short wait that still meets the objective is free too",
        "a short wait is better than a cold start that counts",
        "spills when the wait would break the objective",
        "an idle but slow replica loses to a function in time",
        "nobody in time: the function finishes first",
        "nobody in time: on a draw the pool has it",
        "cold starts do not count where they are allowed",
        "cold starts count where they are to be avoided",
        "late anyway: a cold call, so that nobody waits behind it and the next one is warm",
        "late anyway: but not for a cold start of minutes",
        "late anyway: a client's deadline leaves no time to think of others",
        "cold starts always count against a client's deadline",
        "a generous deadline makes the wait acceptable",
        "time already spent counts",
    ],
)
def test_choice(slo, request_facts, pool, serverless, expected):
    found = steer(
        make_request(**request_facts), slo, make_serverless(**serverless), make_pool(**pool), NOW
    )
    assert (found.backend, found.reason) == expected


@pytest.mark.parametrize(
    ("slo", "pool", "serverless", "expected"),
    [
        (SLO, {"free_slots": 0}, {}, 0.1375),
        (SLO, {"free_slots": 0}, {"p_cold": 1.0}, 0.1375),
        (COLD_COUNTS, {"free_slots": 0}, {"p_cold": 0.1}, 0.0375),
        (COLD_COUNTS, {"free_slots": 0}, {"p_cold": 1.0}, inf),
        (SLO, {"free_slots": 0, "upper_s": 0.15}, {}, 0.1),
        (SLO, {"free_slots": 0}, {"in_flight": 20}, inf),
        (SLO, {"free_slots": 0}, {"upper_s": 0.3}, inf),
        (SLO, {}, {}, inf),
        (SLO, BUSY, {}, inf),
    ],
    ids=[
        "until the function would just be in time",
        "a cold start that is allowed takes no time off",
        "a likely cold start leaves less patience",
        "a cold function could not help",
        "a slow replica must be in time as well",
        "a function without room could not help",
        "a slow function could not help",
        "who has a slot waits for nothing",
        "who is sent to the function waits for nothing",
    ],
)
def test_how_long_the_pool_is_waited_for(slo, pool, serverless, expected):
    found = steer(make_request(), slo, make_serverless(**serverless), make_pool(**pool), NOW)
    assert found.patience_s == pytest.approx(expected)


def test_time_left_is_the_deadline_where_there_is_one():
    assert time_left_s(make_request(deadline=NOW + 3), SLO, NOW + 1) == pytest.approx(2)
    assert time_left_s(make_request(), SLO, NOW + 0.1) == pytest.approx(0.15)


def test_the_pool_is_predicted_by_slots_and_queue():
    free = forecast_pool(make_pool(expected_s=0.1, upper_s=0.3))
    assert free == (0.1, 0.3, 0.0)
    waiting = make_pool(expected_s=0.1, upper_s=0.3, free_slots=0, queued=7)
    # Seven wait, and those in service are half done.
    expected_s = 7.5 * 0.1 / 4 + 0.1
    upper_s = expected_s + 0.2 * sqrt(1 + 8 / 16)
    assert forecast_pool(waiting) == pytest.approx((expected_s, upper_s, 0.0))
    starting = make_pool(expected_s=0.1, slots=0, free_slots=0, ready=0, ready_in_s=2.0)
    assert forecast_pool(starting).expected_s == pytest.approx(2.0 + 0.05 + 0.1)


def test_a_function_is_predicted_by_its_chance_of_a_cold_start():
    warm = make_serverless(p_cold=0.5)
    assert forecast_serverless(warm, counts_cold=True) == pytest.approx((0.55, 0.6, 3e-6))
    assert forecast_serverless(warm, counts_cold=False) == pytest.approx((0.55, 0.1, 3e-6))
    full = make_serverless(in_flight=20, queued=19)
    assert forecast_serverless(full, counts_cold=True).expected_s == pytest.approx(0.1)
