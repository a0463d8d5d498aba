from random import Random

import pytest

from router.quality.quality import Quality, SampleResult
from router.quality.samples import QualityParams
from router.quality.tap import BURST_S, Tap


def tap_of(share: float, max_per_s: float = 50.0) -> Tap:
    return Tap(share, max_per_s, Random(7))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 1.0])
def test_as_large_a_share_is_drawn_as_asked_for(share: float):
    tap, of = tap_of(share), 200_000
    drawn = sum(tap.takes() for _ in range(of))
    spread = (share * (1 - share) * of) ** 0.5
    assert abs(drawn - share * of) <= 4 * spread


def test_a_busy_model_is_sampled_at_most_so_often():
    tap, taken = tap_of(1.0, max_per_s=20.0), 0
    for tick in range(100_000):  # a thousand requests a second
        taken += tap.has_rate(tick / 1000)
    assert taken == pytest.approx(20 * (100 + BURST_S), abs=1)


def test_after_a_silence_no_more_than_a_burst_is_taken():
    tap = tap_of(1.0, max_per_s=3.0)
    assert sum(tap.has_rate(1e6) for _ in range(1000)) == 3 * BURST_S
    assert sum(tap.has_rate(2e6) for _ in range(1000)) == 3 * BURST_S


def test_a_new_share_and_rate_hold_at_once():
    tap = tap_of(0.001)
    tap.configure(1.0, 1000.0)
    assert all(tap.takes() for _ in range(10))
    assert tap.has_rate(0.0)


def test_those_over_the_rate_are_counted():
    quality = Quality(Random(1), lambda: 0.0)
    params = QualityParams(share=1.0, max_per_s=1.0)
    tap = quality.tap("m", params)
    drawn = [quality.draws(tap, "m", 5.0) for _ in range(15)]
    assert sum(drawn) == BURST_S
    assert quality.samples == {("m", SampleResult.OVER_RATE): 15 - BURST_S}
    assert not quality.draws(None, "m", 5.0)
