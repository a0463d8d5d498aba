"""Every metric family of the router: its name, type, labels and meaning.

This table is what is exposed and what the documentation lists; there is no other.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """The type of a family, as Prometheus names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Across(StrEnum):
    """How the values of several processes of one gateway become one."""

    SUM = "sum"
    MOST = "most"
    LEAST = "least"


class Family(NamedTuple):
    """One metric family. `model` is always the first label where there is one."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    across: Across = Across.SUM

    @property
    def has_model(self) -> bool:
        """Whether its series belong to models, and go when the model goes."""
        return self.labels[:1] == ("model",)

    @property
    def has_caller(self) -> bool:
        """Whether its series belong to tenants or keys, and go when these go."""
        return self.labels[:1] in {("tenant",), ("key",)}


BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of all histograms, in seconds: from the router's own work to a cold start."""

REQUESTS = Family(
    "router_requests_total",
    Kind.COUNTER,
    ("model", "backend", "outcome"),
    "Requests that ended, by the backend that answered (empty: none did) and how they ended.",
)
DECISIONS = Family(
    "router_decisions_total",
    Kind.COUNTER,
    ("model", "backend", "reason"),
    "Decisions where to send an attempt, and why.",
)
ATTEMPTS = Family(
    "router_attempts_total",
    Kind.COUNTER,
    ("model", "backend", "result"),
    "Attempts at a backend, by result; a request may need several.",
)
HEDGES = Family(
    "router_hedges_total",
    Kind.COUNTER,
    ("model", "result"),
    "Slow attempts, by what a second one beside them came to: won, lost, failed, cancelled, or not"
    " sent for want of budget or of a free slot (no_budget, no_place).",
)
PASSED_ON = Family(
    "router_passed_on_total",
    Kind.COUNTER,
    ("model",),
    "Requests that the model could not serve and that the next one of its fallback chain got.",
)
REQUEST_DURATION = Family(
    "router_request_duration_seconds",
    Kind.HISTOGRAM,
    ("model", "backend"),
    "Time from the request's head to the end of the answer.",
)
ATTEMPT_DURATION = Family(
    "router_attempt_duration_seconds",
    Kind.HISTOGRAM,
    ("model", "backend"),
    "Time one attempt took at its backend.",
)
GATEWAY_OVERHEAD = Family(
    "router_gateway_overhead_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "Time of a request that was spent neither at a backend nor in a queue.",
)
QUEUE_WAIT = Family(
    "router_queue_wait_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "Time held requests waited for a replica.",
)
IN_FLIGHT = Family(
    "router_in_flight",
    Kind.GAUGE,
    ("model", "backend"),
    "Attempts now at a backend.",
)
QUEUE_DEPTH = Family(
    "router_queue_depth",
    Kind.GAUGE,
    ("model", "backend"),
    "Requests now held for a backend.",
)
REPLICAS_WANTED = Family(
    "router_replicas_wanted",
    Kind.GAUGE,
    ("model",),
    "Warm replicas the sizing asks for.",
    Across.MOST,
)
REPLICAS_READY = Family(
    "router_replicas_ready",
    Kind.GAUGE,
    ("model",),
    "Warm replicas that take requests.",
    Across.MOST,
)
REPLICAS_BILLED = Family(
    "router_replicas_billed",
    Kind.GAUGE,
    ("model",),
    "Warm replicas that cost money, ready or not.",
    Across.MOST,
)
POOL_SLOTS = Family(
    "router_pool_slots",
    Kind.GAUGE,
    ("model",),
    "Requests that the warm replicas in traffic are believed to work on at once.",
    Across.MOST,
)
COLD_STARTS = Family(
    "router_cold_starts_total",
    Kind.COUNTER,
    ("model",),
    "Function calls that had to start an environment.",
)
COLD_START_DURATION = Family(
    "router_cold_start_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "Time those starts took, as the platform reports it.",
)
COST = Family(
    "router_cost_usd_total",
    Kind.COUNTER,
    ("model", "part"),
    "Estimated cost in US dollars: function calls, replicas at work, replicas idle.",
)
ALTERNATIVE_COST = Family(
    "router_alternative_cost_usd_total",
    Kind.COUNTER,
    ("model", "alternative"),
    "What the same requests would have cost with functions only (always_serverless: each at the"
    " price of a warm call), and with replicas for 1.1 times the last day's highest load"
    " (always_warm); without series where there is no such place.",
)
TENANT_REQUESTS = Family(
    "router_tenant_requests_total",
    Kind.COUNTER,
    ("tenant", "outcome"),
    "Requests that ended, by the tenant of their key (empty: no key) and how they ended.",
)
TENANT_COST = Family(
    "router_tenant_cost_usd_total",
    Kind.COUNTER,
    ("tenant", "part"),
    "The same cost by who pays: calls by their callers, replicas at work by the seconds that slots"
    " were held, idle ones by the use in the last half hour to hour (empty: nobody's).",
)
TENANT_BUDGET = Family(
    "router_tenant_budget_usd",
    Kind.GAUGE,
    ("tenant", "period"),
    "What the tenant means to spend (budgets), by period (day: 24 hours, month: 30 days).",
    Across.MOST,
)
TENANT_TOKENS = Family(
    "router_tenant_tokens_total",
    Kind.COUNTER,
    ("tenant", "direction"),
    "Tokens that answers of OpenAI's and Anthropic's shapes say they took (input, output), by the"
    " tenant of the key.",
)
TENANT_GB_SECONDS = Family(
    "router_tenant_gigabyte_seconds_total",
    Kind.COUNTER,
    ("tenant",),
    "Memory of function environments in GB, times the seconds billed, by whose calls they were.",
)
REFUSALS = Family(
    "router_refusals_total",
    Kind.COUNTER,
    ("key", "cause"),
    "Requests that the gateway itself answered with an error, by the name of their key (empty:"
    " none, or not known yet) and the error's code.",
)
OBJECTIVE_REQUESTS = Family(
    "router_objective_requests_total",
    Kind.COUNTER,
    ("model", "result"),
    "Requests by what became of the model's objective (met, late, cold: late for a cold start that"
    " slo.cold_start allows, failed); without those that their clients or models got wrong.",
)
OBJECTIVE_RATIO = Family(
    "router_objective_ratio",
    Kind.GAUGE,
    ("model",),
    "Share of a model's requests that slo.percentile wants to be met.",
    Across.MOST,
)
RETRIES = Family(
    "router_retries_total",
    Kind.COUNTER,
    ("model",),
    "Attempts after the first one of a request.",
)
RETRY_BUDGET_EXHAUSTED = Family(
    "router_retry_budget_exhausted_total",
    Kind.COUNTER,
    (),
    "Retries that were not made because the retry budget was spent.",
)
BREAKER_OPEN = Family(
    "router_breaker_open",
    Kind.GAUGE,
    ("model", "backend"),
    "1 while the backend is not used after repeated failures.",
    Across.MOST,
)
ENDPOINT_EJECTIONS = Family(
    "router_endpoint_ejections_total",
    Kind.COUNTER,
    ("model",),
    "Endpoints set aside because they failed or were far slower than the others.",
)
ENDPOINTS = Family(
    "router_endpoints",
    Kind.GAUGE,
    ("model", "state"),
    "Endpoints of the pool by state (ready, warming, slow, ejected, draining, not_ready).",
    Across.MOST,
)
POOL_PANICKING = Family(
    "router_pool_panicking",
    Kind.GAUGE,
    ("model",),
    "1 while so many endpoints are bad that bad ones are used again.",
    Across.MOST,
)
SIZED_BY_OTHERS = Family(
    "router_pool_sized_by_others",
    Kind.GAUGE,
    ("model",),
    "1 once something else, such as an HPA, kept setting the pool's size, and the gateway gave in.",
    Across.MOST,
)
CONFIG_RELOADS = Family(
    "router_config_reload_total",
    Kind.COUNTER,
    ("result",),
    "Configurations read, by result (ok, failed).",
    Across.MOST,
)
CONFIG_RELOAD_TIMESTAMP = Family(
    "router_config_reload_success_timestamp_seconds",
    Kind.GAUGE,
    (),
    "When a configuration last took effect, in seconds since 1970.",
    Across.LEAST,
)
CONFIG_LAST_RELOAD = Family(
    "router_config_last_reload_successful",
    Kind.GAUGE,
    (),
    "0 while the configuration file has an error and the one before it is in force.",
    Across.LEAST,
)
CERTIFICATE_EXPIRY = Family(
    "router_certificate_expiry_timestamp_seconds",
    Kind.GAUGE,
    (),
    "When the data port's certificate ends, in seconds since 1970; without series for plain HTTP.",
    Across.LEAST,
)
SIGNALS_DEGRADED = Family(
    "router_signals_degraded",
    Kind.GAUGE,
    (),
    "1 while the shared state is stale and this gateway acts alone.",
    Across.MOST,
)
SHARED_STATE_FLUSHES = Family(
    "router_shared_state_flushes_total",
    Kind.COUNTER,
    ("result",),
    "Exchanges with the shared state, by result (ok, failed).",
)
SHARED_STATE_PEERS = Family(
    "router_shared_state_peers",
    Kind.GAUGE,
    (),
    "Other gateways seen in the shared state.",
    Across.MOST,
)
SHARED_STATE_DROPPED = Family(
    "router_shared_state_dropped_records_total",
    Kind.COUNTER,
    (),
    "Records of other gateways that were not believed.",
)
ACCESS_LOG_DROPPED = Family(
    "router_access_log_dropped_lines_total",
    Kind.COUNTER,
    (),
    "Access log lines lost because the target was too slow or could not be written.",
)
SPANS = Family(
    "router_spans_total",
    Kind.COUNTER,
    ("result",),
    "Spans that were to go to the collector: sent, rejected by it, or dropped because it could not"
    " be reached in time (failed) or too many waited (queue_full).",
)
BODY_BYTES = Family(
    "router_body_bytes_buffered",
    Kind.GAUGE,
    (),
    "Bytes of request bodies now in memory.",
)
CONNECTIONS = Family(
    "router_client_connections_open",
    Kind.GAUGE,
    (),
    "Connections of clients now open.",
)
CONNECTIONS_TOTAL = Family(
    "router_client_connections_total",
    Kind.COUNTER,
    ("result",),
    "Connections that clients opened, by result (accepted, refused, handshake_failed).",
)
CLIENT_TIMEOUTS = Family(
    "router_client_timeouts_total",
    Kind.COUNTER,
    ("wait",),
    "Connections closed because the client kept the gateway waiting (header, idle, send).",
)
CANARY_SHARE = Family(
    "router_canary_share_ratio",
    Kind.GAUGE,
    ("model", "rule"),
    "Share of a canary rule's requests that its canary gets now; 0 once it is rolled back.",
    Across.LEAST,
)
CANARY_REQUESTS = Family(
    "router_canary_requests_total",
    Kind.COUNTER,
    ("model", "rule", "side", "result"),
    "Requests under a canary rule, by side (stable, canary) and result (ok, failed).",
)
CANARY_ROLLBACKS = Family(
    "router_canary_rollbacks_total",
    Kind.COUNTER,
    ("model", "rule"),
    "Times a canary was taken out because it was worse, or because somebody asked.",
)
SHADOW_COPIES = Family(
    "router_shadow_copies_total",
    Kind.COUNTER,
    ("model", "result"),
    "Requests that a shadow was to get: sent (ok, failed, timeout) or dropped (busy, too_large).",
)
SHADOW_DURATION = Family(
    "router_shadow_duration_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "Time a shadow took to answer a copy.",
)
SHADOW_COMPARISONS = Family(
    "router_shadow_comparisons_total",
    Kind.COUNTER,
    ("model", "result"),
    "Answers of a shadow that were compared (match, mismatch), or too large to keep (skipped).",
)
SHADOW_MAX_DIFFERENCE = Family(
    "router_shadow_max_difference",
    Kind.GAUGE,
    ("model",),
    "Largest difference of two numbers that a comparison with the shadow has found.",
    Across.MOST,
)
QUALITY_SAMPLES = Family(
    "router_quality_samples_total",
    Kind.COUNTER,
    ("model", "result"),
    "Requests that were to be sampled: read, or not"
    " (unreadable, too_large, busy, over_rate, failed).",
)
QUALITY_LABELS = Family(
    "router_quality_labels_total",
    Kind.COUNTER,
    ("model", "result"),
    "Labels that clients sent: counted, or not (unknown, invalid, busy); without a model where no"
    " answer was found.",
)
QUALITY_PENDING = Family(
    "router_quality_pending_answers",
    Kind.GAUGE,
    (),
    "Answers that wait for their labels.",
)
QUALITY_JUDGED = Family(
    "router_quality_judged_total",
    Kind.COUNTER,
    ("model", "version", "side"),
    "Answers that labels or scores have judged, by version and side (all, stable, canary, shadow).",
)
QUALITY_RIGHT = Family(
    "router_quality_right_total",
    Kind.COUNTER,
    ("model", "version", "side"),
    "The sum of their scores: 1 for each that was right.",
)
QUALITY_ALARMS = Family(
    "router_quality_alarms_total",
    Kind.COUNTER,
    ("model", "version", "test"),
    "Features found to be distributed otherwise than in the baseline, by the test that says so.",
)
QUALITY_DRIFTING = Family(
    "router_quality_drifting_features",
    Kind.GAUGE,
    ("model", "version"),
    "Features that the last window of samples found changed.",
    Across.MOST,
)
QUALITY_PSI = Family(
    "router_quality_largest_psi",
    Kind.GAUGE,
    ("model", "version"),
    "Largest population stability index of a feature in the last window.",
    Across.MOST,
)
JOBS = Family(
    "router_jobs",
    Kind.GAUGE,
    ("state",),
    "Jobs in the store by state, of all gateways that share it; those that ended, until forgotten.",
    Across.MOST,
)
JOBS_ENDED = Family(
    "router_jobs_ended_total",
    Kind.COUNTER,
    ("state",),
    "Jobs that ended here, by how they ended.",
)
JOBS_RECOVERED = Family(
    "router_jobs_recovered_total",
    Kind.COUNTER,
    (),
    "Jobs that were taken from gateways that had gone silent.",
)
JOBS_OVERDUE = Family(
    "router_jobs_overdue_seconds",
    Kind.GAUGE,
    (),
    "How long ago the most urgent job that waits should have ended; 0 if none is late.",
    Across.MOST,
)
JOBS_STAND_STILL = Family(
    "router_jobs_stand_still",
    Kind.GAUGE,
    (),
    "1 while the store of the jobs cannot be reached or written.",
    Across.MOST,
)
JOBS_DELAYED = Family(
    "router_requests_delayed_by_jobs_total",
    Kind.COUNTER,
    ("model",),
    "Requests that had to wait for a slot that they would have had without jobs.",
)
DELIVERIES = Family(
    "router_deliveries",
    Kind.GAUGE,
    ("state",),
    "Callbacks and answers to sinks in the store by state; those that ended, until forgotten.",
    Across.MOST,
)
DELIVERIES_TRIED = Family(
    "router_delivery_attempts_total",
    Kind.COUNTER,
    ("result",),
    "Messages sent from here, by result: delivered, failed (and tried again), dead, gone.",
)
EVENTS = Family(
    "router_events_total",
    Kind.COUNTER,
    ("result",),
    "Events that came: accepted, duplicate, dropped (no trigger), and requests that were refused.",
)
TASKS = Family(
    "router_tasks",
    Kind.GAUGE,
    (),
    "Tasks of the gateway's event loop; a number that only grows is a leak.",
)
LOOP_STALL = Family(
    "router_loop_stall_seconds",
    Kind.HISTOGRAM,
    ("cause",),
    "How late a timer of the event loop came, as far as the loop itself computed (work) or had to"
    " wait for a core or a thread (machine); and how long each collection of garbage took"
    " (collection).",
)
BUILD_INFO = Family(
    "router_build_info",
    Kind.INFO,
    ("version", "python"),
    "Release of the router and of Python; always 1.",
)

