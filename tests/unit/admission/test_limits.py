import pytest

from router.admission.limits import AimdLimit


def succeed(limit, times) -> None:
    for _ in range(times):
        limit.succeeded()


@pytest.mark.parametrize(
    ("in_flight", "current"),
    [(10, 7), (20, 14), (1, 1), (2, 1), (40, 20)],
    ids=[
        "to 70 % of what was in flight",
        "from the maximum",
        "never below one",
        "two become one",
        "never up",
    ],
)
def test_a_refusal_cuts_the_limit(in_flight, current):
    limit = AimdLimit(20)
    limit.refused(in_flight)
    assert limit.current == current


def test_as_many_successes_as_the_limit_give_one_slot_back():
    limit = AimdLimit(20)
    limit.refused(10)
    succeed(limit, 6)
    assert limit.current == 7
    succeed(limit, 2)
    assert limit.current == 8


def test_it_recovers_to_the_maximum_and_no_further():
    limit = AimdLimit(8)
    limit.refused(4)
    succeed(limit, 1000)
    assert limit.current == 8


def test_refusals_of_one_burst_do_not_starve_it():
    limit = AimdLimit(20)
    for in_flight in (20, 19, 18, 17):
        limit.refused(in_flight)
    assert limit.current == 11


@pytest.mark.parametrize(
    ("refused_at", "maximum", "current"),
    [(None, 30, 30), (None, 5, 5), (10, 30, 7), (10, 5, 5)],
    ids=[
        "an unlearned limit grows",
        "an unlearned limit shrinks",
        "what was learned stays",
        "a smaller maximum binds",
    ],
)
def test_resize(refused_at, maximum, current):
    limit = AimdLimit(20)
    if refused_at:
        limit.refused(refused_at)
    limit.resize(maximum)
    assert (limit.current, limit.maximum) == (current, maximum)
