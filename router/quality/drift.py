"""Whether what a model sees and says has changed: windows of samples against a baseline.

Each window is tested once, at a level that is a share of the false alarms that one week may bring:
the window's part of the week. However fast windows follow each other, a week without change has no
more of them. Beyond that an alarm needs a difference that matters (PSI). Pure: told the time.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any, NamedTuple

import numpy as np

from router.quality.bins import Bins, Scale, bins_of
from router.quality.features import Features
from router.quality.two_samples import (
    Found,
    beyond,
    chi_square,
    discoveries,
    in_groups,
    kolmogorov_smirnov,
    more_often,
    psi,
    psi_noise,
)

Array = np.ndarray[Any, np.dtype[Any]]

WEEK_S = 7 * 24 * 3600.0
LEAST_WINDOW = 50
"""Samples that a window needs to be tested at all."""
MAX_BASELINE = 5000
"""Samples that a baseline is made of at most."""
SHOWN_CELLS = 12


@dataclass(frozen=True, slots=True)
class DriftParams:
    """When a window is full, and what is worth an alarm.

    A window closes with `samples`, or after `window_s` if it has LEAST_WINDOW. `least_psi` is the
    index below which a difference does not matter, however sure it is.
    """

    samples: int = 200
    window_s: float = 3600.0
    false_alarms_per_week: float = 0.05
    least_psi: float = 0.1


@dataclass(frozen=True, slots=True)
class Counted:
    """One feature's cells and what the reference samples had in each."""

    bins: Bins
    counts: Array


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a model is compared with: counts of `samples` by feature; `source` says where from."""

    source: str
    made_at: float
    samples: int
    features: Mapping[str, Counted]


class Shape(NamedTuple):
    """How a feature is distributed: shares of the cells by their names, the emptiest left out."""

    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A feature that is not as it was: the test that says so, and both distributions."""

    at: float
    feature: str
    test: str
    statistic: float
    p: float
    psi: float
    samples: int
    baseline_samples: int
    baseline: Mapping[str, float]
    now: Mapping[str, float]

    @property
    def text(self) -> str:
        """The alarm in a line."""
        return (
            f"{self.feature}: {self.test} {self.statistic:.3g} (p {self.p:.1g}, PSI {self.psi:.2f})"
            f" of {self.samples} samples against {self.baseline_samples}"
        )


@dataclass(slots=True)
class Columns:
    """Samples as one column of numbers for each feature; what a sample has not is NaN there."""

    most_features: int
    samples: int = 0
    values: "dict[str, array[float]]" = field(default_factory=dict)

    def add(self, features: Features) -> None:
        """Take one sample."""
        for name, value in features.items():
            column = self.values.get(name)
            if column is None:
                if len(self.values) >= self.most_features:
                    continue
                column = self.values[name] = array("d", [nan]) * self.samples
            column.append(value)
        self.samples += 1
        for column in self.values.values():
            if len(column) < self.samples:
                column.append(nan)

    def column(self, name: str) -> Array:
        """One feature's numbers."""
        found = self.values.get(name)
        return np.full(self.samples, nan) if found is None else np.frombuffer(found, np.float64)


def baseline_of(columns: Columns, source: str, made_at: float) -> Baseline:
    """The baseline that these samples make."""
    features = {}
    for name in columns.values:
        column = columns.column(name)
        bins = bins_of(column)
        features[name] = Counted(bins, bins.count(column))
    return Baseline(source, made_at, columns.samples, features)


