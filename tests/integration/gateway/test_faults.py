"""Upstreams that fail, clients that leave, deadlines and queues: seen through real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from tests.fakes.scripted_server import read_request, scripted_server, send, until_peer_closes
from tests.fakes.upstreams import Answer, Gate, Hangup, Received, hangs_up, ok
from tests.integration.harness import INFER, Harness


def post(body=b"{}", *headers) -> Any:
    lines = [f"POST {INFER} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class TestFailover:
    async def test_another_replica_takes_over(self, tmp_path):
        async with Harness(tmp_path, warm=[hangs_up(), hangs_up()]) as gateway:
            gateway.warm[1].behave = ok()
            replies = [await gateway.infer() for _ in range(6)]
        assert {reply.status for reply in replies} == {200}
        assert gateway.warm[0].received, "the broken one was tried"

    async def test_who_was_set_aside_is_tried_by_the_first_request_after_its_pause(self, tmp_path):
        """Its connections are gone, so that the fast path cannot: it must not use up the turn."""
        health = {"interval": "30s", "ejection": {"pause": "100ms"}}
        async with Harness(tmp_path, warm=[ok(), ok()], pool={"health": health}) as gateway:
            gateway.warm[0].behave = hangs_up()
            await gateway.until(lambda: gateway.pool.ready == 2)
            while not gateway.pool.ejections:
                assert (await gateway.infer()).status == 200
            gateway.warm[0].behave = ok()
            (endpoint,) = (e for e in gateway.pool.endpoints.values() if not e.circuit.is_closed)
            await gateway.until(lambda: gateway.pool.ready == 2)
            gateway.gateway._parts.upstream.abort(endpoint.address)
            for _ in range(20):
                await gateway.infer()
            assert endpoint.circuit.is_closed

    async def test_retries_are_as_many_as_the_budget_says(self, tmp_path):
        none, share = {"budget": 0, "floor_per_s": 0}, {"budget": 1}
        model = {"retries": none}
        async with Harness(tmp_path, warm=[hangs_up()], function=ok(), model=model) as gateway:
            refused = await gateway.infer(x_router_backend="pool")
            await gateway.write(gateway.changed(retries=share))
            assert (await gateway.ask("POST", "/v1/reload")).status == 200
            served = await gateway.infer(x_router_backend="pool")
            metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert (refused.status, refused.headers["x-router-attempts"]) == (502, "1")
        assert (served.status, served.headers["x-router-attempts"]) == (200, "2")
        assert "router_retry_budget_exhausted_total 1.0" in metrics

    async def test_the_function_takes_over(self, tmp_path):
        async with Harness(tmp_path, warm=[hangs_up()], function=ok()) as gateway:
            reply = await gateway.infer(x_request_id="r")
            line = await gateway.logged("r")
        assert reply.status == 200
        assert reply.decision == ("serverless", "fallback")
        assert reply.headers["x-router-attempts"] == "2"
        assert (line["attempts"], line["outcome"]) == (2, "ok")

    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_busy_replica_spills_over(self, tmp_path, status):
        async with Harness(tmp_path, warm=[ok(status=status)], function=ok()) as gateway:
            reply = await gateway.infer()
        assert (reply.status, reply.decision) == (200, ("serverless", "spillover"))

    async def test_a_throttled_function_spills_over(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
            gateway.function.refuse = 429
            reply = await gateway.infer(x_router_backend="serverless")
        assert (reply.status, reply.decision) == (200, ("pool", "spillover"))

    async def test_a_throttled_function_without_a_pool_is_our_lack_of_capacity(self, tmp_path):
        async with Harness(tmp_path, function=ok(), model={"attempts": 1}) as gateway:
            gateway.function.refuse = 429
            reply = await gateway.infer(x_request_id="r")
            line = await gateway.logged("r")
        assert (reply.status, reply.headers["retry-after"]) == (503, "7")
        assert line["outcome"] == "shed"

    async def test_an_event_that_proves_too_large_goes_to_the_pool(self, tmp_path):
        """Quotes double when they are escaped: the head could not tell."""
        limits = {"limits": {"max_payload": "10KiB"}}
        async with Harness(tmp_path, warm=[ok()], function=ok(), serverless=limits) as gateway:
            reply = await gateway.infer(b'"' * 7500, x_router_backend="serverless")
            alone = gateway.changed()
            del alone["models"][0]["pool"]
            await gateway.write(alone)
            assert (await gateway.ask("POST", "/v1/reload")).status == 200
            refused = await gateway.infer(b'"' * 7500)
        assert (reply.status, reply.decision) == (200, ("pool", "limit_payload"))
        assert refused.status == 413
        assert "10240" in refused.json()["error"]

    async def test_all_attempts_failed(self, tmp_path):
        async with Harness(tmp_path, warm=[hangs_up()], model={"attempts": 2}) as gateway:
            reply = await gateway.infer()
        assert (reply.status, reply.headers["x-router-attempts"]) == (502, "2")
        assert gateway.warm[0].url.removeprefix("http://") not in reply.json()["error"]

    async def test_what_must_not_run_twice_is_sent_once(self, tmp_path):
        model = {"idempotent": False}
        async with Harness(tmp_path, warm=[hangs_up()], function=ok(), model=model) as gateway:
            reply = await gateway.infer()
            asked = await gateway.request("GET", "/v2/models/m/config")
        assert reply.status == 502
        assert len(gateway.warm[0].received) == 2, "one inference, one question"
        assert asked.status == 200, "asking twice does no harm"

    async def test_an_ejected_replica_gets_nothing_until_it_recovers(self, tmp_path):
        async with Harness(tmp_path, warm=[hangs_up()], function=ok()) as gateway:
            for _ in range(3):
                await gateway.infer()
            (endpoint,) = (await gateway.status())["endpoints"]
            seen = len(gateway.warm[0].received)
            reply = await gateway.infer()
            gateway.warm[0].behave = ok()
            await gateway.until(lambda: gateway.pool.ready == 1)
            recovered = await gateway.infer()
        assert endpoint["state"] == "ejected"
        assert reply.decision == ("serverless", "no_endpoint")
        assert len(gateway.warm[0].received) == seen + 1
        assert recovered.decision == ("pool", "warm_capacity")


class TestNothingIsRepeatedAfterTheFirstByte:
    async def test_a_stream_that_breaks_breaks_towards_the_client(self, tmp_path):
        breaks = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000  # more than is collected before it becomes a stream
            await breaks.wait()
            raise Hangup

        async def behave(_) -> Any:
            return Answer(200, headers=(), chunks=chunks)

        async with Harness(tmp_path, warm=[behave], function=ok()) as gateway:
            reader, writer = await gateway.connect()
            writer.write(post(b"{}", "x-request-id: r"))
            head = await reader.readuntil(b"\r\n\r\n")
            breaks.set()
            rest = b""
            with suppress(ConnectionResetError):
                while chunk := await reader.read(1 << 20):
                    rest += chunk
            writer.transport.abort()
            assert not rest.endswith(b"0\r\n\r\n"), "a cut answer must not look complete"
            line = await gateway.logged("r")
            assert head.startswith(b"HTTP/1.1 200")
            assert gateway.function.received == []
            assert (line["attempts"], line["outcome"]) == (1, "upstream_failed")
            assert gateway.pool.in_flight == 0


class TestDeadlines:
    async def test_a_slow_backend_is_given_up_at_the_deadline(self, tmp_path):
        gate = Gate()
        async with Harness(tmp_path, warm=[gate], function=ok()) as gateway:
            started = time.monotonic()
            reply = await gateway.infer(x_router_deadline_ms="100", x_router_backend="pool")
            took_s = time.monotonic() - started
            await gateway.until(lambda: gate.cancelled == 1)
            assert gateway.pool.in_flight == 0
        assert reply.status == 504
        assert "deadline" in reply.json()["error"]
        assert took_s < 0.6
        assert gateway.function.received == [], "no time was left for another attempt"

    async def test_a_deadline_ends_the_wait_in_a_queue(self, tmp_path):
        gate = Gate()
        async with Harness(tmp_path, warm=[gate], pool={"concurrency": 1}) as gateway:
            first = asyncio.create_task(gateway.infer())
            await gateway.until(lambda: gate.waiting == 1)
            reply = await gateway.infer(x_router_deadline_ms="50")
            assert len(gateway.pool.queue) == 0
            gate.opened.set()
            assert (await first).status == 200
        assert reply.status == 504
        assert len(gateway.warm[0].received) == 1

    async def test_a_backend_that_never_answers_is_given_up_at_its_own_limit(self, tmp_path):
        pool = {"timeouts": {"response": "100ms"}}
        async with Harness(tmp_path, warm=[Gate()], pool=pool, model={"attempts": 1}) as gateway:
            reply = await gateway.infer()
        assert reply.status == 504


class TestClientsThatLeave:
    async def test_while_the_upstream_works_its_work_is_cancelled(self, tmp_path):
        gate = Gate()
        async with Harness(tmp_path, warm=[gate]) as gateway:
            _, writer = await gateway.connect()
            writer.write(post(b"{}", "x-request-id: left"))
            await gateway.until(lambda: gate.waiting == 1)
            writer.transport.abort()
            await gateway.until(lambda: gate.cancelled == 1)
            await gateway.until(lambda: gateway.pool.in_flight == 0)
            line = await gateway.logged("left")
            (endpoint,) = (await gateway.status())["endpoints"]
        assert (line["status"], line["outcome"]) == (499, "client_closed")
        assert endpoint["state"] == "ready", "the replica is not to blame"

    async def test_while_queued_their_place_goes_to_the_next(self, tmp_path):
        gate = Gate()
        pool = {"concurrency": 1, "queue": {"max_requests": 1}}
        async with Harness(tmp_path, warm=[gate], pool=pool) as gateway:
            first = asyncio.create_task(gateway.infer())
            await gateway.until(lambda: gate.waiting == 1)
            _, writer = await gateway.connect()
            writer.write(post(b"gone"))
            await gateway.until(lambda: len(gateway.pool.queue) == 1)
            writer.transport.abort()
            await gateway.until(lambda: len(gateway.pool.queue) == 0)
            third = asyncio.create_task(gateway.infer(b"third"))
            await gateway.until(lambda: len(gateway.pool.queue) == 1)
            gate.opened.set()
            assert [(await first).status, (await third).status] == [200, 200]
        assert [received.body for received in gateway.warm[0].received] == [b"{}", b"third"]

    async def test_during_a_stream_the_upstream_is_closed(self, tmp_path):
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n"
        ready = [read_request(), send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")] * 50
        async with (
            scripted_server(ready, [read_request(), send(head), until_peer_closes()]) as upstream,
            Harness(tmp_path, warm=[ok()]) as gateway,
        ):
            changed = gateway.changed(pool={"urls": [upstream.url], "health": {"interval": "60s"}})
            await gateway.write(changed)
            await gateway.ask("POST", "/v1/reload")
            await gateway.until(lambda: gateway.pool.ready == 1)
            # The probe's connection is idle and is used again: make the next call open its own.
            gateway.gateway._parts.upstream.abort(
                next(iter(gateway.pool.endpoints.values())).address
            )
            reader, writer = await gateway.connect()
            writer.write(post())
            await reader.readuntil(b"data: 1\n\n")
            assert gateway.pool.in_flight == 1
            writer.transport.abort()
            streaming = await upstream.connection(1)
            async with asyncio.timeout(5):
                await streaming.closed_by_peer.wait()
            await gateway.until(lambda: gateway.pool.in_flight == 0)


class TestQueues:
    async def test_a_full_queue_is_told_as_such(self, tmp_path):
        gate = Gate()
        pool = {"concurrency": 1, "queue": {"max_requests": 1}}
        async with Harness(tmp_path, warm=[gate], pool=pool) as gateway:
            held = [asyncio.create_task(gateway.infer()) for _ in range(2)]
            await gateway.until(lambda: len(gateway.pool.queue) == 1)
            reply = await gateway.infer(x_request_id="shed")
            line = await gateway.logged("shed")
            gate.opened.set()
            assert [(await task).status for task in held] == [200, 200]
        assert reply.status == 503
        assert "queue is full (1 requests wait)" in reply.json()["error"]
        assert int(reply.headers["retry-after"]) >= 1
        assert line["outcome"] == "shed"
        assert len(gateway.warm[0].received) == 2

    async def test_a_full_pool_spills_to_the_function(self, tmp_path):
        gate = Gate()
        pool = {"concurrency": 1, "queue": {"max_requests": 0}}
        async with Harness(tmp_path, warm=[gate], function=ok(), pool=pool) as gateway:
            first = asyncio.create_task(gateway.infer())
            await gateway.until(lambda: gate.waiting == 1)
            reply = await gateway.infer()
            gate.opened.set()
            await first
        assert reply.decision == ("serverless", "spillover")

    async def test_nobody_healthy_holds_and_then_says_so(self, tmp_path):
        pool = {"queue": {"max_wait": "100ms"}}
        async with Harness(tmp_path, warm=[ok()], pool=pool) as gateway:
            gateway.warm[0].is_ready = False
            await gateway.until(lambda: gateway.pool.ready == 0)
            started = time.monotonic()
            reply = await gateway.infer()
            held_s = time.monotonic() - started
        assert reply.status == 503
        assert "no healthy replica" in reply.json()["error"]
        assert "retry-after" in reply.headers
        assert reply.decision == ("pool", "no_endpoint")
        assert held_s >= 0.1

    async def test_a_held_request_is_served_once_a_replica_returns(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            gateway.warm[0].is_ready = False
            await gateway.until(lambda: gateway.pool.ready == 0)
            held = asyncio.create_task(gateway.infer())
            await gateway.until(lambda: len(gateway.pool.queue) == 1)
            gateway.warm[0].is_ready = True
            assert (await held).status == 200


class TestHints:
    @pytest.mark.parametrize("backend", ["pool", "serverless"])
    async def test_allowed_hints_are_followed(self, tmp_path, backend):
        async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
            reply = await gateway.infer(x_router_backend=backend)
        assert reply.decision == (backend, "hint")

    async def test_denied_hints_are_ignored(self, tmp_path):
        server = {"backend_hint": "deny"}
        async with Harness(tmp_path, warm=[ok()], function=ok(), server=server) as gateway:
            reply = await gateway.infer(x_router_backend="serverless")
        assert reply.decision == ("pool", "warm_capacity")


class TestParameters:
    BODY = b'{"inputs": [], "parameters": {"timeout": 50000, "sequence_id": 7}}'

    async def test_the_timeout_in_a_body_is_a_deadline_where_it_is_read(self, tmp_path):
        model = {"read_parameters": True}
        async with Harness(tmp_path, warm=[Gate()], model=model) as gateway:
            reply = await gateway.infer(self.BODY, x_request_id="r")
            line = await gateway.logged("r")
        assert reply.status == 504
        assert line["deadline_ms"] == pytest.approx(50.0)

    async def test_it_is_the_models_own_business_otherwise(self, tmp_path):
        async def slow(_) -> Any:
            await asyncio.sleep(0.1)  # longer than the timeout that must not count
            return Answer()

        async with Harness(tmp_path, warm=[slow]) as gateway:
            reply = await gateway.infer(self.BODY)
        assert reply.status == 200

    async def test_a_sequence_stays_on_its_replica(self, tmp_path):
        model = {"read_parameters": True}
        async with Harness(tmp_path, warm=[ok(), ok(), ok()], model=model) as gateway:
            owners = {
                (await gateway.infer(b'{"parameters": {"sequence_id": 9}}')).headers[
                    "x-router-endpoint"
                ]
                for _ in range(8)
            }
        assert len(owners) == 1


@pytest.mark.alone  # a connection that breaks is no attempt within a round trip only
@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
async def test_a_connection_that_the_replica_has_closed_is_no_attempt(tmp_path, fast_path):
    calls = 0

    async def every_second_is_lost(_: Received) -> Answer:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            raise Hangup
        return Answer()

    server = {"fast_path": fast_path}
    async with Harness(tmp_path, [every_second_is_lost], server=server) as gateway:
        for number in range(1, 8):
            reply = await gateway.infer()
            assert (reply.status, reply.headers["x-router-attempts"]) == (200, "1")
            assert calls == 2 * number - 1, "each but the first was sent again"
        document = await gateway.status()
        assert [endpoint["state"] for endpoint in document["endpoints"]] == ["ready"]


async def test_a_replica_that_is_back_serves_what_waits_for_a_throttled_function(tmp_path):
    """Ten requests fail at the replica while the function has asked for a long pause."""
    pool = {"concurrency": 16}
    async with Harness(tmp_path, warm=[ok()], function=ok(), pool=pool) as gateway:
        gateway.function.refuse = 429
        assert (await gateway.infer(x_router_backend="serverless")).status == 200
        assert gateway.runtime_function.circuit.is_open(time.monotonic())
        failing = 10

        async def breaks_first(_: Received) -> Answer:
            nonlocal failing
            failing -= 1
            if failing >= 0:
                raise Hangup
            return Answer()

        gateway.warm[0].behave = breaks_first
        began = time.monotonic()
        replies = await asyncio.gather(*(gateway.infer() for _ in range(10)))
        took_s = time.monotonic() - began
    assert {(reply.status, reply.headers["x-router-backend"]) for reply in replies} == {
        (200, "pool")
    }
    assert took_s < 6.0, "the function's pause is seven seconds"
