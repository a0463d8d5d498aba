"""The tests of two samples are scipy's, on counts."""

import numpy as np
import pytest
from scipy import stats

from router.quality.bins import Bins, Scale, bins_of, quantile
from router.quality.two_samples import (
    beyond,
    chi_square,
    chi_square_survival,
    discoveries,
    in_groups,
    kolmogorov,
    kolmogorov_smirnov,
    more_often,
    psi,
    psi_noise,
)


@pytest.mark.parametrize("x", [0.3, 0.5, 0.8, 1.0, 1.36, 2.0, 4.0])
def test_kolmogorovs_distribution_is_scipys(x):
    assert kolmogorov(x) == pytest.approx(stats.kstwobign.sf(x), rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 5, 30, 200])
@pytest.mark.parametrize("ratio", [0.01, 0.5, 1.0, 1.5, 3.0, 8.0])
def test_chi_squares_tail_is_scipys(freedom, ratio):
    x = freedom * ratio
    assert chi_square_survival(x, freedom) == pytest.approx(stats.chi2.sf(x, freedom), rel=1e-8)


def test_chi_square_of_counts_is_scipys():
    a, b = np.array([50, 30, 120]), np.array([20, 40, 60])
    theirs = stats.chi2_contingency([a, b], correction=False)
    found = chi_square(a, b)
    assert found.statistic == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue)


def test_rare_categories_count_as_one():
    a, b = np.array([100, 100, 1, 2, 0, 3]), np.array([100, 100, 2, 0, 3, 1])
    assert chi_square(a, b).p == pytest.approx(1.0)


@pytest.mark.parametrize("case", [(3, 50, 0, 100), (5, 20, 9, 300), (1, 10, 1, 10), (0, 5, 3, 9)])
def test_a_share_that_grew_has_fishers_p(case):
    count, size, before, size_before = case
    table = [[count, size - count], [before, size_before - before]]
    theirs = stats.fisher_exact(table, alternative="greater").pvalue
    assert more_often(*case) == pytest.approx(theirs)


def test_values_beyond_all_old_ones_have_the_chance_that_order_gives_them():
    rng = np.random.default_rng(1)
    orders = np.argsort(rng.random((20_000, 12)), axis=1)  # ranks of 8 old and 4 new ones
    largest_two_are_new = np.mean((orders[:, -2:] >= 8).all(axis=1))
    assert beyond(2, 4, 8) == pytest.approx(largest_two_are_new, abs=0.01)
    assert beyond(0, 4, 8) == 1.0


def test_discoveries_are_scipys():
    p = np.random.default_rng(2).beta(0.5, 3, 40)
    adjusted = stats.false_discovery_control(p)
    assert discoveries(list(p), 0.05) == list(adjusted <= 0.05)
    assert discoveries([], 0.05) == []


def test_psi_is_its_formula_and_its_noise_is_what_chance_gives():
    rng = np.random.default_rng(3)
    values, a, b = [], np.zeros(10, np.int64), np.zeros(10, np.int64)
    for _ in range(300):
        a = rng.multinomial(500, [0.1] * 10)
        b = rng.multinomial(200, [0.1] * 10)
        values.append(psi(a, b))
    assert np.mean(values) == pytest.approx(psi_noise(a, b), rel=0.15)
    p, q = (a + 0.5) / 505, (b + 0.5) / 205
    assert values[-1] == pytest.approx(sum((q - p) * np.log(q / p)))


def test_groups_have_about_a_tenth_each_and_lose_nothing():
    rng = np.random.default_rng(4)
    sample = rng.normal(size=1000)
    bins = bins_of(sample)
    counts = bins.count(sample)
    a, b = in_groups(counts, bins.count(rng.normal(1, 1, 400)))
    assert (a.sum(), b.sum()) == (1000, 400)
    assert len(a) <= 10
    assert a.max() < 200


def test_the_statistic_over_cells_is_scipys_within_a_cell():
    rng = np.random.default_rng(5)
    before, after = rng.normal(size=2000), rng.normal(0.3, 1, 500)
    bins = bins_of(before)
    found = kolmogorov_smirnov(bins.count(before)[1:], bins.count(after)[1:])
    theirs = stats.ks_2samp(before, after, method="asymp")
    assert theirs.statistic - 1 / 32 - 1 / 500 <= found.statistic <= theirs.statistic + 1e-12
    assert found.p >= theirs.pvalue * 0.5


def test_categories_are_counted_by_value_and_strangers_apart():
    bins = bins_of(np.array([0.0, 1.0, 2.0] * 20))
    assert bins == Bins(Scale.CATEGORIES, (0.0, 1.0, 2.0))
    assert list(bins.count(np.array([0, 0, 2, 7, -1, np.nan]))) == [1, 2, 0, 1, 2]


def test_numbers_know_what_is_missing_and_out_of_range():
    bins = bins_of(np.linspace(0, 1, 100))
    counts = bins.count(np.array([np.nan, np.inf, -5.0, 0.5, 2.0, 3.0]))
    assert (counts[0], counts[1], counts[-1], counts.sum()) == (2, 1, 2, 6)
    assert len(bins.names) == bins.size == len(counts)


@pytest.mark.parametrize("sample", [[], [np.nan, np.inf], [3.0], [1e308, -1e308] * 3])
def test_any_sample_has_bins(sample):
    values = np.array(sample, np.float64)
    bins = bins_of(values)
    assert bins.count(values).sum() == len(sample)


def test_quantiles_are_those_of_the_sample_within_a_cell():
    sample = np.random.default_rng(6).exponential(size=5000)
    bins = bins_of(sample)
    counts = bins.count(sample)
    for share in (0.1, 0.5, 0.9):
        found = quantile(bins, counts, share)
        assert found is not None
        assert np.mean(sample <= found) == pytest.approx(share, abs=1 / 32 + 0.001)
    assert quantile(bins, counts * 0, 0.5) is None
