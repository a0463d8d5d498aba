"""What a run has measured, and the arithmetic on it: medians over rounds, ratios within a round.

A ratio is taken between two systems of the same round and only then the median over rounds, because
the machine is not equally fast from one round to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Sample:
    """One system in one round. CPU and rate are per request that reached the upstream, or event.

    `core_percent` is how much of its core the system used, `others_percent` how much of that core
    went to processes that have no part in the benchmark.
    """

    cpu_us: float
    rps: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    rss_mb: float
    core_percent: float
    others_percent: float
    requests: int
    errors: int


@dataclass(frozen=True, slots=True)
class Row:
    """One system in one scenario: a sample for each round (None: it failed there)."""

    system: str
    samples: tuple[Sample | None, ...]
    failures: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        """Answers that were not 2xx, and answers that did not come."""
        return sum(sample.errors for sample in self.measured)

    @property
    def measured(self) -> list[Sample]:
        """The rounds that worked."""
        return [sample for sample in self.samples if sample is not None]

    @property
    def failed(self) -> bool:
        """Whether this row must not be read as a result."""
        return bool(self.failures) or self.errors > 0


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """All systems in one scenario; `reference` is the one that the others are compared with."""

    scenario: str
    title: str
    rows: tuple[Row, ...]
    reference: str = "nginx"

    def row(self, system: str) -> Row | None:
        """The row of one system, if it took part."""
        return next((row for row in self.rows if row.system == system), None)


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure that is not from the rounds."""

    name: str
    title: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Results:
    """A whole run.

    `missing` says which program a system or probe could not have, `broken` what else kept it from
    being measured; only the latter is a failure.
    """

    taken_at: str
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    scenarios: tuple[ScenarioResult, ...]
    findings: tuple[Finding, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """What went wrong, as `scenario system: why`."""
        rows = [
            f"{result.scenario} {row.system}: "
            + ("; ".join(row.failures) or f"{row.errors} errors")
            for result in self.scenarios
            for row in result.rows
            if row.failed
        ]
        return [*(f"{name}: {why}" for name, why in self.broken.items()), *rows]

    @property
    def others_percent(self) -> float:
        """Median share of the core under test that went to strangers; 0 without samples."""
        samples = (s for result in self.scenarios for row in result.rows for s in row.measured)
        return median([sample.others_percent for sample in samples] or [0.0])


class Summary(NamedTuple):
    """The medians of a row; the ratios are None where the reference has no sample."""

    cpu_us: float
    cpu_ratio: float | None
    rps: float
    rps_ratio: float | None
    p50_ms: float
    p99_ms: float
    p999_ms: float
    rss_mb: float
    core_percent: float


def summary(row: Row, reference: Row | None) -> Summary | None:
    """Medians over the rounds that worked, None if none did."""
    if not row.measured:
        return None
    return Summary(
        cpu_us=middle(row, "cpu_us"),
        cpu_ratio=ratio(row, reference, "cpu_us"),
        rps=middle(row, "rps"),
        rps_ratio=ratio(row, reference, "rps"),
        p50_ms=middle(row, "p50_ms"),
        p99_ms=middle(row, "p99_ms"),
        p999_ms=middle(row, "p999_ms"),
        rss_mb=middle(row, "rss_mb"),
        core_percent=middle(row, "core_percent"),
    )


def middle(row: Row, quantity: str) -> float:
    """The median of one quantity; the row has at least one sample."""
    return median(_values(row.measured, quantity))


def ratio(row: Row, reference: Row | None, quantity: str) -> float | None:
    """The median over rounds of this row's quantity over the reference's in the same round."""
    if reference is None:
        return None
    pairs = zip(row.samples, reference.samples, strict=False)
    ratios = [
        getattr(ours, quantity) / theirs_value
        for ours, theirs in pairs
        if ours is not None
        and theirs is not None
        and (theirs_value := getattr(theirs, quantity)) > 0
    ]
    return median(ratios) if ratios else None


def _values(samples: Sequence[Any], quantity: str) -> list[float]:
    return [getattr(sample, quantity) for sample in samples]
