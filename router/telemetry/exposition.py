"""Every series as plain numbers, and their way to Prometheus; the sum of several processes' series.

Knows the families, and how each is added up; never what the numbers mean.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from operator import add
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from router.telemetry.families import BUCKETS_S, FAMILIES, Across, Family, Kind

T = TypeVar("T")
Labels = tuple[str, ...]
BOUNDS = (*(str(bound) for bound in BUCKETS_S), "+Inf")


class Buckets(msgspec.Struct, array_like=True, frozen=True):
    """A histogram: observations by bucket, not added up, and their total in seconds."""

    counts: tuple[int, ...]
    total_s: float


class Snapshot(msgspec.Struct, frozen=True):
    """All series of one process, or of several together, by family and labels."""

    values: dict[str, list[tuple[Labels, float]]] = {}
    histograms: dict[str, list[tuple[Labels, Buckets]]] = {}


def collect(snapshot: Snapshot, build: Mapping[str, str]) -> Iterator[Metric]:
    """Every family of FAMILIES, in that order, with or without series."""
    for family in FAMILIES:
        if family.kind is Kind.INFO:
            yield InfoMetricFamily(
                family.name.removesuffix("_info"), family.help, value=dict(build)
            )
        elif family.kind is Kind.HISTOGRAM:
            yield _histogram_family(family, snapshot.histograms.get(family.name, ()))
        else:
            yield _value_family(family, snapshot.values.get(family.name, ()))


def encode(registry: CollectorRegistry, accept_header: str) -> tuple[bytes, str]:
    """The registry in the best format the scraper accepts, and its content type."""
    try:
        encoder, content_type = choose_encoder(accept_header)
    except (TypeError, ValueError):  # a version that is not one
        encoder, content_type = choose_encoder("")
    return encoder(registry), content_type


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
    return Buckets(counts, one.total_s + other.total_s)


_COMBINE: Mapping[Across, Callable[[float, float], float]] = {
    Across.SUM: add,
    Across.MOST: max,
    Across.LEAST: min,
}


def _value_family(family: Family, series: Iterable[tuple[Labels, float]]) -> Metric:
    is_counter = family.kind is Kind.COUNTER
    cls = CounterMetricFamily if is_counter else GaugeMetricFamily
    metric = cls(family.name, family.help, labels=family.labels)
    for labels, value in series:
        metric.add_metric(labels, float(value))
    return metric


def _histogram_family(family: Family, series: Iterable[tuple[Labels, Buckets]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, histogram in series:
        metric.add_metric(labels, _cumulative(histogram), histogram.total_s)
    return metric


def _cumulative(histogram: Buckets) -> list[tuple[str, float]]:
    """The buckets as Prometheus wants them: each with all that is below it."""
    below, buckets = 0, []
    for bound, count in zip(BOUNDS, histogram.counts, strict=True):
        below += count
        buckets.append((bound, float(below)))
    return buckets
