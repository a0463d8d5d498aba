"""Copies go to a shadow, and whatever becomes of them, the client does not notice."""

import asyncio
import json
from contextlib import asynccontextmanager
from copy import deepcopy

import pytest

from tests.fakes.upstreams import Answer, Gate, Hangup, Upstream, hangs_up, ok, running
from tests.integration.gateway.test_lifecycle import reload
from tests.integration.harness import INFER, Harness


def outputs(*values: float) -> bytes:
    tensor = {"name": "y", "shape": [len(values)], "datatype": "FP32", "data": list(values)}
    return json.dumps({"model_name": "m", "outputs": [tensor]}).encode()


def with_shadow(gateway, upstream, **shadow):
    config = deepcopy(gateway.config)
    pool = {**config["models"][0].get("pool", {}), "kind": "static", "urls": [upstream.url]}
    config["models"].append(
        {"name": "s", "served_as": "m", "slo": {"latency_ms": 5000}, "pool": pool}
    )
    shadow = {"model": "s", "compare": {"sample": 1}, **shadow}
    config["rules"] = [
        {"name": "shadowed", "match": {"model": "m"}, "route": "auto", "shadow": shadow},
        {"name": "default", "match": {}, "route": "auto"},
    ]
    return config


@asynccontextmanager
async def shadowed(tmp_path, stable, behave, server=None, **shadow):
    """A gateway whose model `m` is shadowed by `s`, and what `s` runs on."""
    async with (
        running(Upstream(behave)) as upstream,
        Harness(tmp_path, warm=[stable], server=server or {}) as gateway,
    ):
        reply = await reload(gateway, with_shadow(gateway, upstream, **shadow))
        assert reply.status == 200, reply.body
        pool = gateway.gateway._runtime.current.models["s"].pool
        assert pool is not None
        await gateway.until(lambda: pool.ready == 1)
        yield gateway, upstream


async def shadow_of(gateway):
    found = (await gateway.ask("GET", "/v1/status")).json()["shadows"]
    return found[0] if found else None


async def settled(gateway, copies):
    """The shadow's status once so many copies have ended."""
    counts = gateway.gateway._data.shadows.counts
    await gateway.until(lambda: "s" in counts and sum(counts["s"].copies.values()) >= copies)
    await gateway.until(lambda: counts["s"].in_flight == 0)
    found = await shadow_of(gateway)
    assert found["bytes_kept"] == 0
    return found


@pytest.mark.parametrize("fast", [True, False], ids=["fast path on", "fast path off"])
async def test_a_copy_is_sent_and_its_answer_compared(tmp_path, fast):
    server = {"fast_path": fast}
    async with shadowed(tmp_path, ok(outputs(1, 2)), ok(outputs(1, 2.0001)), server) as (
        gateway,
        upstream,
    ):
        for number in range(3):
            reply = await gateway.infer(b'{"n":%d}' % number, x_tenant="t")
            assert reply.body == outputs(1, 2)
        found = await settled(gateway, 3)
        assert found["copies"]["ok"] == 3
        assert found["comparisons"] == {"match": 3, "mismatch": 0, "skipped": 0}
        assert found["max_difference"] == pytest.approx(0.0001, rel=1e-2)  # of FP32
        assert sorted(got.body for got in upstream.received) == [
            b'{"n":0}',
            b'{"n":1}',
            b'{"n":2}',
        ]
        facts = {(got.target, got.headers["x-tenant"]) for got in upstream.received}
        assert facts == {(INFER, "t")}
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert 'router_shadow_copies_total{model="s",result="ok"} 3.0' in metrics
        assert 'router_shadow_comparisons_total{model="s",result="match"} 3.0' in metrics
        assert 'router_shadow_duration_seconds_count{model="s"} 3.0' in metrics
        assert 'router_requests_total{backend="pool",model="s"' not in metrics


