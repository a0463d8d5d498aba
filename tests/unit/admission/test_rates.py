import pytest

from router.admission.rates import RateLimit, TakenElsewhere


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


class TestSeveralGateways:
    def test_what_others_let_through_counts_here(self):
        limit = RateLimit(rate_per_s=2.0, burst=4.0, now=0.0)
        limit.taken_elsewhere(3, 0.0)
        assert limit.take(0.0) == 0.0
        assert limit.take(0.0) == pytest.approx(0.5)
        assert limit.taken == 1, "only what was let through here"

    def test_debt_is_paid_off_but_not_for_ever(self):
        limit = RateLimit(rate_per_s=2.0, burst=4.0, now=0.0)
        limit.taken_elsewhere(10, 0.0)
        assert limit.take(0.0) == pytest.approx(3.5)
        limit.taken_elsewhere(10**9, 0.0)
        assert limit.take(0.0) == pytest.approx(60.5)

    def test_they_keep_to_the_rate_together(self):
        """Each hears of the other after a tenth of a second; both are asked all the time."""
        limits = [RateLimit(5.0, 10.0, 0.0) for _ in range(2)]
        elsewhere = [TakenElsewhere() for _ in limits]
        for tick in range(1, 601):
            now = tick / 10
            for own, others, heard in zip(limits, reversed(limits), elsewhere, strict=True):
                new = heard.since_last({"peer": {"k": others.taken}})
                own.taken_elsewhere(new.get("k", 0), now)
            for limit in limits:
                while limit.take(now) == 0.0:
                    pass
        total = sum(limit.taken for limit in limits)
        assert 5 * 60 <= total <= 5 * 60 + 2 * 10

    @pytest.mark.parametrize(
        ("before", "after", "new"),
        [
            ({}, {"a": {"k": 7}}, {}),
            ({"a": {"k": 7}}, {"a": {"k": 9}}, {"k": 2}),
            ({"a": {"k": 7}}, {"a": {"k": 7}}, {}),
            ({"a": {}}, {"a": {"k": 3}}, {"k": 3}),
            ({"a": {"k": 7}}, {"a": {"k": 1}}, {"k": 1}),
            ({"a": {"k": 7}}, {}, {}),
            ({"a": {"k": 1}, "b": {"k": 1}}, {"a": {"k": 2}, "b": {"k": 4}}, {"k": 4}),
        ],
        ids=["a new peer", "more", "no more", "a new key", "started anew", "gone", "two peers"],
    )
    def test_what_is_new(self, before, after, new):
        elsewhere = TakenElsewhere()
        elsewhere.since_last(before)
        assert elsewhere.since_last(after) == new
