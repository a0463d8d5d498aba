import pytest

from router.admission.hedging import HedgeParams, Hedging, RecentTimes
from router.domain.decision import Backend

PARAMS = HedgeParams(percentile=95, share=0.05)


class TestRecentTimes:
    @pytest.mark.parametrize(
        ("percent", "expected"), [(50, 50), (95, 95), (99, 99)], ids=["median", "p95", "p99"]
    )
    def test_the_percentile_is_exact(self, percent, expected):
        times = RecentTimes()
        for value in range(100, 0, -1):
            times.observe(value)
        assert times.percentile(percent) == expected

    @pytest.mark.parametrize(("percent", "fewest"), [(50, 20), (95, 20), (99, 100)])
    def test_too_few_observations_tell_none(self, percent, fewest):
        times = RecentTimes()
        for _ in range(fewest - 1):
            times.observe(1.0)
        assert times.percentile(percent) is None
        times.observe(1.0)
        assert times.percentile(percent) == 1.0

    def test_what_is_old_is_forgotten(self):
        times = RecentTimes()
        for value in [9.0] * 600 + [1.0] * 512:
            times.observe(value)
        assert times.percentile(99) == 1.0
        assert len(times._sorted) == 512


class TestHedging:
    def test_times_are_kept_apart_by_backend_and_size(self):
        hedging = Hedging(PARAMS)
        for _ in range(20):
            hedging.observe(Backend.POOL, 300, 1.0)
            hedging.observe(Backend.POOL, 300_000, 2.0)
            hedging.observe(Backend.SERVERLESS, 300, 3.0)
        assert hedging.delay_s(Backend.POOL, 310) == 1.0
        assert hedging.delay_s(Backend.POOL, 290_000) == 2.0
        assert hedging.delay_s(Backend.SERVERLESS, 300) == 3.0
        assert hedging.delay_s(Backend.SERVERLESS, 300_000) is None

    def test_new_parameters_keep_the_times_and_the_budget(self):
        hedging = Hedging(PARAMS)
        for _ in range(40):
            hedging.observe(Backend.POOL, 300, 1.0)
            hedging.budget.deposit(0.0)
        hedging.reconfigure(HedgeParams(percentile=50, share=0.1))
        assert hedging.delay_s(Backend.POOL, 300) == 1.0
        assert hedging.budget.tokens == pytest.approx(2.0)
        hedging.budget.deposit(0.0)
        assert hedging.budget.tokens == pytest.approx(2.1)