async def test_a_mismatch_is_counted_and_told(tmp_path):
    async with shadowed(tmp_path, ok(outputs(1, 2)), ok(outputs(1, 5))) as (gateway, _):
        await gateway.infer(x_request_id="mine")
        found = await settled(gateway, 1)
        assert found["comparisons"]["mismatch"] == 1
        assert found["max_difference"] == 3
        assert found["last_mismatch"] == ("mine: output 'y': 1 of 2 numbers differ, by up to 3")


async def test_large_answers_are_compared_off_the_loop(tmp_path):
    values = [float(n) for n in range(20_000)]
    async with shadowed(tmp_path, ok(outputs(*values)), ok(outputs(*values[:-1], 0.0))) as (
        gateway,
        _,
    ):
        reply = await gateway.infer()
        assert reply.body == outputs(*values)
        found = await settled(gateway, 1)
        assert (found["comparisons"]["mismatch"], found["max_difference"]) == (1, 19_999)


@pytest.mark.parametrize(
    ("behave", "settings", "result"),
    [
        (ok(status=500), {}, "failed"),
        (hangs_up(), {}, "failed"),
        (Gate(), {"timeout": "50ms"}, "timeout"),
        (ok(status=400), {}, "ok"),
    ],
    ids=["answers 500", "hangs up", "hangs", "refuses"],
)
async def test_a_bad_shadow_is_not_noticed(tmp_path, behave, settings, result):
    async with shadowed(tmp_path, ok(outputs(1)), behave, **settings) as (gateway, _):
        reply = await gateway.infer()
        assert (reply.status, reply.body) == (200, outputs(1))
        assert reply.headers["x-router-attempts"] == "1"
        found = await settled(gateway, 1)
        assert found["copies"][result] == 1
        assert found["comparisons"]["match"] == 0


async def test_copies_are_dropped_while_too_many_are_under_way(tmp_path):
    gate = Gate()
    async with shadowed(tmp_path, ok(outputs(1)), gate, max_in_flight=2) as (gateway, _):
        replies = [await gateway.infer() for _ in range(5)]
        assert {r.status for r in replies} == {200}
        await gateway.until(lambda: gate.waiting == 2)
        found = await shadow_of(gateway)
        assert (found["in_flight"], found["copies"]["busy"]) == (2, 3)
        gate.opened.set()
        assert (await settled(gateway, 5))["copies"]["ok"] == 2


async def test_bytes_kept_are_bounded(tmp_path):
    gate = Gate()
    async with shadowed(
        tmp_path, ok(outputs(1)), gate, max_bytes="100KiB", compare={"sample": 0}
    ) as (gateway, _):
        for size in (40_000, 40_000, 40_000, 200_000):
            assert (await gateway.infer(bytes(size))).status == 200
        found = await shadow_of(gateway)
        assert (found["in_flight"], found["bytes_kept"]) == (2, 80_000)
        assert (found["copies"]["busy"], found["copies"]["too_large"]) == (1, 1)
        gate.opened.set()
        await settled(gateway, 4)


async def test_a_long_body_is_copied_as_it_passes(tmp_path):
    body = bytes(range(256)) * 4096  # 1 MiB: passed on as it comes
    async with shadowed(tmp_path, ok(outputs(1)), ok(outputs(1))) as (gateway, upstream):
        await gateway.infer(body)
        assert (await settled(gateway, 1))["comparisons"]["match"] == 1
        assert upstream.received[0].body == body == gateway.warm[0].received[0].body


async def test_a_streamed_answer_is_compared_as_it_passes(tmp_path):
    async def parts():
        for _ in range(4):
            yield bytes(50_000)

    async def streams(_):
        return Answer(chunks=parts)

    async with shadowed(tmp_path, streams, streams) as (gateway, _):
        assert (await gateway.infer()).body == bytes(200_000)
        assert (await settled(gateway, 1))["comparisons"]["match"] == 1


