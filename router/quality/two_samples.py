"""Whether two samples, counted over the same cells, come from one distribution.

Effect sizes (PSI, the Kolmogorov-Smirnov distance) and p-values. The tests err towards silence:
cells hide differences, and rare categories are put together. Pure; scipy is the oracle in the
tests.
"""

from collections.abc import Sequence
from math import exp, inf, lgamma, log, sqrt
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_PSI_GROUPS = 10
_LEAST_EXPECTED = 10.0
"""Of a category in either sample: below, the tail of chi-square promises too little."""
_TERMS = 1000


class Found(NamedTuple):
    """A statistic, and the chance of one so large if nothing has changed."""

    statistic: float
    p: float


def psi(reference: Array, counts: Array) -> float:
    """The population stability index of two counts over the same cells."""
    a, b = (
        (np.asarray(each) + 0.5) / (np.sum(each) + 0.5 * len(each)) for each in (reference, counts)
    )
    return float(np.sum((b - a) * np.log(b / a)))


def psi_noise(reference: Array, counts: Array) -> float:
    """What the index is on average when nothing has changed: more for small samples."""
    a, b = np.sum(reference), np.sum(counts)
    return float((len(counts) - 1) * (1 / a + 1 / b)) if a and b else inf


def in_groups(reference: Array, counts: Array) -> tuple[Array, Array]:
    """Neighbouring cells put together, each group about a tenth of the reference."""
    shares = np.cumsum(reference) - reference / 2
    groups = np.minimum(shares * _PSI_GROUPS // max(1, reference.sum()), _PSI_GROUPS - 1)
    cells = groups.astype(np.int64)
    return tuple(np.bincount(cells, weights=each, minlength=1) for each in (reference, counts))  # type: ignore[return-value]


def kolmogorov_smirnov(reference: Array, counts: Array) -> Found:
    """The two-sample test over cells in order, its statistic at most that of the raw values."""
    n, m = int(reference.sum()), int(counts.sum())
    if not n or not m:
        return Found(0.0, 1.0)
    distance = float(np.max(np.abs(np.cumsum(reference) / n - np.cumsum(counts) / m)))
    return Found(distance, kolmogorov(sqrt(n * m / (n + m)) * distance))


def kolmogorov(x: float) -> float:
    """The survival function of Kolmogorov's distribution."""
    if x < 0.2:
        return 1.0
    terms = (2 * (-1) ** (k - 1) * exp(-2 * k * k * x * x) for k in range(1, _TERMS))
    total = 0.0
    for term in terms:
        total += term
        if abs(term) < 1e-16 * abs(total):
            break
    return min(1.0, max(0.0, total))


def chi_square(reference: Array, counts: Array) -> Found:
    """The test of homogeneity of two counts; rare cells count as one."""
    a, b = _without_rare(np.asarray(reference, np.float64), np.asarray(counts, np.float64))
    n, m = a.sum(), b.sum()
    if len(a) < 2 or not n or not m:
        return Found(0.0, 1.0)
    both = (a + b) / (n + m)
    statistic = float(np.sum((a - n * both) ** 2 / (n * both) + (b - m * both) ** 2 / (m * both)))
    return Found(statistic, chi_square_survival(statistic, len(a) - 1))


def _without_rare(a: Array, b: Array) -> tuple[Array, Array]:
    """The cells that are frequent enough, and all others as one more, if that is."""
    smaller = min(a.sum(), b.sum()) / max(1.0, a.sum() + b.sum())
    is_rare = (a + b) * smaller < _LEAST_EXPECTED
    kept = [each[~is_rare] for each in (a, b)]
    rest = [each[is_rare].sum() for each in (a, b)]
    if (rest[0] + rest[1]) * smaller >= _LEAST_EXPECTED:
        kept = [np.append(each, more) for each, more in zip(kept, rest, strict=True)]
    return kept[0], kept[1]


def chi_square_survival(x: float, freedom: int) -> float:
    """The chance that chi-square with so many degrees of freedom exceeds x."""
    a, half = freedom / 2, x / 2
    if half <= 0:
        return 1.0
    front = exp(a * log(half) - half - lgamma(a))
    if half < a + 1:  # a series for the lower part
        term = total = 1 / a
        for k in range(1, _TERMS):
            term *= half / (a + k)
            total += term
            if term < total * 1e-16:
                break
        return max(0.0, 1.0 - front * total)
    return front * _fraction(a, half)


def _fraction(a: float, x: float) -> float:
    """Lentz's continued fraction of the upper incomplete gamma function."""
    b = x + 1 - a
    c, d = 1e300, 1 / b
    value = d
    for k in range(1, _TERMS):
        factor = -k * (k - a)
        b += 2
        d = 1 / (factor * d + b)
        c = b + factor / c
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def more_often(count: int, size: int, before: int, size_before: int) -> float:
    """Fisher's exact chance of so many of them in the new sample, if they are no more frequent."""
    if not count:
        return 1.0
    total, drawn = count + before, size + size_before
    most = min(total, size)
    ways = log_choose(drawn, total)
    logs = [
        log_choose(size, k) + log_choose(size_before, total - k) - ways
        for k in range(count, most + 1)
        if total - k <= size_before
    ]
    return min(1.0, sum(map(exp, logs)))


def beyond(count: int, size: int, size_before: int) -> float:
    """The chance that so many new values exceed all the old ones, if nothing has changed.

    Exact: the largest `count` of all must all be new.
    """
    if not count:
        return 1.0
    return exp(log_choose(size, count) - log_choose(size + size_before, count))


def log_choose(n: int, k: int) -> float:
    """The logarithm of a binomial coefficient."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) if 0 <= k <= n else -inf


def discoveries(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which of many tests have found something: at most that rate of them by chance.

    Benjamini and Hochberg's procedure; if nothing has changed at all, one is found with that
    chance at most (for tests that depend positively on each other).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    last = 0
    for rank, at in enumerate(order, 1):
        if p_values[at] <= rate * rank / len(order):
            last = rank
    found = set(order[:last])
    return [at in found for at in range(len(p_values))]
