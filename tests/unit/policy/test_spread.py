import numpy as np
import pytest

from router.policy.estimates import ServiceTimes
from router.policy.spread import LEAST, QUANTILE, Spread

RNG = np.random.default_rng(5)
SHAPES = {
    "exponential": RNG.exponential(1.0, 40_000),
    "p99 = 2 x p50": RNG.lognormal(-0.044, 0.298, 40_000),
    "p99 = 4 x p50": RNG.lognormal(-0.178, 0.596, 40_000),
    "nearly the same": RNG.normal(1.0, 0.02, 40_000),
    "one in twenty ten times as long": np.where(RNG.random(40_000) < 0.05, 6.9, 0.69),
}


def told(ratios: np.ndarray) -> Spread:
    spread = Spread()
    for ratio in ratios:
        spread.observe(float(ratio))
    return spread


@pytest.mark.parametrize("ratios", SHAPES.values(), ids=SHAPES)
def test_it_is_the_quantile_within_a_sixteenth_and_what_chance_allows(ratios: np.ndarray):
    factor = told(ratios).factor
    # Of some thousand remembered: the ranks within three standard deviations.
    rank, of = 1 - QUANTILE, 2000
    slack = 3 * (rank * QUANTILE / of) ** 0.5
    low, high = np.quantile(ratios, [1 - rank - slack, 1 - max(0.0, rank - slack)])
    assert low * 15 / 16 <= factor <= high * 17 / 16


def test_nothing_is_told_of_too_few():
    assert told(np.ones(LEAST - 1)).factor == 0.0
    assert told(np.ones(LEAST + 16)).factor > 0.0


def test_it_follows_a_change_either_way():
    wide, narrow = SHAPES["p99 = 4 x p50"], SHAPES["nearly the same"]
    spread = told(wide[:20_000])
    for ratio in narrow[:20_000]:
        spread.observe(float(ratio))
    assert spread.factor == pytest.approx(1.05, rel=1 / 8)
    for ratio in wide[20_000:]:
        spread.observe(float(ratio))
    assert spread.factor == pytest.approx(np.quantile(wide, QUANTILE), rel=1 / 4)


@pytest.mark.parametrize("ratio", [0.0, 1e-300, 1e300, 0.1, 1e6])
def test_ratios_beyond_the_bins_count_at_their_ends(ratio: float):
    factor = told(np.full(LEAST * 2, ratio)).factor
    assert (0.25 <= factor <= 0.27) if ratio < 1 else (31 <= factor <= 32)


def test_sizes_that_differ_in_their_mean_share_what_makes_times_scatter():
    times, ratios = ServiceTimes(1.0), SHAPES["p99 = 4 x p50"]
    for number, ratio in enumerate(ratios[:8000]):
        size, mean_s = ((100, 0.05), (1 << 20, 2.0))[number % 2]
        times.observe(size, mean_s * float(ratio))
    small, large = times.estimate(100), times.estimate(1 << 20)
    above = np.mean(ratios * 0.05 > small.upper_s)
    assert small.upper_s / small.mean_s == pytest.approx(large.upper_s / large.mean_s)
    assert above < 0.03


def test_a_size_that_is_new_is_guessed_first():
    times = ServiceTimes(1.0)
    for ratio in SHAPES["p99 = 4 x p50"][:8000]:
        times.observe(100, 0.05 * float(ratio))
    times.observe(1 << 20, 2.0)
    assert times.estimate(1 << 20).upper_s == pytest.approx(2.0 * (1 + 3 * 0.25))
