"""One trace from the application through the gateway to the worker, as a collector gets it."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry import propagate, trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from tests.fakes.collector import Collector, attributes, collecting
from tests.fakes.upstreams import Answer, Gate, Received, hangs_up, ok
from tests.integration.harness import INFER, Harness

OLD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
VALUE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])")


class Application:
    """A client that is instrumented with OpenTelemetry's own SDK."""

    def __init__(self, sampler: Sampler) -> None:
        self.tracer = TracerProvider(sampler=sampler).get_tracer("application")

    async def infer(self, gateway: Harness, **headers: str) -> "trace.SpanContext":
        """One request within a span of the application's; returns that span's context."""
        with self.tracer.start_as_current_span("application") as span:
            carrier: dict[str, str] = {"tracestate": "app=1", "baggage": "user=7"}
            propagate.inject(carrier)
            reply = await gateway.infer(b"{}", **(carrier | headers))
            assert reply.status == 200
        return span.get_span_context()


@asynccontextmanager
async def traced(
    folder: Path, *, tracing: dict[str, Any] | None = None, **facts: Any
) -> AsyncIterator[tuple[Harness, Collector]]:
    async with collecting() as collector:
        config = {"tracing": {"endpoint": collector.url, **(tracing or {})}}
        async with Harness(folder, config=config, **facts) as gateway:
            yield gateway, collector


