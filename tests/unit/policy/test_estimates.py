import pytest

from router.policy.estimates import (
    DurationEstimate,
    ServiceTimes,
    WarmEnvironments,
    payload_bucket,
)


@pytest.mark.parametrize(
    ("payload_bytes", "bucket"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1023, 10), (1024, 11), (1 << 60, 39)],
)
def test_payload_buckets_double(payload_bytes, bucket):
    assert payload_bucket(payload_bytes) == bucket


class TestDurationEstimate:
    def test_the_prior_stands_until_something_was_seen(self):
        estimate = DurationEstimate(2.0)
        assert (estimate.mean_s, estimate.upper_s) == (2.0, 2.0 + 3 * 0.5)

    def test_the_first_observation_replaces_a_wrong_prior(self):
        estimate = DurationEstimate(30.0)
        estimate.observe(0.1)
        assert estimate.mean_s == pytest.approx(0.1)
        assert estimate.upper_s == pytest.approx(0.1 + 3 * 0.025)

    def test_it_follows_a_change_within_some_dozens_of_observations(self):
        estimate = DurationEstimate(0.1)
        for _ in range(100):
            estimate.observe(0.1)
        for _ in range(60):
            estimate.observe(0.2)
        assert estimate.mean_s == pytest.approx(0.2, rel=0.05)

    def test_one_outlier_moves_it_by_a_twentieth(self):
        estimate = DurationEstimate(0.1)
        for _ in range(100):
            estimate.observe(0.1)
        estimate.observe(10.1)
        assert estimate.mean_s == pytest.approx(0.6, rel=0.01)

    def test_few_observations_lie_above_the_high_estimate(self):
        estimate = DurationEstimate(1.0)
        values = [0.1 + 0.01 * (n * 7 % 10) for n in range(500)]
        for value in values:
            estimate.observe(value)
        above = sum(value > estimate.upper_s for value in values)
        assert above / len(values) < 0.02
        assert estimate.upper_s < 0.3


class TestServiceTimes:
    def test_every_size_has_the_prior_at_first(self):
        times = ServiceTimes(0.5)
        assert times.estimate(0).mean_s == times.estimate(1 << 50).mean_s == 0.5

    def test_sizes_are_learned_apart(self):
        times = ServiceTimes(0.5)
        times.observe(100, 0.01)
        times.observe(1_000_000, 1.0)
        assert times.estimate(120).mean_s == pytest.approx(0.01)
        assert times.estimate(900_000).mean_s == pytest.approx(1.0)

    def test_an_unseen_size_borrows_from_its_nearest_neighbour(self):
        times = ServiceTimes(0.5)
        times.observe(100, 0.01)
        times.observe(1_000_000, 1.0)
        assert times.estimate(1000).mean_s == pytest.approx(0.01)
        assert times.estimate(1 << 40).mean_s == pytest.approx(1.0)


class TestWarmEnvironments:
    def test_the_first_call_is_cold(self):
        environments = WarmEnvironments(300.0, 10)
        assert environments.p_cold(0.0) == 1.0
        assert environments.take(0.0) is False

    def test_a_returned_environment_is_warm_until_it_is_reclaimed(self):
        environments = WarmEnvironments(300.0, 10)
        environments.give_back(0.0, expected_warm=False, was_cold=True)
        assert (environments.idle(300.0), environments.p_cold(300.0)) == (1, 0.0)
        assert (environments.idle(300.1), environments.p_cold(300.1)) == (0, 1.0)

    def test_the_one_used_last_is_taken_first_and_the_others_age(self):
        environments = WarmEnvironments(100.0, 10)
        environments.give_back(0.0, expected_warm=False, was_cold=True)
        environments.give_back(50.0, expected_warm=False, was_cold=True)
        assert environments.take(60.0) is True
        environments.give_back(61.0, expected_warm=True, was_cold=False)
        assert environments.idle(101.0) == 1

    def test_a_burst_finds_only_as_many_as_idle(self):
        environments = WarmEnvironments(100.0, 10)
        environments.give_back(0.0, expected_warm=False, was_cold=True)
        assert [environments.take(1.0), environments.take(1.0)] == [True, False]

    def test_surprises_raise_the_chance_of_a_cold_start_and_good_guesses_lower_it(self):
        environments = WarmEnvironments(100.0, 10)
        for _ in range(20):
            environments.give_back(0.0, expected_warm=True, was_cold=True)
        surprised = environments.p_cold(0.0)
        assert 0.5 < surprised < 0.8
        for _ in range(40):
            environments.give_back(0.0, expected_warm=True, was_cold=False)
        assert environments.p_cold(0.0) < surprised / 5

    def test_a_platform_that_does_not_tell_surprises_nobody(self):
        environments = WarmEnvironments(100.0, 10)
        environments.give_back(0.0, expected_warm=True, was_cold=None)
        assert environments.p_cold(0.0) == 0.0

    def test_belief_is_bounded_by_the_concurrency(self):
        environments = WarmEnvironments(100.0, 3)
        for _ in range(10):
            environments.give_back(0.0, expected_warm=False, was_cold=True)
        assert environments.idle(0.0) == 3
