"""The study's experiments, small: quiet weeks, and canaries judged by labels that come late."""

import numpy as np

from tests.quality_study.canaries import verdicts
from tests.quality_study.detection import false_weeks


def usual(number):
    rng = np.random.default_rng(1)
    return [
        {"in:x": float(rng.normal()), "in:n": float(rng.integers(5)), "out:s": float(rng.random())}
        for _ in range(number)
    ]


def test_a_quiet_week_brings_no_alarm():
    assert false_weeks(usual(600), 1, 0.05, 0.1, seed=1) == (0, 0)


def test_a_canary_that_is_wrong_15_points_more_often_is_taken_out_and_an_equal_one_is_not():
    worse, equal = (verdicts(0.1, by, 5, 1500, every=50) for by in (0.15, 0.0))
    assert (worse.rolled_back, equal.rolled_back) == (5, 0)
    assert 1 < worse.hours(1000) < 3
