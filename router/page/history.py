"""Each model's traffic of the last day: every ten seconds of an hour, before that every minute.

A ring of numbers in memory, filled from the metrics' counters; bounded by the models configured.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from math import inf, nan
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from router.domain.decision import Backend, Reason
from router.telemetry import families
from router.telemetry.exposition import Buckets, Snapshot, quantile_s
from router.telemetry.families import BUCKETS_S
from router.telemetry.labels import CostPart
from router.turns import Steps

STEP_S = 10
_FINE_STEPS = 3600 // STEP_S
_MINUTE_S = 60
_COARSE_STEPS = 24 * 60
DOLLARS = ("usd_serverless_per_h", "usd_warm_busy_per_h", "usd_warm_idle_per_h")
FINE = (
    "requests_per_s", "pool_per_s", "p50_ms", "p99_ms", "replicas", "cold_starts_per_s",
    "spills_per_s", *DOLLARS,
)  # fmt: skip
COARSE = ("requests_per_s", "p99_ms", "replicas", "usd_per_h")
"""Two bytes each, three digits: a model has 19 KB. The dollars of a step are the sum of theirs."""
_MOST = float(np.finfo(np.float16).max)
_AT_A_TIME = 100

T = TypeVar("T")
Values = NDArray[np.float16]


class _Totals:
    """What a model's counters said."""

    __slots__ = ("buckets", "cold", "pool", "replicas", "requests", "spilled", "usd")

    def __init__(self) -> None:
        self.requests = self.pool = self.cold = self.spilled = self.replicas = 0.0
        self.usd = [0.0] * len(DOLLARS)
        self.buckets = [0] * (len(BUCKETS_S) + 1)


class _Ring:
    """The last `slots` steps, each of so many seconds; what was missed is not a number."""

    __slots__ = ("_first", "_last", "step_s", "values")

    def __init__(self, slots: int, step_s: int, series: int) -> None:
        self.step_s = step_s
        self.values: Values = np.full((slots, series), np.nan, np.float16)
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
            model = self._models[name] = _Model(
                _Ring(_FINE_STEPS, STEP_S, len(FINE)), _Ring(_COARSE_STEPS, _MINUTE_S, len(COARSE))
            )  # fmt: skip
        model.fine.put(at, row)
        slot = int(at // STEP_S)
        in_minute = range(slot - slot % (_MINUTE_S // STEP_S), slot + 1)
        recent = model.fine.values[[each % _FINE_STEPS for each in in_minute]].astype(np.float64)
        known = recent[~np.isnan(recent[:, 0])]
        mean = dict(zip(FINE, known.mean(axis=0).tolist(), strict=True))
        mean["usd_per_h"] = sum(mean[part] for part in DOLLARS)
        model.coarse.put(at, [min(mean[series], _MOST) for series in COARSE])

    def of(self, name: str) -> dict[str, list[float | None]]:
        """Columns: when each step began, and its values, the oldest first; None where unknown.

        What is older than an hour is known of COARSE alone.
        """
        model = self._models.get(name)
        columns: dict[str, list[float | None]] = {
            series: [] for series in ("at", "usd_per_h", *FINE)
        }
        if model is None:
            return columns
        fine = list(model.fine.rows())
        begin = fine[0][0] if fine else inf
        for at, values in model.coarse.rows():
            if at + _MINUTE_S <= begin:
                _append(columns, at, dict(zip(COARSE, values.tolist(), strict=True)))
        for at, values in fine:
            row = dict(zip(FINE, values.tolist(), strict=True))
            _append(columns, at, {**row, "usd_per_h": sum(row[part] for part in DOLLARS)})
        return columns


def _append(columns: Mapping[str, list[float | None]], at: float, row: Mapping[str, float]) -> None:
    for series, column in columns.items():
        value = at if series == "at" else row.get(series, nan)
        column.append(None if value != value else value)  # noqa: PLR0124


def _totals(snapshot: Snapshot) -> Steps[dict[str, _Totals]]:
    found: defaultdict[str, _Totals] = defaultdict(_Totals)
    for some in _some(snapshot.values.get(families.REQUESTS.name, ())):
        for (model, backend, _), count in some:
            found[model].requests += count
            found[model].pool += count if backend == Backend.POOL else 0
        yield
    for some in _some(snapshot.values.get(families.COST.name, ())):
        for (model, part), usd in some:
            found[model].usd[_PLACES[part]] += usd
        yield
    yield from _add_counts(found, snapshot)
    for durations in _some(snapshot.histograms.get(families.REQUEST_DURATION.name, ())):
        for (model, _), buckets in durations:
            _add(found[model].buckets, buckets)
        yield
    found.pop("", None)
    return found


def _add_counts(found: Mapping[str, _Totals], snapshot: Snapshot) -> Steps[None]:
    for some in _some(snapshot.values.get(families.DECISIONS.name, ())):
        for (model, _, reason), count in some:
            found[model].spilled += count if reason == Reason.SPILLOVER else 0
        yield
    for (model,), count in snapshot.values.get(families.COLD_STARTS.name, ()):
        found[model].cold += count
    yield
    for (model,), count in snapshot.values.get(families.REPLICAS_READY.name, ()):
        if model in found:  # a shared pool has them too
            found[model].replicas = count
    yield


_PLACES: dict[str, int] = {
    CostPart.SERVERLESS: 0, CostPart.KEPT_WARM: 0, CostPart.WARM_BUSY: 1, CostPart.WARM_IDLE: 2,
}  # fmt: skip


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
        now.replicas,
        (now.cold - before.cold) / took_s,
        (now.spilled - before.spilled) / took_s,
        *((new - old) / took_s * 3600 for new, old in zip(now.usd, before.usd, strict=True)),
    ]
    return [min(max(value, 0.0), _MOST) for value in row]
