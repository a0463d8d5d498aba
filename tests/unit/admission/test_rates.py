import pytest

from router.admission.rates import RateLimit


def test_a_burst_is_free_and_then_the_wait_is_told():
    limit = RateLimit(rate_per_s=2.0, burst=3.0, now=0.0)
    assert [limit.take(0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limit.take(0.0) == pytest.approx(0.5)
    assert limit.take(0.25) == pytest.approx(0.25)


def test_waiting_as_long_as_told_is_enough():
    limit = RateLimit(rate_per_s=2.0, burst=1.0, now=0.0)
    limit.take(0.0)
    assert limit.take(limit.take(0.0)) == 0.0


def test_a_refused_request_costs_nothing():
    limit = RateLimit(rate_per_s=1.0, burst=1.0, now=0.0)
    limit.take(0.0)
    for _ in range(100):
        limit.take(0.5)
    assert limit.take(1.0) == 0.0


def test_silence_saves_no_more_than_a_burst():
    limit = RateLimit(rate_per_s=1.0, burst=2.0, now=0.0)
    assert [limit.take(1e6) == 0.0 for _ in range(3)] == [True, True, False]


def test_in_the_long_run_the_rate_holds():
    limit = RateLimit(rate_per_s=5.0, burst=10.0, now=0.0)
    taken = sum(limit.take(n / 100) == 0.0 for n in range(10_001))
    assert taken == pytest.approx(100 * 5 + 10, abs=1)


def test_a_clock_that_steps_back_gives_nothing():
    limit = RateLimit(rate_per_s=1.0, burst=1.0, now=10.0)
    limit.take(10.0)
    assert limit.take(5.0) > 0
