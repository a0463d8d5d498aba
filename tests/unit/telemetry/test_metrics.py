import platform
from collections.abc import Callable

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from router.domain.decision import Backend, Outcome, Reason
from router.domain.tokens import Tokens
from router.telemetry.families import BUCKETS_S, FAMILIES, Kind, reference_table
from router.telemetry.labels import (
    Alternative,
    AttemptResult,
    CostPart,
    HedgeResult,
    SpanResult,
    StallCause,
)
from router.telemetry.metrics import Metrics, Objective
from router.telemetry.readings import (
    CanaryReading,
    JobsReading,
    QualityReading,
    Readings,
    ShadowReading,
)
from router.turns import Steps, at_once


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    made = Metrics(registry, version="1.2.3")
    objectives = {"fraud": Objective(0.1, 0.99)}
    made.configure(["fraud", "ocr"], objectives, {"nightly": "batch"}, {("batch", "day"): 5.0})
    return made


def record_one_of_each(metrics: Metrics, model: str = "fraud") -> None:
    metrics.record_request(model, Backend.POOL, Outcome.OK, 0.02, 0.0002)
    metrics.record_decision(model, Backend.POOL, Reason.WARM_CAPACITY)
    metrics.record_attempt(model, Backend.POOL, AttemptResult.OK, 0.019)
    metrics.record_cold_start(model, 1.5)
    metrics.observe_queue_wait(model, 0.3)
    metrics.add_cost(model, CostPart.SERVERLESS, 0.25)
    metrics.add_alternative(model, Alternative.ALWAYS_WARM, 0.75)
    metrics.record_caller("batch", model, Outcome.OK, 0.02)
    metrics.record_tokens("batch", Tokens(7, 30))
    metrics.add_gb_s("batch", 0.125)
    metrics.record_refusal("nightly", "rate_limited")
    metrics.record_retry(model)
    metrics.record_hedge(model, HedgeResult.WON)
    metrics.record_pass_on(model)
    metrics.record_spans(SpanResult.SENT, 4)
    metrics.record_retry_budget_exhausted()
    metrics.observe_shadow(model, 0.3)
    metrics.observe_stall(StallCause.WORK, 0.001)


FRAUD_POOL = {"model": "fraud", "backend": "pool"}
FRAUD_1 = {"model": "fraud", "version": "1"}


@pytest.mark.parametrize(
    ("sample", "labels", "expected"),
    [
        ("router_requests_total", FRAUD_POOL | {"outcome": "ok"}, 1),
        ("router_decisions_total", FRAUD_POOL | {"reason": "warm_capacity"}, 1),
        ("router_attempts_total", FRAUD_POOL | {"result": "ok"}, 1),
        ("router_request_duration_seconds_count", FRAUD_POOL, 1),
        ("router_request_duration_seconds_sum", FRAUD_POOL, 0.02),
        ("router_attempt_duration_seconds_sum", FRAUD_POOL, 0.019),
        ("router_gateway_overhead_seconds_sum", {"model": "fraud"}, 0.0002),
        ("router_queue_wait_seconds_sum", {"model": "fraud"}, 0.3),
        ("router_cold_starts_total", {"model": "fraud"}, 1),
        ("router_cold_start_seconds_sum", {"model": "fraud"}, 1.5),
        ("router_cost_usd_total", {"model": "fraud", "part": "serverless"}, 0.25),
        ("router_cost_usd_total", {"model": "fraud", "part": "warm_idle"}, 0),
        (
            "router_alternative_cost_usd_total",
            {"model": "fraud", "alternative": "always_warm"},
            0.75,
        ),
        ("router_tenant_cost_usd_total", {"tenant": "", "part": "serverless"}, 0.25),
        ("router_tenant_requests_total", {"tenant": "batch", "outcome": "ok"}, 1),
        ("router_tenant_budget_usd", {"tenant": "batch", "period": "day"}, 5),
        ("router_tenant_tokens_total", {"tenant": "batch", "direction": "input"}, 7),
        ("router_tenant_tokens_total", {"tenant": "batch", "direction": "output"}, 30),
        ("router_tenant_gigabyte_seconds_total", {"tenant": "batch"}, 0.125),
        ("router_refusals_total", {"key": "nightly", "cause": "rate_limited"}, 1),
        ("router_objective_requests_total", {"model": "fraud", "result": "met"}, 1),
        ("router_objective_ratio", {"model": "fraud"}, 0.99),
        ("router_retries_total", {"model": "fraud"}, 1),
        ("router_retry_budget_exhausted_total", {}, 1),
        ("router_config_reload_total", {"result": "ok"}, 0),
        ("router_build_info", {"version": "1.2.3", "python": platform.python_version()}, 1),
    ],
)
def test_what_is_recorded_is_exposed(
    registry: CollectorRegistry,
    metrics: Metrics,
    sample: str,
    labels: dict[str, str],
    expected: float,
) -> None:
    record_one_of_each(metrics)

    assert registry.get_sample_value(sample, labels) == expected


