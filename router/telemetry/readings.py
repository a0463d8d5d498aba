"""State that is read when metrics are scraped, rather than recorded when it changes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from router.domain.decision import Backend
from router.telemetry import families
from router.telemetry.exposition import Labels

Series = Mapping[Labels, float]


@dataclass(frozen=True, slots=True)
class CanaryReading:
    """A rule's canary; `requests_total` is by side and result."""

    model: str
    rule: str
    share: float
    rollbacks_total: int
    requests_total: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class ShadowReading:
    """A shadow's copies and comparisons, by result."""

    model: str
    copies_total: Mapping[str, int]
    comparisons_total: Mapping[str, int]
    max_difference: float


@dataclass(frozen=True, slots=True)
class QualityReading:
    """The quality of all models, by the labels of the families."""

    samples_total: Series = field(default_factory=dict)
    labels_total: Series = field(default_factory=dict)
    judged_total: Series = field(default_factory=dict)
    right_total: Series = field(default_factory=dict)
    alarms_total: Series = field(default_factory=dict)
    drifting: Series = field(default_factory=dict)
    largest_psi: Series = field(default_factory=dict)
    pending: int = 0


@dataclass(frozen=True, slots=True)
class JobsReading:
    """The jobs and deliveries in the store by state, and what has become of those from here."""

    states: Mapping[str, int] = field(default_factory=dict)
    ended_total: Mapping[str, int] = field(default_factory=dict)
    recovered_total: int = 0
    overdue_s: float = 0.0
    stand_still: bool = False
    deliveries: Mapping[str, int] = field(default_factory=dict)
    deliveries_total: Mapping[str, int] = field(default_factory=dict)
    events_total: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Readings:
    """All of it.

    The mappings are by model, or by model and backend. The `*_total` counts only grow.
    """

    in_flight: Mapping[tuple[str, Backend], int] = field(default_factory=dict)
    queue_depth: Mapping[tuple[str, Backend], int] = field(default_factory=dict)
    breaker_open: Mapping[tuple[str, Backend], bool] = field(default_factory=dict)
    replicas_wanted: Mapping[str, int] = field(default_factory=dict)
    replicas_ready: Mapping[str, int] = field(default_factory=dict)
    replicas_billed: Mapping[str, int] = field(default_factory=dict)
    pool_slots: Mapping[str, int] = field(default_factory=dict)
    endpoints: Mapping[tuple[str, str], int] = field(default_factory=dict)
    pool_panicking: Mapping[str, bool] = field(default_factory=dict)
    sized_by_others: Mapping[str, bool] = field(default_factory=dict)
    tasks: int = 0
    certificate_expires_at: float | None = None
    ejections_total: Mapping[str, int] = field(default_factory=dict)
    delayed_by_jobs_total: Mapping[str, int] = field(default_factory=dict)
    signals_degraded: bool = False
    shared_state_peers: int = 0
    flushes_ok_total: int = 0
    flushes_failed_total: int = 0
    dropped_records_total: int = 0
    dropped_log_lines_total: int = 0
    body_bytes_buffered: int = 0
    connections: int = 0
    connections_accepted_total: int = 0
    connections_refused_total: int = 0
    handshakes_failed_total: int = 0
    waits_timed_out_total: Mapping[str, int] = field(default_factory=dict)
    canaries: Sequence[CanaryReading] = ()
    shadows: Sequence[ShadowReading] = ()
    jobs: JobsReading | None = None
    quality: QualityReading = field(default_factory=QualityReading)


