"""Evidence may be looked at after every label and still cries wolf no oftener than it says."""

from math import log

import numpy as np
import pytest

from router.quality.evidence import Losses, chance, log_evidence, surely_within


def first_alarm(stable_rate, canary_rate, rng, labels, *, margin=0.0, alpha=0.05):
    """After how many labels a side the alarm came, looking after each tenth; None if never."""
    stable, canary = Losses(), Losses()
    draws = rng.random((labels, 2)) < (stable_rate, canary_rate)
    for at, (ours, theirs) in enumerate(draws, 1):
        stable.add(float(ours))
        canary.add(float(theirs))
        if at % 10 == 0 and log_evidence(stable, canary, margin) > log(1 / alpha):
            return at
    return None


def test_equal_sides_are_hardly_ever_told_apart_however_often_one_looks():
    rng = np.random.default_rng(1)
    alarms = sum(first_alarm(0.1, 0.1, rng, 300) is not None for _ in range(40))
    assert alarms <= 4  # 5 % at most; 4 of 40 are a tenth


def test_a_canary_that_is_much_worse_is_found():
    found = first_alarm(0.1, 0.3, np.random.default_rng(2), 600, alpha=0.001)
    assert found is not None


def test_what_is_within_the_margin_is_no_evidence():
    stable, canary = Losses(10_000, 1000.0), Losses(10_000, 1400.0)
    assert log_evidence(stable, canary, 0.05) == 0.0
    assert log_evidence(stable, canary, 0.01) > log(1000)
    assert chance(log_evidence(stable, canary, 0.01)) < 0.001


@pytest.mark.parametrize("losses", [Losses(), Losses(5, 0.0), Losses(5, 5.0), Losses(100, 12.5)])
def test_bounds_hold_the_mean_and_stay_within_0_and_1(losses):
    low, high = surely_within(losses, 0.05)
    assert 0 <= low <= losses.mean <= high <= 1


def test_bounds_shrink_with_labels():
    widths = [np.subtract(*surely_within(Losses(n, n / 10), 0.05)[::-1]) for n in (50, 500, 5000)]
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0