class Window:
    """The samples since the last look, and what all looks have counted."""

    def __init__(self, params: DriftParams, baseline: Baseline, now: float) -> None:
        self._params = params
        self.baseline = baseline
        self._since = now
        self._columns = Columns(len(baseline.features))
        self.latest: dict[str, Array] = {}
        self.looks = 0

    def add(self, features: Features) -> None:
        """Take one sample; features that the baseline has not are left out."""
        known = self.baseline.features
        self._columns.add({name: value for name, value in features.items() if name in known})

    def is_full(self, now: float) -> bool:
        """Whether it is time for a look."""
        samples = self._columns.samples
        is_old = now - self._since >= self._params.window_s
        return samples >= self._params.samples or (is_old and samples >= LEAST_WINDOW)

    def close(self, now: float, gateways: int = 1) -> list[Alarm]:
        """Look at what came, and begin anew. So many gateways share the false alarms."""
        columns, elapsed_s = self._columns, max(0.0, now - self._since)
        self._columns, self._since = Columns(len(self.baseline.features)), now
        self.looks += 1
        self.latest = counts_of(self.baseline, columns)
        week = self._params.false_alarms_per_week / gateways
        level = min(week, week * elapsed_s / WEEK_S)
        return alarms(self.baseline, self.latest, level, self._params.least_psi, now)


def counts_of(baseline: Baseline, columns: Columns) -> dict[str, Array]:
    """How many of the samples fall into each of the baseline's cells."""
    return {
        name: known.bins.count(columns.column(name)) for name, known in baseline.features.items()
    }


def alarms(
    baseline: Baseline, counts: Mapping[str, Array], level: float, least_psi: float, now: float
) -> list[Alarm]:
    """What has changed; with chance `level` at most something is named although nothing has."""
    tests = [
        (name, test, found)
        for name, known in baseline.features.items()
        for test, found in tested(known, counts[name])
    ]
    sure = discoveries([found.p for _, _, found in tests], level)
    found: dict[str, Alarm] = {}
    for (name, test, result), is_sure in zip(tests, sure, strict=True):
        if not is_sure:
            continue
        known, others = baseline.features[name], counts[name]
        index = index_of(known, others)
        matters = index >= least_psi or test in _RATES
        if matters and (name not in found or result.p < found[name].p):
            found[name] = Alarm(
                now, name, test, result.statistic, result.p, index, int(others.sum()),
                int(known.counts.sum()), shares(known.bins, known.counts),
                shares(known.bins, others),
            )  # fmt: skip
    return list(found.values())


_RATES = frozenset({"missing", "out_of_range"})


def tested(known: Counted, counts: Array) -> Iterable[tuple[str, Found]]:
    """The tests that fit a feature, by name."""
    before, after = known.counts, counts
    n, m = int(before.sum()), int(after.sum())
    if not n or not m:
        return
    missing = int(after[0])
    yield "missing", Found(missing / m, more_often(missing, m, int(before[0]), n))
    if known.bins.scale is Scale.CATEGORIES:
        yield _named("chi_square", after), chi_square(before[1:], after[1:])
        return
    yield _named("kolmogorov_smirnov", after), kolmogorov_smirnov(before[1:], after[1:])
    present, present_before = m - missing, n - int(before[0])
    sides = [beyond(int(after[at]), present, present_before) for at in (1, -1)]
    outside = float(after[1] + after[-1]) / max(1, present)
    yield "out_of_range", Found(outside, min(1.0, 2 * min(sides)))


def _named(test: str, after: Array) -> str:
    """What a difference is called: an output that is always the same deserves its own word."""
    return "constant" if np.count_nonzero(after) == 1 and after[0] == 0 else test


def index_of(known: Counted, counts: Array) -> float:
    """The PSI without what chance adds to it; 0 at least."""
    before, after = known.counts, counts
    if known.bins.scale is Scale.NUMBERS:
        before, after = in_groups(before, after)
    return max(0.0, psi(before, after) - psi_noise(before, after))


def shares(bins: Bins, counts: Array) -> dict[str, float]:
    """The shares of the fullest cells by name, for people."""
    total = max(1, int(counts.sum()))
    fullest = sorted(np.argsort(counts)[::-1][:SHOWN_CELLS].tolist())
    names = bins.names
    return {names[at]: round(float(counts[at]) / total, 4) for at in fullest if counts[at]}