OF_CALLERS = (TENANT_REQUESTS, TENANT_COST, TENANT_TOKENS, TENANT_GB_SECONDS, REFUSALS)
FAMILIES: tuple[Family, ...] = (
    REQUESTS,
    DECISIONS,
    ATTEMPTS,
    HEDGES,
    PASSED_ON,
    REQUEST_DURATION,
    ATTEMPT_DURATION,
    GATEWAY_OVERHEAD,
    QUEUE_WAIT,
    IN_FLIGHT,
    QUEUE_DEPTH,
    REPLICAS_WANTED,
    REPLICAS_READY,
    REPLICAS_BILLED,
    POOL_SLOTS,
    COLD_STARTS,
    COLD_START_DURATION,
    COST,
    ALTERNATIVE_COST,
    TENANT_REQUESTS,
    TENANT_COST,
    TENANT_BUDGET,
    TENANT_TOKENS,
    TENANT_GB_SECONDS,
    REFUSALS,
    OBJECTIVE_REQUESTS,
    OBJECTIVE_RATIO,
    RETRIES,
    RETRY_BUDGET_EXHAUSTED,
    BREAKER_OPEN,
    ENDPOINT_EJECTIONS,
    ENDPOINTS,
    POOL_PANICKING,
    SIZED_BY_OTHERS,
    CONFIG_RELOADS,
    CONFIG_RELOAD_TIMESTAMP,
    CONFIG_LAST_RELOAD,
    CERTIFICATE_EXPIRY,
    SIGNALS_DEGRADED,
    SHARED_STATE_FLUSHES,
    SHARED_STATE_PEERS,
    SHARED_STATE_DROPPED,
    ACCESS_LOG_DROPPED,
    SPANS,
    BODY_BYTES,
    CONNECTIONS,
    CONNECTIONS_TOTAL,
    CLIENT_TIMEOUTS,
    CANARY_SHARE,
    CANARY_REQUESTS,
    CANARY_ROLLBACKS,
    SHADOW_COPIES,
    SHADOW_DURATION,
    SHADOW_COMPARISONS,
    SHADOW_MAX_DIFFERENCE,
    QUALITY_SAMPLES,
    QUALITY_LABELS,
    QUALITY_PENDING,
    QUALITY_JUDGED,
    QUALITY_RIGHT,
    QUALITY_ALARMS,
    QUALITY_DRIFTING,
    QUALITY_PSI,
    JOBS,
    JOBS_ENDED,
    JOBS_RECOVERED,
    JOBS_OVERDUE,
    JOBS_STAND_STILL,
    JOBS_DELAYED,
    DELIVERIES,
    DELIVERIES_TRIED,
    EVENTS,
    TASKS,
    LOOP_STALL,
    BUILD_INFO,
)
"""All families, in the order in which they are exposed and listed."""


def reference_table() -> str:
    """The families as a Markdown table, for the documentation."""
    return "\n".join(_rows())


def _rows() -> Iterator[str]:
    yield "| Name | Type | Labels | Meaning |"
    yield "|---|---|---|---|"
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"