def test_counters_add_up(registry: CollectorRegistry, metrics: Metrics) -> None:
    for _ in range(3):
        record_one_of_each(metrics)

    labels = {"model": "fraud", "part": "serverless"}
    assert registry.get_sample_value("router_cost_usd_total", labels) == 0.75
    assert registry.get_sample_value("router_retries_total", {"model": "fraud"}) == 3


def test_a_request_that_reached_no_backend_has_an_empty_one(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.record_request("fraud", None, Outcome.SHED, 0.1, 0.1)

    labels = {"model": "fraud", "backend": "", "outcome": "shed"}
    assert registry.get_sample_value("router_requests_total", labels) == 1


def test_a_cold_start_of_unknown_length_is_counted_and_not_measured(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.record_cold_start("fraud", None)

    assert registry.get_sample_value("router_cold_starts_total", {"model": "fraud"}) == 1
    assert registry.get_sample_value("router_cold_start_seconds_count", {"model": "fraud"}) is None


@pytest.mark.parametrize(
    ("value_s", "first_bucket"),
    [
        pytest.param(0.0, "0.0001", id="nothing"),
        pytest.param(0.0001, "0.0001", id="exactly the lowest bound"),
        pytest.param(0.00011, "0.00025", id="just above a bound"),
        pytest.param(0.25, "0.25", id="exactly a bound"),
        pytest.param(60.0, "60.0", id="exactly the highest bound"),
        pytest.param(61.0, "+Inf", id="above all bounds"),
    ],
)
def test_an_observation_counts_in_its_bucket_and_all_above(
    registry: CollectorRegistry, metrics: Metrics, value_s: float, first_bucket: str
) -> None:
    metrics.observe_queue_wait("fraud", value_s)

    bounds = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
    counts = [
        registry.get_sample_value("router_queue_wait_seconds_bucket", {"model": "fraud", "le": le})
        for le in bounds
    ]
    start = bounds.index(first_bucket)
    assert counts == [0] * start + [1] * (len(bounds) - start)


def test_unknown_models_share_one_series(registry: CollectorRegistry, metrics: Metrics) -> None:
    for number in range(1000):
        record_one_of_each(metrics, model=f"made-up-{number}")

    labels = {"model": "", "backend": "pool", "outcome": "ok"}
    assert registry.get_sample_value("router_requests_total", labels) == 1000
    models = {
        sample.labels["model"]
        for family in registry.collect()
        for sample in family.samples
        if "model" in sample.labels
    }
    assert models == {"", "fraud", "ocr"}


def test_a_reload_keeps_what_stays_and_ends_the_series_of_what_goes(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    for model in ("fraud", "ocr", "unknown"):
        record_one_of_each(metrics, model)

    metrics.configure(["fraud", "new"])
    at_once(metrics.forgetting())
    record_one_of_each(metrics, "ocr")  # a request that was still running

    text, _ = metrics.expose("")
    assert b'model="ocr"' not in text
    assert registry.get_sample_value("router_retries_total", {"model": "fraud"}) == 1
    assert registry.get_sample_value("router_retries_total", {"model": ""}) == 2
    assert registry.get_sample_value("router_retries_total", {"model": "new"}) == 0
    assert registry.get_sample_value("router_retry_budget_exhausted_total") == 4


@pytest.mark.parametrize("usd", [-0.01, float("nan")])
def test_a_cost_that_would_go_backwards_is_refused(metrics: Metrics, usd: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        metrics.add_cost("fraud", CostPart.WARM_BUSY, usd)


def given(readings: Readings) -> Steps[Readings]:
    yield
    return readings


READINGS = Readings(
    in_flight={("fraud", Backend.SERVERLESS): 3},
    queue_depth={("fraud", Backend.POOL): 4},
    breaker_open={("fraud", Backend.SERVERLESS): True},
    replicas_wanted={"fraud": 5},
    replicas_ready={"fraud": 6},
    replicas_billed={"fraud": 7},
    pool_slots={"fraud": 28},
    endpoints={("fraud", "slow"): 2},
    pool_panicking={"fraud": True},
    sized_by_others={"fraud": True},
    ejections_total={"fraud": 3},
    delayed_by_jobs_total={"fraud": 7},
    tasks=21,
    jobs=JobsReading(
        {"queued": 41}, {"dead": 42}, 43, 44.5, True, {"waiting": 51}, {"gone": 52}, {"dropped": 53}
    ),
    certificate_expires_at=2e9,
    signals_degraded=True,
    shared_state_peers=8,
    flushes_ok_total=9,
    flushes_failed_total=10,
    dropped_records_total=11,
    dropped_log_lines_total=12,
    body_bytes_buffered=13,
    connections=14,
    connections_accepted_total=15,
    connections_refused_total=16,
    handshakes_failed_total=17,
    waits_timed_out_total={"header": 18},
    shadows=[ShadowReading("fraud", {"ok": 21}, {"match": 22}, 0.5)],
    canaries=[CanaryReading("fraud", "r", 0.25, 19, {("canary", "failed"): 20})],
    quality=QualityReading(
        {("fraud", "read"): 31},
        {("fraud", "counted"): 32},
        {("fraud", "1", "all"): 33},
        {("fraud", "1", "all"): 30.5},
        {("fraud", "1", "chi_square"): 34},
        {("fraud", "1"): 35},
        {("fraud", "1"): 0.25},
        36,
    ),
)


@pytest.mark.parametrize(
    ("sample", "labels", "expected"),
    [
        ("router_in_flight", {"model": "fraud", "backend": "serverless"}, 3),
        ("router_queue_depth", FRAUD_POOL, 4),
        ("router_breaker_open", {"model": "fraud", "backend": "serverless"}, 1),
        ("router_replicas_wanted", {"model": "fraud"}, 5),
        ("router_replicas_ready", {"model": "fraud"}, 6),
        ("router_replicas_billed", {"model": "fraud"}, 7),
        ("router_pool_slots", {"model": "fraud"}, 28),
        ("router_endpoints", {"model": "fraud", "state": "slow"}, 2),
        ("router_pool_panicking", {"model": "fraud"}, 1),
        ("router_pool_sized_by_others", {"model": "fraud"}, 1),
        ("router_endpoint_ejections_total", {"model": "fraud"}, 3),
        ("router_requests_delayed_by_jobs_total", {"model": "fraud"}, 7),
        ("router_tasks", {}, 21),
        ("router_jobs", {"state": "queued"}, 41),
        ("router_jobs_ended_total", {"state": "dead"}, 42),
        ("router_jobs_recovered_total", {}, 43),
        ("router_jobs_overdue_seconds", {}, 44.5),
        ("router_jobs_stand_still", {}, 1),
        ("router_signals_degraded", {}, 1),
        ("router_shared_state_peers", {}, 8),
        ("router_shadow_copies_total", {"model": "fraud", "result": "ok"}, 21),
        ("router_shadow_comparisons_total", {"model": "fraud", "result": "match"}, 22),
        ("router_shadow_max_difference", {"model": "fraud"}, 0.5),
        ("router_canary_share_ratio", {"model": "fraud", "rule": "r"}, 0.25),
        ("router_canary_rollbacks_total", {"model": "fraud", "rule": "r"}, 19),
        (
            "router_canary_requests_total",
            {"model": "fraud", "rule": "r", "side": "canary", "result": "failed"},
            20,
        ),
        ("router_quality_samples_total", {"model": "fraud", "result": "read"}, 31),
        ("router_quality_labels_total", {"model": "fraud", "result": "counted"}, 32),
        ("router_quality_judged_total", FRAUD_1 | {"side": "all"}, 33),
        ("router_quality_right_total", FRAUD_1 | {"side": "all"}, 30.5),
        ("router_quality_alarms_total", FRAUD_1 | {"test": "chi_square"}, 34),
        ("router_quality_drifting_features", FRAUD_1, 35),
        ("router_quality_largest_psi", FRAUD_1, 0.25),
        ("router_quality_pending_answers", {}, 36),
        ("router_shared_state_flushes_total", {"result": "ok"}, 9),
        ("router_shared_state_flushes_total", {"result": "failed"}, 10),
        ("router_shared_state_dropped_records_total", {}, 11),
        ("router_access_log_dropped_lines_total", {}, 12),
        ("router_body_bytes_buffered", {}, 13),
        ("router_client_connections_open", {}, 14),
        ("router_client_connections_total", {"result": "accepted"}, 15),
        ("router_client_connections_total", {"result": "refused"}, 16),
        ("router_client_connections_total", {"result": "handshake_failed"}, 17),
        ("router_client_timeouts_total", {"wait": "header"}, 18),
    ],
)
def test_readings_are_asked_for_at_every_scrape(
    registry: CollectorRegistry,
    metrics: Metrics,
    sample: str,
    labels: dict[str, str],
    expected: float,
) -> None:
    assert registry.get_sample_value(sample, labels) in (None, 0)

    metrics.readings = lambda: given(READINGS)

    assert registry.get_sample_value(sample, labels) == expected


def test_a_failed_reload_shows_and_keeps_the_time_of_the_last_good_one(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    def read() -> tuple[float | None, ...]:
        return (
            registry.get_sample_value("router_config_last_reload_successful"),
            registry.get_sample_value("router_config_reload_success_timestamp_seconds"),
            registry.get_sample_value("router_config_reload_total", {"result": "ok"}),
            registry.get_sample_value("router_config_reload_total", {"result": "failed"}),
        )

    assert read() == (0, 0, 0, 0)
    metrics.record_reload(succeeded=True, at=1000.0)
    assert read() == (1, 1000.0, 1, 0)
    metrics.record_reload(succeeded=False, at=2000.0)
    assert read() == (0, 1000.0, 1, 1)


def everything(metrics: Metrics) -> None:
    record_one_of_each(metrics)
    metrics.record_reload(succeeded=True, at=1000.0)
    metrics.readings = lambda: given(READINGS)


Parse = Callable[[str], object]


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        pytest.param("", "text/plain; version=0.0.4", text_string_to_metric_families, id="none"),
        pytest.param("*/*", "text/plain", text_string_to_metric_families, id="anything"),
        pytest.param(
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0",
            openmetrics_parser.text_string_to_metric_families,
            id="OpenMetrics",
        ),
        pytest.param(
            "application/openmetrics-text;version=evil",
            "text/plain",
            text_string_to_metric_families,
            id="a version that is not one",
        ),
    ],
)
def test_the_exposition_parses_in_the_format_that_was_asked_for(
    metrics: Metrics, accept: str, content_type: str, parse: Parse
) -> None:
    everything(metrics)

    body, answered = metrics.expose(accept)

    assert answered.startswith(content_type)
    parsed = {family.name for family in parse(body.decode())}  # type: ignore[attr-defined]
    assert len(parsed) == len(FAMILIES)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "text/plain;version=1.0.0;escaping=values",
        "text/plain;version=1.0.0;escaping=dots",
        "application/openmetrics-text;version=1.0.0",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
    ],
)
def test_the_text_is_what_prometheus_client_would_make_of_the_series(
    registry: CollectorRegistry, metrics: Metrics, accept: str
) -> None:
    odd = [*(f"model-{number}" for number in range(1000)), 'a"b\\c\nd', "{0} {} %s \x00"]
    metrics.configure(odd)
    everything(metrics)
    for number, model in enumerate(odd):
        for _ in range(number % 3):
            record_one_of_each(metrics, model)
        metrics.add_cost(model, CostPart.WARM_IDLE, number * 1e6)

    encoder, _ = choose_encoder(accept)
    assert metrics.expose(accept)[0].decode().splitlines() == (
        encoder(registry).decode().splitlines()
    )


def test_odd_model_names_are_escaped(registry: CollectorRegistry, metrics: Metrics) -> None:
    odd = 'a"b\\c\nd'
    metrics.configure([odd])
    record_one_of_each(metrics, odd)

    families = text_string_to_metric_families(metrics.expose("")[0].decode())
    models = {s.labels.get("model") for family in families for s in family.samples}
    assert odd in models


def test_exactly_the_listed_families_are_exposed_with_exactly_their_labels(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    everything(metrics)

    for family, exposed in zip(FAMILIES, registry.collect(), strict=True):
        suffix = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(family.kind, "")
        assert exposed.name + suffix == family.name
        assert exposed.type == family.kind
        assert exposed.documentation == family.help
        assert exposed.samples, f"nothing recorded {family.name}"
        for sample in exposed.samples:
            assert set(sample.labels) - {"le"} == set(family.labels)


def test_the_reference_lists_every_family_once() -> None:
    header, rule, *rows = reference_table().splitlines()

    assert header.count("|") == rule.count("|")
    assert [row.split("`")[1] for row in rows] == [family.name for family in FAMILIES]
    assert all(row.count("|") == header.count("|") for row in rows)
    assert (
        "| `router_cost_usd_total` | counter | `model`, `part` |"
        " Estimated cost in US dollars: function calls, replicas at work, replicas idle. |"
    ) in rows


OBJECTIVES = {"fraud": Objective(0.1, 0.99), "ocr": Objective(0.1, 0.99, cold_allowed=False)}


@pytest.mark.parametrize(
    ("model", "outcome", "took_s", "is_cold", "result"),
    [
        ("fraud", Outcome.OK, 0.1, False, "met"),
        ("fraud", Outcome.OK, 0.11, False, "late"),
        ("fraud", Outcome.OK, 0.11, True, "cold"),
        ("fraud", Outcome.OK, 0.09, True, "met"),
        ("ocr", Outcome.OK, 0.11, True, "late"),
        ("fraud", Outcome.SHED, 0.0, True, "failed"),
        ("fraud", Outcome.DEADLINE_EXCEEDED, 0.0, False, "failed"),
        ("fraud", Outcome.CLIENT_CLOSED, 0.2, False, None),
        ("fraud", Outcome.RATE_LIMITED, 0.2, False, None),
        ("fraud", Outcome.MODEL_ERROR, 0.2, False, None),
        ("unknown", Outcome.OK, 0.0, False, None),
    ],
)
def test_a_request_counts_against_the_objective(
    metrics: Metrics, model: str, outcome: Outcome, took_s: float, is_cold: bool, result: str | None
) -> None:
    metrics.configure(OBJECTIVES, OBJECTIVES)
    metrics.record_caller("", model, outcome, took_s, is_cold=is_cold)

    counted = dict(metrics.snapshot().values["router_objective_requests_total"])
    assert {labels: count for labels, count in counted.items() if count} == (
        {(model, result): 1} if result is not None else {}
    )


def test_many_requests_count_as_each_of_them(metrics: Metrics) -> None:
    metrics.configure(OBJECTIVES, OBJECTIVES, {"key": "batch"})
    metrics.record_callers("batch", "fraud", Outcome.OK, np.array([0.05, 0.1, 0.2]))
    metrics.record_callers("stranger", "fraud", Outcome.SHED, np.array([0.05]))

    values = metrics.snapshot().values
    counted = dict(values["router_objective_requests_total"])
    found = [counted["fraud", result] for result in ("met", "late", "failed")]
    assert found == [2, 1, 1]
    assert dict(values["router_tenant_requests_total"]) == {("batch", "ok"): 3, ("", "shed"): 1}


def test_tenants_and_keys_are_the_configured_ones_only(metrics: Metrics) -> None:
    metrics.configure(["fraud"], callers={"nightly": "batch"})
    metrics.record_refusal("nightly", "rate_limited")
    metrics.record_refusal("stranger", "unauthorized")
    metrics.add_cost("fraud", CostPart.SERVERLESS, 0.5, "batch")
    values = metrics.snapshot().values
    assert dict(values["router_refusals_total"]) == {
        ("nightly", "rate_limited"): 1,
        ("", "unauthorized"): 1,
    }
    assert dict(values["router_tenant_cost_usd_total"]) == {("batch", "serverless"): 0.5}

    metrics.configure(["fraud"])
    at_once(metrics.forgetting())
    values = metrics.snapshot().values
    assert dict(values["router_refusals_total"]) == {("", "unauthorized"): 1}
    assert values["router_tenant_cost_usd_total"] == []