def counter_series(readings: Readings) -> Iterator[tuple[str, Series]]:
    """The counters that others keep, by family."""
    yield (
        families.SHARED_STATE_FLUSHES.name,
        {
            ("ok",): readings.flushes_ok_total,
            ("failed",): readings.flushes_failed_total,
        },
    )
    yield families.SHARED_STATE_DROPPED.name, {(): readings.dropped_records_total}
    yield families.ACCESS_LOG_DROPPED.name, {(): readings.dropped_log_lines_total}
    yield (
        families.CONNECTIONS_TOTAL.name,
        {
            ("accepted",): readings.connections_accepted_total,
            ("refused",): readings.connections_refused_total,
            ("handshake_failed",): readings.handshakes_failed_total,
        },
    )
    yield families.ENDPOINT_EJECTIONS.name, _by_name(readings.ejections_total)
    yield families.JOBS_DELAYED.name, _by_name(readings.delayed_by_jobs_total)
    yield families.CLIENT_TIMEOUTS.name, _by_name(readings.waits_timed_out_total)
    yield (
        families.CANARY_REQUESTS.name,
        {
            (found.model, found.rule, side, result): count
            for found in readings.canaries
            for (side, result), count in found.requests_total.items()
        },
    )
    yield (
        families.SHADOW_COPIES.name,
        {
            (found.model, result): count
            for found in readings.shadows
            for result, count in found.copies_total.items()
        },
    )
    yield (
        families.SHADOW_COMPARISONS.name,
        {
            (found.model, result): count
            for found in readings.shadows
            for result, count in found.comparisons_total.items()
        },
    )
    yield (
        families.CANARY_ROLLBACKS.name,
        {(found.model, found.rule): found.rollbacks_total for found in readings.canaries},
    )
    yield from _quality_counters(readings.quality)
    jobs = readings.jobs
    yield families.JOBS_ENDED.name, _by_name(jobs.ended_total) if jobs is not None else {}
    yield families.JOBS_RECOVERED.name, {(): jobs.recovered_total} if jobs is not None else {}
    tried = _by_name(jobs.deliveries_total) if jobs is not None else {}
    yield families.DELIVERIES_TRIED.name, tried
    yield families.EVENTS.name, _by_name(jobs.events_total) if jobs is not None else {}


def _quality_counters(quality: QualityReading) -> Iterator[tuple[str, Series]]:
    yield families.QUALITY_SAMPLES.name, quality.samples_total
    yield families.QUALITY_LABELS.name, quality.labels_total
    yield families.QUALITY_JUDGED.name, quality.judged_total
    yield families.QUALITY_RIGHT.name, quality.right_total
    yield families.QUALITY_ALARMS.name, quality.alarms_total


def gauge_series(readings: Readings) -> Iterator[tuple[str, Series]]:
    """What is the case now, by family."""
    yield families.IN_FLIGHT.name, _by_backend(readings.in_flight)
    yield families.QUEUE_DEPTH.name, _by_backend(readings.queue_depth)
    yield families.BREAKER_OPEN.name, _by_backend(readings.breaker_open)
    yield families.REPLICAS_WANTED.name, _by_name(readings.replicas_wanted)
    yield families.REPLICAS_READY.name, _by_name(readings.replicas_ready)
    yield families.REPLICAS_BILLED.name, _by_name(readings.replicas_billed)
    yield families.POOL_SLOTS.name, _by_name(readings.pool_slots)
    yield (
        families.ENDPOINTS.name,
        {(model, state): value for (model, state), value in readings.endpoints.items()},
    )
    yield families.TASKS.name, {(): readings.tasks}
    jobs = readings.jobs
    yield families.JOBS.name, _by_name(jobs.states) if jobs is not None else {}
    yield families.JOBS_OVERDUE.name, {(): jobs.overdue_s} if jobs is not None else {}
    yield families.JOBS_STAND_STILL.name, {(): jobs.stand_still} if jobs is not None else {}
    yield families.DELIVERIES.name, _by_name(jobs.deliveries) if jobs is not None else {}
    yield families.QUALITY_PENDING.name, {(): readings.quality.pending}
    yield families.QUALITY_DRIFTING.name, readings.quality.drifting
    yield families.QUALITY_PSI.name, readings.quality.largest_psi
    yield (
        families.CERTIFICATE_EXPIRY.name,
        ({} if readings.certificate_expires_at is None else {(): readings.certificate_expires_at}),
    )
    yield families.POOL_PANICKING.name, _by_name(readings.pool_panicking)
    yield families.SIZED_BY_OTHERS.name, _by_name(readings.sized_by_others)
    yield families.SIGNALS_DEGRADED.name, {(): readings.signals_degraded}
    yield families.SHARED_STATE_PEERS.name, {(): readings.shared_state_peers}
    yield families.BODY_BYTES.name, {(): readings.body_bytes_buffered}
    yield families.CONNECTIONS.name, {(): readings.connections}
    yield (
        families.SHADOW_MAX_DIFFERENCE.name,
        {(found.model,): found.max_difference for found in readings.shadows},
    )
    yield (
        families.CANARY_SHARE.name,
        {(found.model, found.rule): found.share for found in readings.canaries},
    )


def _by_backend(values: Mapping[tuple[str, Backend], int]) -> Series:
    return {(model, backend): value for (model, backend), value in values.items()}


def _by_name(values: Mapping[str, int]) -> Series:
    return {(model,): value for model, value in values.items()}
