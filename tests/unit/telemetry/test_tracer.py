"""What is said of a trace upstream, which traces are kept, and how many may wait."""

from collections.abc import Callable
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from router.domain.decision import Backend, Decision, Outcome, Reason
from router.domain.trace_context import continued, is_sampled, read_lines
from router.telemetry.exposition import Snapshot, encoded, merged
from router.telemetry.families import REQUEST_DURATION
from router.telemetry.labels import AttemptResult
from router.telemetry.logs import AccessRecord
from router.telemetry.metrics import Metrics
from router.telemetry.trace import MAX_SPANS, Kept, Trace
from router.telemetry.tracer import BATCH, MAX_HELD, Keeping, Tracer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STATE = b"tracestate: a=b\r\n"
RECORD = AccessRecord(
    request_id="r", protocol="oip", model="m", version=None, tenant=None, payload_bytes=1,
    backend="pool", reason="warm_capacity", rule="", endpoint="e", attempts=1, status=200,
    outcome="ok", cold_start=None, total_ms=1.0, upstream_ms=1.0, queue_ms=0.0, deadline_ms=None,
    cost_usd=0.0,
)  # fmt: skip
DECISION = Decision(Backend.POOL, Reason.WARM_CAPACITY, "")


def tracer(share: float = 0.0, *tail: Kept) -> Tracer:
    metrics = Metrics(CollectorRegistry(), "0")
    metrics.configure(["m"])
    made = Tracer(metrics, Random(1))
    made.configure(Keeping(share, frozenset(tail), {"m": 0.5}))
    return made


def line(value: str) -> bytes:
    return f"Traceparent: {value}\r\n".encode()


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-02", False),
        (f"00-{TRACE}-{PARENT}-03 ", True),
        (f" 00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-ff", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-00-of-a-version-to-come", False),
    ],
)
def test_a_trace_goes_on_with_another_parent_and_its_state(value: str, sampled: bool):
    one, other = (tracer(1.0).lines(line(value) + STATE) for _ in range(2))
    assert one.lower().startswith(f"traceparent: 00-{TRACE}-".encode())
    assert one.endswith(b"\r\n" + STATE)
    assert is_sampled(one) is sampled
    found = read_lines(one)
    assert found is not None
    assert found.parent_id != PARENT
    assert one == other, "it depends on nothing but what came and the random numbers"


@pytest.mark.parametrize("came", [b"", STATE, line(f"ff-{TRACE}-{PARENT}-01") + STATE, line("odd")])
def test_what_is_no_trace_begins_a_new_one_without_its_state(came: bytes):
    always, never = tracer(1.0).lines(came), tracer(0.0).lines(came)
    assert (is_sampled(always), is_sampled(never)) == (True, False)
    for one in (always, never):
        found = read_lines(one)
        assert found is not None
        assert found.trace_id != TRACE
        assert one.count(b"\r\n") == 1


@given(st.from_regex(r"(00|01|ff|0)-[0-9a-f]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}", fullmatch=True))
def test_the_quick_way_knows_only_what_the_grammar_allows(value: str):
    quick, parent = continued(line(value), 5), read_lines(line(value))
    if quick is not None:
        assert parent is not None
        told = parent._replace(parent_id=f"{5:016x}")
        assert quick == f"Traceparent: {told.text}\r\n".encode()


def failed(trace: Trace) -> None:
    sent = trace.sending("m", DECISION, "e", 1.0)
    trace.attempted(sent, AttemptResult.RESPONSE_LOST, 1.1, None)


def cold(trace: Trace) -> None:
    trace.started_cold(trace.sending("m", DECISION, "e", 1.0), 1.2, 0.1)


def hedged(trace: Trace) -> None:
    decision = Decision(Backend.POOL, Reason.HEDGE, "")
    trace.attempted(trace.sending("m", decision, "e", 1.0), AttemptResult.CANCELLED, 1.1, None)


@pytest.mark.parametrize(
    ("what", "took_s", "read_s", "status", "kept"),
    [
        (None, 0.1, 0.0, 200, None),
        (None, 0.1, 0.0, 404, None),
        (None, 0.1, 0.0, 503, Kept.ERRORS),
        (failed, 0.1, 0.0, 200, Kept.ERRORS),
        (None, 0.6, 0.0, 200, Kept.SLOW),
        (None, 0.6, 0.2, 200, None),
        (cold, 0.1, 0.0, 200, Kept.COLD),
        (hedged, 0.1, 0.0, 200, Kept.HEDGED),
    ],
)
def test_a_trace_that_nobody_sampled_is_kept_by_how_it_ended(
    what: Callable[[Trace], None] | None,
    took_s: float,
    read_s: float,
    status: int,
    kept: Kept | None,
):
    record = AccessRecord(
        **{**{f: getattr(RECORD, f) for f in RECORD.__struct_fields__}, "status": status}
    )
    for some, expected in ((tracer(0.0, *Kept), kept), (tracer(), None)):
        trace = some.begin("")
        assert trace is not None
        if what is not None:
            what(trace)
        some.ended(trace, record, 1.0, 1.0 + took_s, read_s)
        assert [one.kept for one in some.take()] == ([] if expected is None else [expected])


def test_so_many_wait_and_the_others_are_counted():
    some = tracer(1.0)
    for _ in range(MAX_HELD + 3):
        trace = some.begin("")
        assert trace is not None
        trace.decided(DECISION, 0.0, 0.1)
        some.ended(trace, RECORD, 0.0, 0.1)
    text = some._metrics.expose("")[0].decode()
    assert 'router_spans_total{result="queue_full"} 6.0' in text
    taken = 0
    while batch := some.take():
        assert len(batch) <= BATCH
        taken += len(batch)
    assert taken == MAX_HELD
    assert not some.has_some.is_set()
    assert not some.has_many.is_set()


def test_a_request_has_only_so_many_spans():
    trace = tracer(1.0).begin("")
    assert trace is not None
    for _ in range(MAX_SPANS + 5):
        trace.decided(DECISION, 0.0, 0.1)
    assert len(trace.spans) == MAX_SPANS


def test_nothing_is_begun_where_nothing_is_traced():
    some = tracer()
    some.configure(None)
    assert not some.is_on
    assert some.begin(f"00-{TRACE}-{PARENT}-01") is None


def test_examples_are_written_as_prometheus_client_writes_them():
    registry = CollectorRegistry()
    metrics = Metrics(registry, "0")
    metrics.configure(["m"])
    for seconds in (0.002, 0.2, 70.0):
        metrics.record_request("m", Backend.POOL, Outcome.OK, seconds, 0.0)
        metrics.exemplify("m", "pool", seconds, TRACE)
    body, _ = metrics.expose("application/openmetrics-text; version=1.0.0")
    assert body.count(b"# {") == 3
    assert body == generate_latest(registry)


def test_processes_that_are_seen_as_one_have_the_examples_of_all():
    parts = []
    for seconds in (0.002, 0.2):
        metrics = Metrics(CollectorRegistry(), "0")
        metrics.configure(["m"])
        metrics.record_request("m", Backend.POOL, Outcome.OK, seconds, 0.0)
        metrics.exemplify("m", "pool", seconds, f"{seconds}")
        sent = b"".join(encoded(metrics.snapshot()))
        parts.append(msgspec.json.decode(sent, type=Snapshot))
    ((_, found),) = merged(parts).histograms[REQUEST_DURATION.name]
    assert {trace_id for trace_id, _ in found.exemplars.values()} == {"0.002", "0.2"}