async def test_an_answer_without_room_is_not_compared(tmp_path):
    large = outputs(*range(5000))
    async with shadowed(tmp_path, ok(large), ok(large), max_bytes="10KiB") as (gateway, _):
        assert (await gateway.infer()).body == large
        found = await settled(gateway, 1)
        assert found["copies"]["ok"] == 1
        assert found["comparisons"] == {"match": 0, "mismatch": 0, "skipped": 1}


async def test_a_failed_request_has_no_copy(tmp_path):
    async with shadowed(tmp_path, hangs_up(), ok(outputs(1))) as (gateway, upstream):
        assert (await gateway.infer()).status == 502
        found = await shadow_of(gateway)
        assert (found["in_flight"], found["bytes_kept"]) == (0, 0)
        assert upstream.received == []


async def test_a_client_that_leaves_leaves_no_copy(tmp_path):
    gate = Gate()
    async with shadowed(tmp_path, gate, ok(outputs(1))) as (gateway, upstream):
        leaving = asyncio.create_task(gateway.infer())
        await gateway.until(lambda: gate.waiting == 1)
        leaving.cancel()
        await gateway.until(lambda: gateway.in_flight == 0)
        found = await shadow_of(gateway)
        assert (found["in_flight"], found["bytes_kept"], upstream.received) == (0, 0, [])


async def test_only_a_share_is_copied(tmp_path):
    async with shadowed(tmp_path, ok(outputs(1)), ok(outputs(1)), share=50, max_in_flight=100) as (
        gateway,
        upstream,
    ):
        for number in range(60):
            await gateway.infer(x_request_id=f"r-{number}")
        await gateway.until(lambda: gateway.gateway._data.shadows.counts["s"].in_flight == 0)
        assert 15 < len(upstream.received) < 45


async def test_the_gateway_ends_with_copies_under_way(tmp_path):
    gate = Gate()
    async with shadowed(tmp_path, ok(outputs(1)), gate, timeout="1m") as (gateway, _):
        await gateway.infer()
        await gateway.until(lambda: gate.waiting == 1)
        await gateway.stop()
        await gateway.until(lambda: gate.cancelled == 1)
        counts = gateway.gateway._data.shadows.counts["s"]
        assert (counts.in_flight, counts.bytes.held) == (0, 0)


async def test_a_stream_that_never_ends_has_a_deadline(tmp_path):
    async def drips():
        yield bytes(1 << 20)  # more than is collected before it is passed on
        while True:
            yield bytes(100)
            await asyncio.sleep(0.01)

    async def streams(_):
        return Answer(chunks=drips)

    async with shadowed(tmp_path, ok(outputs(1)), streams, timeout="100ms") as (gateway, _):
        assert (await gateway.infer()).status == 200
        assert (await settled(gateway, 1))["copies"]["timeout"] == 1


async def test_a_stream_that_breaks_at_the_shadow_is_a_failure(tmp_path):
    async def breaks():
        yield bytes(100_000)
        raise Hangup

    async def streams(_):
        return Answer(chunks=breaks)

    async with shadowed(tmp_path, ok(outputs(1)), streams) as (gateway, _):
        assert (await gateway.infer()).status == 200
        found = await settled(gateway, 1)
        assert found["copies"]["failed"] == 1


async def test_a_shadow_that_goes_while_a_body_comes_is_not_missed(tmp_path):
    async with shadowed(tmp_path, ok(outputs(1)), ok(outputs(1)), timeout="200ms") as (gateway, _):
        reader, writer = await gateway.connect()
        head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n{{ "
        writer.write(head.encode())
        await gateway.until(lambda: gateway.in_flight == 1)
        assert (await reload(gateway, gateway.config)).status == 200
        writer.write(b" }")
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        counts = gateway.gateway._data.shadows.counts
        await gateway.until(lambda: not any(found.in_flight for found in counts.values()))
        assert await shadow_of(gateway) is None  # it is no longer configured