def named(spans: list[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(span.name.split(" ")[0], []).append(span)
    return found


def parents_of(received: list[Received]) -> list[tuple[str, str, str]]:
    """Trace, parent and flags of what each backend was sent."""
    found = []
    for one in received:
        match = VALUE.fullmatch(one.headers["traceparent"])
        assert match is not None, one.headers["traceparent"]
        found.append((match[1], match[2], match[3]))
    return found


def check_tree(spans: list[Span], client: "trace.SpanContext") -> None:
    """All are of the client's trace, and each is within its parent."""
    assert {span.trace_id.hex() for span in spans} == {f"{client.trace_id:032x}"}
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    roots = [span for span in spans if span.parent_span_id not in by_id]
    assert [root.parent_span_id.hex() for root in roots] == [f"{client.span_id:016x}"]
    for span in spans:
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        parent = by_id.get(span.parent_span_id)
        if parent is not None:
            assert parent.start_time_unix_nano <= span.start_time_unix_nano + 1000
            assert span.end_time_unix_nano <= parent.end_time_unix_nano + 1000


@pytest.mark.parametrize("again", [0, 1], ids=["a new head", "the shortcut"])
@pytest.mark.parametrize("where", ["pool", "serverless"])
async def test_the_application_the_gateway_and_the_worker_are_of_one_trace(tmp_path, where, again):
    app = Application(ALWAYS_ON)
    async with traced(tmp_path, warm=[ok()], function=ok()) as (gateway, collector):
        for _ in range(again):
            await gateway.infer(x_router_backend=where, traceparent=f"{OLD}-00", tracestate="a=b")
        context = await app.infer(gateway, x_router_backend=where, x_request_id="r")
        spans = await collector.of(3)
        (received,) = (gateway.warm[0] if where == "pool" else gateway.function).received[again:]
        logged = await gateway.logged("r")
    check_tree(spans, context)
    found = named(spans)
    (server,), (attempt,) = found["POST"], found["attempt"]
    flags = f"{context.trace_flags:02x}"
    assert parents_of([received]) == [(attempt.trace_id.hex(), attempt.span_id.hex(), flags)]
    assert received.headers["tracestate"] == "app=1"
    assert received.headers["baggage"] == "user=7"
    assert (server.kind, attempt.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    told = attributes(server)
    assert server.name == "POST /v2/models/{model}/infer"
    assert (told["http.response.status_code"], told["router.kept"]) == (200, "head")
    assert (told["router.backend"], told["router.request_id"]) == (where, "r")
    assert told["router.reason"] == attributes(found["decision"][0])["router.reason"]
    assert attributes(attempt)["router.endpoint"] == told["router.endpoint"]
    assert logged["trace_id"] == f"{context.trace_id:032x}"
    assert collector.resource["service.name"] == "hybrid-router"


async def test_each_attempt_has_a_span_of_its_own(tmp_path):
    app = Application(ALWAYS_ON)
    async with traced(tmp_path, warm=[hangs_up(), hangs_up()], function=ok()) as (
        gateway,
        collector,
    ):
        context = await app.infer(gateway)
        spans = await collector.until(lambda spans: len(named(spans).get("POST", ())) == 1)
        received = [one for up in gateway.warm for one in up.received] + gateway.function.received
    check_tree(spans, context)
    attempts = named(spans)["attempt"]
    # What met a connection that the replica had closed was sent again, and is the same attempt.
    assert {parent for _, parent, _ in parents_of(received)} == {a.span_id.hex() for a in attempts}
    assert len(attempts) > 2
    told = [attributes(one) for one in attempts]
    assert [one["router.attempt"] for one in told] == list(range(1, len(told) + 1))
    results = [one["router.result"] for one in told]
    assert set(results[:-1]) <= {"response_lost", "cancelled"}
    assert "response_lost" in results, results
    assert (told[-1]["router.backend"], results[-1]) == ("serverless", "ok")
    for one, span in zip(told, attempts, strict=True):
        assert one.get("error.type") == (one["router.result"] if span.status.code else None)
        assert (span.status.code == 2) == (one["router.result"] == "response_lost")


@pytest.mark.parametrize("fast", [True, False], ids=["the shortcut", "the ordinary road"])
async def test_both_attempts_of_a_hedge_are_in_the_trace(tmp_path, fast):
    app = Application(ALWAYS_OFF)
    gate = Gate()
    model, server = {"hedge": {"percentile": 50, "budget": 0.5}}, {"fast_path": fast}
    async with traced(
        tmp_path, warm=[ok(), ok()], model=model, server=server, tracing={"tail": ["hedged"]}
    ) as (gateway, collector):
        for _ in range(40):
            await gateway.infer(traceparent=f"{OLD}-00")
        gateway.warm[0].behave = gateway.warm[1].behave = first_waits(gate)
        before = [len(up.received) for up in gateway.warm]
        context = await app.infer(gateway)
        new = [one for up, n in zip(gateway.warm, before, strict=True) for one in up.received[n:]]
        gate.opened.set()
        trace_id = f"{context.trace_id:032x}"
        await collector.until(lambda spans: trace_id in {span.trace_id.hex() for span in spans})
        spans = [span for span in collector.spans if span.trace_id.hex() == trace_id]
    check_tree(spans, context)
    attempts = named(spans)["attempt"]
    assert {parent for _, parent, _ in parents_of(new)} == {a.span_id.hex() for a in attempts}
    facts = [attributes(one) for one in attempts]
    told = sorted((one["router.reason"], one["router.result"]) for one in facts)
    assert told == [("hedge", "ok"), ("only_backend", "cancelled")]


def first_waits(gate: Gate) -> Callable[[Received], Any]:
    """The first that comes waits for the gate, all others are answered."""
    came = 0

    async def behave(received: Received) -> Answer:
        nonlocal came
        came += 1
        return await (gate if came == 1 else ok())(received)

    return behave


async def test_a_cold_start_is_kept_and_has_a_span(tmp_path):
    app = Application(ALWAYS_OFF)
    async with traced(tmp_path, function=ok()) as (gateway, collector):
        gateway.function.is_cold = True
        context = await app.infer(gateway)
        spans = await collector.until(lambda spans: "cold_start" in named(spans))
    check_tree(spans, context)
    found = named(spans)
    assert found["cold_start"][0].parent_span_id == found["attempt"][0].span_id
    assert attributes(found["POST"][0])["router.kept"] == "cold"
    assert attributes(found["POST"][0])["router.cold_start"] is True


@pytest.mark.parametrize("where", ["pool", "serverless"])
async def test_what_is_slow_or_fails_is_kept_though_nobody_sampled_it(tmp_path, where):
    model = {"slo": {"latency_ms": 1}}
    async with traced(tmp_path, warm=[ok()], function=ok(), model=model) as (gateway, collector):
        for behave, kept in ((slow, "slow"), (ok(status=500), "errors")):
            gateway.warm[0].behave = gateway.function.behave = behave
            for _ in range(2):
                await gateway.infer(x_router_backend=where, traceparent=f"{OLD}-00")
            spans = await collector.until(lambda spans: len(named(spans).get("POST", ())) >= 2)
            assert {attributes(one)["router.kept"] for one in named(spans)["POST"]} == {kept}
            assert {span.parent_span_id.hex() for span in named(spans)["POST"]} == {OLD[36:]}
            collector.requests.clear()


async def slow(received: Received) -> Answer:
    await asyncio.sleep(0.02)
    return await ok()(received)


@pytest.mark.parametrize("fast", [True, False], ids=["the shortcut", "the ordinary road"])
async def test_what_nobody_asked_for_is_not_sent(tmp_path, fast):
    tracing, server = {"sample": 0, "tail": []}, {"fast_path": fast}
    async with traced(tmp_path, warm=[ok()], tracing=tracing, server=server) as (
        gateway,
        collector,
    ):
        for value in (f"{OLD}-00", "odd", ""):
            for _ in range(3):
                given = {"traceparent": value} if value else {}
                await gateway.infer(b"{}", **given, tracestate="a=b")
        heads = [one.headers for one in gateway.warm[0].received]
        await gateway.infer(traceparent=f"{OLD}-01")
        spans = await collector.of(3)
    assert {span.trace_id.hex() for span in spans} == {OLD[3:35]}
    found = parents_of(gateway.warm[0].received)[:-1]
    assert [one[0] for one in found[:3]] == [OLD[3:35]] * 3
    assert {one[2] for one in found} == {"00"}
    assert len({one[1] for one in found}) == len(found), "each attempt has an id of its own"
    # Of an unknown trace begins a new one, without the state of the old one.
    assert len({one[0] for one in found[3:]}) == 6
    assert [head.get("tracestate") for head in heads] == ["a=b"] * 3 + [None] * 6


@pytest.mark.parametrize("again", [0, 1], ids=["a new head", "the shortcut"])
async def test_of_headers_that_stand_twice_a_trace_is_none_and_a_state_is_one(tmp_path, again):
    parent, states = ("traceparent", f"{OLD}-01"), [("tracestate", "a=b"), ("tracestate", "c=d")]
    async with traced(tmp_path, warm=[ok()], tracing={"sample": 0, "tail": []}) as (gateway, _):
        for _ in range(1 + again):
            await gateway.request("POST", INFER, b"{}", [parent, parent, states[0]])
            await gateway.request("POST", INFER, b"{}", [parent, *states])
        twice, once = [one.headers for one in gateway.warm[0].received[-2:]]
    assert OLD[3:35] not in twice["traceparent"]
    assert "tracestate" not in twice
    assert OLD[3:35] in once["traceparent"]
    assert once["tracestate"] == "a=b, c=d"


async def test_a_share_of_what_begins_here_is_sampled(tmp_path):
    async with traced(tmp_path, warm=[ok()], tracing={"sample": 0.5, "tail": []}) as (
        gateway,
        collector,
    ):
        for _ in range(60):
            await gateway.infer()
        told = parents_of(gateway.warm[0].received)
        sampled = {trace_id for trace_id, _, flags in told if flags == "01"}
        await collector.until(lambda spans: {span.trace_id.hex() for span in spans} == sampled)
    assert 10 < len(sampled) < 50


@pytest.mark.parametrize("where", ["pool", "serverless"])
async def test_without_tracing_everything_goes_on_as_it_came(tmp_path, where):
    async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
        for value in (f"{OLD}-01", "odd", f"cc-{OLD[3:]}-01-more"):
            for _ in range(2):
                await gateway.infer(
                    x_router_backend=where, traceparent=value, tracestate="a=b", baggage="c=d"
                )
                heads = (
                    (gateway.warm[0] if where == "pool" else gateway.function).received[-1].headers
                )
                assert [heads[name] for name in ("traceparent", "tracestate", "baggage")] == [
                    value, "a=b", "c=d",
                ]  # fmt: skip


async def test_a_reload_turns_tracing_on_and_off(tmp_path):
    async with collecting() as collector, Harness(tmp_path, warm=[ok()]) as gateway:
        config = {
            **gateway.config,
            "tracing": {"endpoint": collector.url, "headers": {"X-Key": "s3"}},
        }
        await gateway.infer(traceparent=f"{OLD}-01")
        await gateway.write(config)
        assert (await gateway.ask("POST", "/v1/reload")).status == 200
        await gateway.infer(traceparent=f"{OLD}-01")
        await collector.of(3)
        shown = (await gateway.ask("GET", "/v1/config")).json()["tracing"]
        assert shown["headers"] == {"X-Key": "***"}
        await gateway.write(gateway.config)
        assert (await gateway.ask("POST", "/v1/reload")).status == 200
        await gateway.infer(traceparent=f"{OLD}-01")
        assert [one.headers["traceparent"] == f"{OLD}-01" for one in gateway.warm[0].received] == [
            True, False, True,
        ]  # fmt: skip
        await collector.of(3)
    assert collector.headers[0]["x-key"] == "s3"


async def hangs() -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_collector_that_hangs_changes_nothing(tmp_path):
    async with traced(tmp_path, warm=[ok()], tracing={"timeout": "60s"}) as (gateway, collector):
        collector.answer = hangs
        await gateway.infer(traceparent=f"{OLD}-01")
        await gateway.until(lambda: collector.asked == 1)
        for _ in range(20):
            assert (await gateway.infer(traceparent=f"{OLD}-01")).status == 200
        began = asyncio.get_running_loop().time()
        await gateway.stop()
        assert asyncio.get_running_loop().time() - began < 8, (
            "nor does it keep the gateway from ending"
        )


async def test_a_call_of_a_language_model_has_the_names_of_the_conventions_for_them(tmp_path):
    usage = b'{"usage": {"prompt_tokens": 7, "completion_tokens": 30}}'
    async with traced(tmp_path, warm=[ok(usage)]) as (gateway, collector):
        for _ in range(2):
            reply = await gateway.request(
                "POST", "/v1/chat/completions", b'{"model": "m", "messages": []}',
                [("content-type", "application/json"), ("traceparent", f"{OLD}-01")],
            )  # fmt: skip
            assert reply.status == 200
        spans = await collector.of(6)
    for attempt in named(spans)["chat"]:
        assert (attempt.name, attempt.kind) == ("chat m", Span.SPAN_KIND_CLIENT)
        told = attributes(attempt)
        assert {name: told[name] for name in told if name.startswith("gen_ai.")} == {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "gen_ai.usage.input_tokens": 7,
            "gen_ai.usage.output_tokens": 30,
        }
    assert {one.name for one in named(spans)["POST"]} == {"POST /v1/chat/completions"}


async def test_a_call_that_is_answered_later_goes_on_with_the_trace_it_came_with(tmp_path):
    async with collecting() as collector:
        config = {"tracing": {"endpoint": collector.url}, "jobs": {"directory": "jobs"}}
        async with Harness(tmp_path, warm=[ok()], config=config) as gateway:
            reply = await gateway.infer(prefer="respond-async", traceparent=f"{OLD}-01")
            assert reply.status == 202
            spans = await collector.until(lambda spans: "attempt" in named(spans))
            (received,) = gateway.warm[0].received
    (attempt,), (server,) = named(spans)["attempt"], named(spans)["POST"]
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (OLD[3:35], OLD[36:])
    assert received.headers["traceparent"] == f"{OLD[:36]}{attempt.span_id.hex()}-01"


async def test_the_latency_of_a_kept_trace_is_an_example_where_openmetrics_is_asked_for(tmp_path):
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    async with traced(tmp_path, warm=[ok()]) as (gateway, collector):
        await gateway.infer(traceparent=f"{OLD}-00")
        await gateway.infer(traceparent=f"{OLD}-01")
        await collector.of(3)
        text = (await gateway.ask("GET", "/metrics", headers=accept)).body.decode()
        plain = (await gateway.ask("GET", "/metrics")).body.decode()
    examples = [line for line in text.splitlines() if "# {" in line]
    assert len(examples) == 1
    assert examples[0].startswith("router_request_duration_seconds_bucket{")
    assert f'# {{trace_id="{OLD[3:35]}"}}' in examples[0]
    assert OLD[3:35] not in plain
    assert 'router_spans_total{result="sent"} 3.0' in plain
