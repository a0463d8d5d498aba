"""Every series as plain numbers, and their way to Prometheus; the sum of several processes' series.

Knows the families, and how each is added up; never what the numbers mean.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import accumulate
from math import ceil
from operator import add
from typing import TypeVar, assert_never

import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.samples import Exemplar as Exemplified

from router.telemetry.families import BUCKETS_S, FAMILIES, Across, Family, Kind

T = TypeVar("T")
Labels = tuple[str, ...]
BOUNDS = (*(str(bound) for bound in BUCKETS_S), "+Inf")

_ENCODED_AT_A_TIME = 200


Exemplar = tuple[str, float]
"""The id of a trace that can be looked at, and the seconds that its request took."""


class Buckets(msgspec.Struct, array_like=True, frozen=True):
    """A histogram: observations by bucket, not added up, and their total in seconds.

    `exemplars` has the latest of some buckets, by their number.
    """

    counts: tuple[int, ...]
    total_s: float
    exemplars: dict[int, Exemplar] = {}

    @property
    def below(self) -> Iterator[int]:
        """The buckets as Prometheus wants them: each with all that is below it."""
        return accumulate(self.counts)


def quantile_s(counts: Sequence[int], share: float) -> float:
    """The time that so many observations were within, as far as buckets tell; 0 without any.

    `counts` are by bucket, not added up.
    """
    wanted, below = ceil(share * sum(counts)), 0
    for number, count in enumerate(counts):
        if count and below + count >= wanted:
            lower = BUCKETS_S[number - 1] if number else 0.0
            upper = BUCKETS_S[min(number, len(BUCKETS_S) - 1)]
            return lower + (upper - lower) * (wanted - below) / count
        below += count
    return 0.0


class Snapshot(msgspec.Struct, frozen=True):
    """All series of one process, or of several together, by family and labels."""

    values: dict[str, list[tuple[Labels, float]]] = {}
    histograms: dict[str, list[tuple[Labels, Buckets]]] = {}


def collect(snapshot: Snapshot, build: Mapping[str, str]) -> Iterator[Metric]:
    """Every family of FAMILIES, in that order, with or without series."""
    for family in FAMILIES:
        if family.kind is Kind.INFO:
            yield info_metric(family, build)
        else:
            values = snapshot.values.get(family.name, ())
            yield family_metric(family, values, snapshot.histograms.get(family.name, ()))


def info_metric(family: Family, build: Mapping[str, str]) -> Metric:
    """The family of kind INFO, with its one series."""
    return InfoMetricFamily(family.name.removesuffix("_info"), family.help, value=dict(build))


def encoded(snapshot: Snapshot) -> Iterator[bytes]:
    """The snapshot as JSON, to be decoded as a whole; in chunks that each take little time.

    Uses the snapshot up, because freeing it all at the end would take milliseconds.
    """
    yield b'{"values":{'
    yield from _encoded(snapshot.values)
    yield b'},"histograms":{'
    yield from _encoded(snapshot.histograms)
    yield b"}}"


def _encoded(families: dict[str, list[tuple[Labels, T]]]) -> Iterator[bytes]:
    for number, name in enumerate(list(families)):
        yield b'%b"%b":[' % (b"," if number else b"", name.encode())
        series = families.pop(name)
        for begin in range(0, len(series), _ENCODED_AT_A_TIME):
            some = msgspec.json.encode(series[begin : begin + _ENCODED_AT_A_TIME])
            yield (b"," if begin else b"") + some[1:-1]
        yield b"]"


def merged(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The series of several processes as one."""
    values, histograms = {}, {}
    for family in FAMILIES:
        if family.kind is Kind.HISTOGRAM:
            found = (s.histograms.get(family.name, ()) for s in snapshots)
            histograms[family.name] = _merged(found, _added)
        elif family.kind is not Kind.INFO:
            series = (s.values.get(family.name, ()) for s in snapshots)
            values[family.name] = _merged(series, _COMBINE[family.across])
    return Snapshot(values, histograms)


def counted(snapshot: Snapshot, models: Set[str]) -> Snapshot:
    """What stays true when its process has ended: counters and histograms, of those models only."""
    return Snapshot(
        {
            family.name: _of_models(family, snapshot.values.get(family.name, ()), models)
            for family in FAMILIES
            if family.kind is Kind.COUNTER
        },
        {
            family.name: _of_models(family, snapshot.histograms.get(family.name, ()), models)
            for family in FAMILIES
            if family.kind is Kind.HISTOGRAM
        },
    )


def _of_models(
    family: Family, series: Iterable[tuple[Labels, T]], models: Set[str]
) -> list[tuple[Labels, T]]:
    return [
        (labels, value)
        for labels, value in series
        if not family.has_model or not labels[0] or labels[0] in models
    ]


def _merged(
    found: Iterable[Iterable[tuple[Labels, T]]], combine: Callable[[T, T], T]
) -> list[tuple[Labels, T]]:
    together: dict[Labels, T] = {}
    for series in found:
        for labels, value in series:
            together[labels] = combine(together[labels], value) if labels in together else value
    return list(together.items())


def _added(one: Buckets, other: Buckets) -> Buckets:
    counts = tuple(map(add, one.counts, other.counts))
    return Buckets(counts, one.total_s + other.total_s, {**one.exemplars, **other.exemplars})


_COMBINE: Mapping[Across, Callable[[float, float], float]] = {
    Across.SUM: add,
    Across.MOST: max,
    Across.LEAST: min,
}


def family_metric(
    family: Family,
    values: Iterable[tuple[Labels, float]] = (),
    histograms: Iterable[tuple[Labels, Buckets]] = (),
) -> Metric:
    """A family as prometheus_client knows it, with those of the series that are of its kind.

    Raises ValueError for one of the kind INFO, whose series are built in.
    """
    match family.kind:
        case Kind.INFO:
            raise ValueError(f"{family.name} has no series but what is built in")
        case Kind.HISTOGRAM:
            return _histogram_family(family, histograms)
        case Kind.COUNTER:
            return _value_family(CounterMetricFamily, family, values)
        case Kind.GAUGE:
            return _value_family(GaugeMetricFamily, family, values)
        case never:
            assert_never(never)


def _value_family(
    cls: type[CounterMetricFamily] | type[GaugeMetricFamily],
    family: Family,
    series: Iterable[tuple[Labels, float]],
) -> Metric:
    metric = cls(family.name, family.help, labels=family.labels)
    for labels, value in series:
        metric.add_metric(labels, float(value))
    return metric


def _with_exemplars(
    histogram: Buckets,
) -> Iterator[tuple[str, float] | tuple[str, float, Exemplified]]:
    for place, (bound, number) in enumerate(zip(BOUNDS, histogram.below, strict=True)):
        if (found := histogram.exemplars.get(place)) is None:
            yield bound, float(number)
        else:
            trace_id, seconds = found
            yield bound, float(number), Exemplified({"trace_id": trace_id}, seconds)


def _histogram_family(family: Family, series: Iterable[tuple[Labels, Buckets]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, histogram in series:
        metric.add_metric(labels, list(_with_exemplars(histogram)), histogram.total_s)
    return metric
