"""Each model's traffic of the last day: every ten seconds of an hour, before that every minute.

A ring of numbers in memory, filled from the metrics' counters; bounded by the models configured.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from math import inf
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from router.domain.decision import Backend
from router.telemetry import families
from router.telemetry.exposition import Buckets, Snapshot, quantile_s
from router.telemetry.families import BUCKETS_S
from router.turns import Steps

STEP_S = 10
_FINE = 3600 // STEP_S
_MINUTE_S = 60
_COARSE = 24 * 60
SERIES = ("requests_per_s", "pool_per_s", "p50_ms", "p99_ms", "usd_per_h")
"""Two bytes each, three digits: a model has 18 KB."""
_MOST = float(np.finfo(np.float16).max)
_AT_A_TIME = 100

T = TypeVar("T")
Values = NDArray[np.float16]


class _Totals:
    """What a model's counters said."""

    __slots__ = ("buckets", "pool", "requests", "usd")

    def __init__(self) -> None:
        self.requests = self.pool = self.usd = 0.0
        self.buckets = [0] * (len(BUCKETS_S) + 1)


class _Ring:
    """The last `slots` steps, each of so many seconds; what was missed is not a number."""

    __slots__ = ("_first", "_last", "step_s", "values")

    def __init__(self, slots: int, step_s: int) -> None:
        self.step_s = step_s
        self.values: Values = np.full((slots, len(SERIES)), np.nan, np.float16)
        self._first = self._last = -1

    def put(self, at: float, row: Sequence[float] | Values) -> None:
        slot, slots = int(at // self.step_s), len(self.values)
        if self._last < 0:
            self._first = slot
        else:
            for missed in range(max(self._last + 1, slot - slots), slot):
                self.values[missed % slots] = np.nan
        self.values[slot % slots] = row
        self._last = slot

    def rows(self) -> Iterable[tuple[float, Values]]:
        """The steps in order, each with when it began."""
        slots = len(self.values)
        if self._last < 0:
            return
        for slot in range(max(self._first, self._last - slots + 1), self._last + 1):
            yield float(slot * self.step_s), self.values[slot % slots]


class _Model(NamedTuple):
    fine: _Ring
    coarse: _Ring


class History:
    """The history of all models; `add` is told the metrics every STEP_S."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._before: dict[str, _Totals] = {}
        self._added_at: float | None = None

    def add(self, snapshot: Snapshot, at: float) -> Steps[None]:
        """Note what has happened since the last snapshot; `at` is in seconds since 1970."""
        totals = yield from _totals(snapshot)
        took_s = at - self._added_at if self._added_at is not None else 0.0
        if took_s > 0:
            for number, (name, now) in enumerate(totals.items()):
                before = self._before.get(name)
                if before is not None:
                    self._note(name, _row(before, now, took_s), at)
                if number % _AT_A_TIME == 0:
                    yield
        self._before, self._added_at = totals, at
        for gone in self._models.keys() - totals.keys():
            del self._models[gone]

    def _note(self, name: str, row: Sequence[float], at: float) -> None:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = _Model(_Ring(_FINE, STEP_S), _Ring(_COARSE, _MINUTE_S))
        model.fine.put(at, row)
        slot = int(at // STEP_S)
        in_minute = range(slot - slot % (_MINUTE_S // STEP_S), slot + 1)
        recent = model.fine.values[[each % _FINE for each in in_minute]].astype(np.float64)
        known = recent[~np.isnan(recent[:, 0])]
        model.coarse.put(at, known.mean(axis=0))

    def of(self, name: str) -> dict[str, list[float | None]]:
        """Columns: when each step began, and its values, the oldest first; None where unknown."""
        model = self._models.get(name)
        rows: list[tuple[float, Values]] = []
        if model is not None:
            fine = list(model.fine.rows())
            begin = fine[0][0] if fine else inf
            rows = [row for row in model.coarse.rows() if row[0] + _MINUTE_S <= begin] + fine
        columns: dict[str, list[float | None]] = {"at": [at for at, _ in rows]}
        for number, series in enumerate(SERIES):
            values = (float(row[number]) for _, row in rows)
            columns[series] = [None if value != value else value for value in values]  # noqa: PLR0124
        return columns


def _totals(snapshot: Snapshot) -> Steps[dict[str, _Totals]]:
    found: defaultdict[str, _Totals] = defaultdict(_Totals)
    for some in _some(snapshot.values.get(families.REQUESTS.name, ())):
        for (model, backend, _), count in some:
            found[model].requests += count
            found[model].pool += count if backend == Backend.POOL else 0
        yield
    for some in _some(snapshot.values.get(families.COST.name, ())):
        for (model, _), usd in some:
            found[model].usd += usd
        yield
    for durations in _some(snapshot.histograms.get(families.REQUEST_DURATION.name, ())):
        for (model, _), buckets in durations:
            _add(found[model].buckets, buckets)
        yield
    found.pop("", None)
    return found


def _add(total: list[int], buckets: Buckets) -> None:
    for number, count in enumerate(buckets.counts):
        total[number] += count


def _some(series: Iterable[T]) -> Iterable[list[T]]:
    items = iter(series)
    while some := list(islice(items, _AT_A_TIME)):
        yield some


def _row(before: _Totals, now: _Totals, took_s: float) -> list[float]:
    counts = [max(0, new - old) for new, old in zip(now.buckets, before.buckets, strict=True)]
    row = [
        (now.requests - before.requests) / took_s,
        (now.pool - before.pool) / took_s,
        quantile_s(counts, 0.5) * 1e3,
        quantile_s(counts, 0.99) * 1e3,
        (now.usd - before.usd) / took_s * 3600,
    ]
    return [min(max(value, 0.0), _MOST) for value in row]
