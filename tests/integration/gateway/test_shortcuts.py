"""Which requests need no task and none of aiohttp's request handling, and that they still do.

A head that is like one before it is enough: each request has ids, lengths and headers of its own.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.domain.decision import Backend
from router.quality.tap import Tap
from tests.fakes.upstreams import Gate, hangs_up, ok
from tests.integration.gateway.test_canary import runtime, two_models
from tests.integration.gateway.test_quality import (
    counts,
    label,
    outputs,
    question,
    sampled,
    watched,
)
from tests.integration.gateway.test_shadow import settled, shadowed
from tests.integration.harness import Harness

REQUESTS = 20
_NAMES = {Backend.POOL: "pool", Backend.SERVERLESS: "function"}


class Roads:
    """Counts how requests are handled from now on."""

    def __init__(self, gateway: Harness, patch: pytest.MonkeyPatch) -> None:
        self.taken: Counter[str] = Counter()
        data = gateway.gateway._data
        fast: Any = data.fast_path
        for name in ("serve", "direct"):
            patch.setattr(data, name, self._counted(name, getattr(data, name)))
        patch.setattr(fast, "begin", self._begun(fast.begin))

    def _counted(self, name: str, handle: Any) -> Any:
        def count(*facts: Any) -> Any:
            self.taken[name] += 1
            return handle(*facts)

        return count

    def _begun(self, begin: Any) -> Any:
        def count(*facts: Any) -> Any:
            attempt = begin(*facts)
            if attempt is not None:
                self.taken[_NAMES[attempt.backend]] += 1
            return attempt

        return count


async def send(gateway: Harness, **headers: str) -> list[Any]:
    """As instrumented clients do: nothing repeats but what the request is about."""
    return [
        await gateway.infer(
            json.dumps({"id": "x" * number}).encode(),
            traceparent=f"00-{number:032x}-{number:016x}-01", x_request_id=f"r-{number}",
            **{f"x_own_{number}": "y" * number}, **headers,
        )
        for number in range(REQUESTS)
    ]  # fmt: skip


@asynccontextmanager
async def with_key(tmp_path: Path, **facts: object) -> AsyncIterator[Harness]:
    entry = {"name": "k", "sha256": hashlib.sha256(b"key").hexdigest(), "tenant": "t", **facts}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump([entry]))
    config = {"auth": {"api_keys_file": "keys.yaml"}}
    async with Harness(tmp_path, warm=[ok()], config=config) as gateway:
        yield gateway


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_router_deadline_ms": "4000"},
        {"accept_encoding": "gzip", "cookie": "a=b"},
    ],
    ids=["own heads", "deadline", "more headers"],
)
async def test_a_warm_request_takes_the_shortcut(tmp_path, monkeypatch, headers):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        await gateway.infer(**headers)
        roads = Roads(gateway, monkeypatch)
        replies = await send(gateway, **headers)
        heads = [received.headers for received in gateway.warm[0].received[-REQUESTS:]]
    assert {reply.status for reply in replies} == {200}
    assert [reply.headers["x-request-id"] for reply in replies] == [
        f"r-{n}" for n in range(REQUESTS)
    ]
    assert roads.taken == {"pool": REQUESTS}
    for number, head in enumerate(heads):
        assert head["traceparent"] == f"00-{number:032x}-{number:016x}-01"
        assert head[f"x-own-{number}"] == "y" * number
        assert f"x-own-{number - 1}" not in head, "what another request had is not passed on"


async def test_so_does_one_whose_key_has_a_rate_until_that_is_used_up(tmp_path, monkeypatch):
    async with with_key(tmp_path, rate_per_s=0.001, burst=11) as gateway:
        await gateway.infer(x_api_key="key")
        roads = Roads(gateway, monkeypatch)
        replies = await send(gateway, x_api_key="key")
    assert [reply.status for reply in replies] == [200] * 10 + [429] * (REQUESTS - 10)
    assert roads.taken == {"pool": 10, "direct": REQUESTS - 10}


async def test_so_do_both_sides_of_a_canary(tmp_path, monkeypatch):
    async with two_models(tmp_path) as (gateway, _):
        await gateway.infer()
        roads = Roads(gateway, monkeypatch)
        replies = await send(gateway)
    assert {reply.headers["x-router-model"] for reply in replies} == {"m", "m-next"}
    assert roads.taken == {"pool": REQUESTS}


async def test_so_does_a_call_of_a_function_once_a_connection_is_open(tmp_path, monkeypatch):
    async with Harness(tmp_path, function=ok()) as gateway:
        await gateway.infer()
        roads = Roads(gateway, monkeypatch)
        replies = await send(gateway)
        heads = [received.headers for received in gateway.function.received[-REQUESTS:]]
        status = (await gateway.ask("GET", "/v1/status")).json()
    assert {(reply.status, *reply.decision) for reply in replies} == {
        (200, "serverless", "only_backend")
    }
    assert roads.taken == {"function": REQUESTS}
    assert [head["x-request-id"] for head in heads] == [f"r-{n}" for n in range(REQUESTS)]
    assert status["models"][0]["cost_usd"]["serverless"] > 0


async def test_so_do_many_clients_that_come_at_once(tmp_path, monkeypatch):
    """Each needs a connection of its own to the replica, and waits for no more than that."""
    async with Harness(tmp_path, warm=[ok()], pool={"concurrency": 64}) as gateway:
        await gateway.infer()
        roads = Roads(gateway, monkeypatch)
        await asyncio.gather(*(gateway.infer(x_request_id=f"r-{n}") for n in range(30)))
    assert roads.taken == {"pool": 30}


async def test_a_client_that_goes_away_ends_the_call(tmp_path):
    gate = Gate()
    async with Harness(tmp_path, function=ok()) as gateway:
        await gateway.infer()
        gateway.function.behave = gate
        reader, writer = await gateway.connect()
        head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nx-request-id: gone\r\n"
        writer.write(head + b"content-length: 2\r\n\r\n{}")
        await gateway.until(lambda: gate.waiting == 1)
        function: Any = gateway.gateway._runtime.current.models["m"].serverless
        writer.transport.abort()
        await gateway.until(lambda: function.in_flight == 0)
        await gateway.until(lambda: gateway.in_flight == 0)
        gate.opened.set()
        del reader
        assert (await gateway.logged("gone"))["status"] == 499


async def test_a_call_over_a_connection_that_the_platform_had_closed_is_made_anew(
    tmp_path, monkeypatch
):
    answers = iter([hangs_up(), ok()])

    async def behave(received):
        return await next(answers)(received)

    async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
        await gateway.infer(x_router_backend="serverless")
        gateway.function.behave = behave
        roads = Roads(gateway, monkeypatch)
        reply = await gateway.infer(x_router_backend="serverless")
    assert (reply.status, reply.headers["x-router-attempts"]) == (200, "1")
    assert (roads.taken["function"], roads.taken["direct"]) == (1, 1)


async def test_so_does_one_of_a_model_that_hedges_as_long_as_it_is_quick(tmp_path, monkeypatch):
    async with Harness(tmp_path, warm=[ok(), ok()], model={"hedge": {}}) as gateway:
        await gateway.infer()
        roads = Roads(gateway, monkeypatch)
        replies = await send(gateway)
    assert {reply.status for reply in replies} == {200}
    assert roads.taken["pool"] == REQUESTS


async def test_one_that_is_slow_goes_on_in_a_task_with_both_attempts(tmp_path, monkeypatch):
    """And is one request: answered, logged and counted once, whoever leaves when."""
    slow = Gate()
    model = {"hedge": {"budget": 0.5}}
    async with Harness(tmp_path, warm=[ok(), ok()], model=model) as gateway:
        for _ in range(50):
            await gateway.infer()
        roads = Roads(gateway, monkeypatch)
        for each in gateway.warm:
            each.behave = slow
        reply = asyncio.create_task(gateway.infer(x_request_id="slow"))
        await gateway.until(lambda: gateway.pool.in_flight == 2)
        left = asyncio.create_task(gateway.infer(x_request_id="left"))
        await gateway.until(lambda: gateway.pool.in_flight == 4)
        left.cancel()
        await gateway.until(lambda: gateway.pool.in_flight == 2)
        slow.opened.set()
        answer = await reply
        lines = [await gateway.logged(each) for each in ("slow", "left")]
        await gateway.until(lambda: gateway.pool.in_flight == gateway.in_flight == 0)
    assert (answer.status, answer.headers["x-router-attempts"]) == (200, "2")
    assert [(line["status"], line["attempts"]) for line in lines] == [(200, 2), (499, 2)]
    assert roads.taken == {"pool": 2, "direct": 2}


async def test_both_attempts_end_where_there_is_no_room_to_go_on(tmp_path, monkeypatch):
    slow = Gate()
    model = {"hedge": {"budget": 0.5}}
    async with Harness(tmp_path, warm=[ok(), ok()], model=model) as gateway:
        for _ in range(50):
            await gateway.infer()
        for each in gateway.warm:
            each.behave = slow
        data = gateway.gateway._data
        fast: Any = data.fast_path
        begin = fast.begin

        def fill(*facts: Any) -> Any:
            attempt = begin(*facts)
            data.bodies.max_bytes = 0
            return attempt

        monkeypatch.setattr(fast, "begin", fill)
        reply = await gateway.infer(x_request_id="full")
        await gateway.until(lambda: gateway.pool.in_flight == 0)
        line = await gateway.logged("full")
    assert (reply.status, line["status"]) == (503, 503)


async def test_so_does_one_that_a_shadow_gets_a_copy_of(tmp_path, monkeypatch):
    async with shadowed(tmp_path, ok(b"{}"), ok(b"{}")) as (gateway, upstream):
        await gateway.infer()
        roads = Roads(gateway, monkeypatch)
        replies = await send(gateway)
        found = await settled(gateway, REQUESTS + 1)
        copied = [received.headers["x-request-id"] for received in upstream.received]
    assert {reply.status for reply in replies} == {200}
    assert roads.taken == {"pool": REQUESTS}
    assert found["copies"]["ok"] == REQUESTS + 1
    assert sorted(copied[1:]) == sorted(f"r-{n}" for n in range(REQUESTS))


async def test_one_that_fails_at_first_is_copied_once(tmp_path):
    answers = iter([ok(), hangs_up(), ok()])

    async def behave(received):
        return await next(answers)(received)

    async with shadowed(tmp_path, behave, ok(b"{}")) as (gateway, upstream):
        await gateway.infer()
        reply = await gateway.infer(x_request_id="again")
        found = await settled(gateway, 2)
    assert reply.status == 200
    assert found["copies"]["ok"] == len(upstream.received) == 2


async def test_so_does_one_of_which_a_sample_is_taken(tmp_path, monkeypatch):
    async with watched(tmp_path) as gateway:
        await gateway.infer(question(1.0))
        roads = Roads(gateway, monkeypatch)
        replies = [await gateway.infer(question(1.0), x_own=str(n)) for n in range(REQUESTS)]
        await sampled(gateway, REQUESTS + 1)
        ids = [reply.headers["x-request-id"] for reply in replies]
        labels = [{"request_id": name, "label": 0} for name in ids]
        known = (await label(gateway, *labels)).json()
    assert {reply.body for reply in replies} == {outputs(0.9, 0.1)}
    assert roads.taken["pool"] == REQUESTS
    assert known["counted"] == REQUESTS, "samples have the ids that clients were told"


async def test_one_that_fails_at_first_is_answered_and_not_sampled(tmp_path):
    answers = iter([ok(outputs(1)), hangs_up(), ok(outputs(2)), ok(outputs(3))])

    async def behave(received):
        return await next(answers)(received)

    async with watched(tmp_path, behave) as gateway:
        replies = [await gateway.infer(question(1.0), x_own=str(n)) for n in range(3)]
        await sampled(gateway, 2)
        await gateway.until(lambda: gateway.pool.in_flight == 0)
        found = dict(counts(gateway))
    assert [reply.body for reply in replies] == [outputs(each) for each in (1, 2, 3)]
    assert found == {("m", "read"): 2}


@pytest.mark.parametrize("share", [5, 50])
async def test_as_many_are_sampled_as_asked_for(tmp_path, monkeypatch, share):
    takes, taken = Tap.takes, Counter[bool]()

    def counted(tap: Tap) -> bool:
        taken[(is_taken := takes(tap))] += 1
        return is_taken

    async with watched(tmp_path, quality={"sample": share}) as gateway:
        tap = runtime(gateway).models["m"].tap
        assert tap is not None
        tap._rng.seed(1)
        monkeypatch.setattr(Tap, "takes", counted)
        for _ in range(40):
            await asyncio.gather(*(gateway.infer(question(1.0)) for _ in range(25)))
    assert abs(taken[True] / 1000 - share / 100) < 0.03
