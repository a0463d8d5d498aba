"""Calls of functions need no task, whatever their protocol and whatever is answered."""

import asyncio
import json
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import pytest

from tests.fakes.upstreams import Answer, Gate, Received, Upstream, ok, running
from tests.integration.gateway.test_lifecycle import reload
from tests.integration.gateway.test_shortcuts import REQUESTS, Roads, send
from tests.integration.harness import Harness

CHAT = json.dumps({"model": "m", "messages": []}).encode()


def by_url(upstream: Upstream, **settings: object) -> dict[str, Any]:
    price = {"usd_per_request": 0, "usd_per_gb_s": 0.00001}
    return {
        "serverless": {"kind": "http_function", "url": upstream.url, "price": price, **settings}
    }


async def test_many_at_once_wait_for_no_more_than_a_connection(tmp_path, monkeypatch):
    serverless = {"max_concurrency": 64}
    async with Harness(tmp_path, function=ok(), serverless=serverless) as gateway:
        await gateway.infer()
        roads = Roads(gateway, monkeypatch)
        replies = await asyncio.gather(*(gateway.infer(x_request_id=f"r-{n}") for n in range(30)))
    assert {reply.status for reply in replies} == {200}
    assert roads.taken == {"function": 30}


async def test_a_model_that_the_body_names(tmp_path, monkeypatch):
    async with Harness(tmp_path, function=ok(b'{"usage":{"prompt_tokens":3}}')) as gateway:
        await gateway.infer(CHAT, "/v1/chat/completions")
        roads = Roads(gateway, monkeypatch)
        reply = await gateway.infer(CHAT, "/v1/chat/completions", x_request_id="chat")
        line = await gateway.logged("chat")
    assert (reply.status, *reply.decision) == (200, "serverless", "only_backend")
    assert roads.taken == {"function": 1}
    assert (line["input_tokens"], line["cold_start"]) == (3, False)
    assert line["cost_usd"] > 0
    assert line["gb_s"] > 0


async def test_both_sides_of_a_canary(tmp_path, monkeypatch):
    async with Harness(tmp_path, function=ok()) as gateway:
        config = deepcopy(gateway.config)
        config["models"].append({**config["models"][0], "name": "m-next", "served_as": "m"})
        canary = {"model": "m-next", "share": 50}
        config["rules"] = [
            {"name": "canary", "match": {"model": "m"}, "route": "auto", "canary": canary},
            {"name": "default", "match": {}, "route": "auto"},
        ]
        assert (await reload(gateway, config)).status == 200
        await gateway.infer()
        roads = Roads(gateway, monkeypatch)
        replies = await send(gateway)
    assert {reply.headers["x-router-model"] for reply in replies} == {"m", "m-next"}
    assert roads.taken == {"function": REQUESTS}


async def test_an_answer_that_comes_bit_by_bit(tmp_path, monkeypatch):
    more = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await more.wait()
        yield b"data: 2\n\n"

    async def stream(_: Received) -> Answer:
        return Answer(headers=(("content-type", "text/event-stream"),), chunks=parts)

    async with (
        running(Upstream(ok())) as function,
        Harness(tmp_path, model=by_url(function)) as gateway,
    ):
        await gateway.infer()
        function.behave = stream
        roads = Roads(gateway, monkeypatch)
        url = gateway.url + "/v2/models/m/infer"
        async with gateway.client.post(url, data=b"{}", skip_auto_headers=["content-type"]) as got:
            first = await got.content.readany()
            assert gateway.runtime_function.in_flight == 1
            more.set()
            rest = await got.content.read()
        await gateway.until(lambda: gateway.runtime_function.in_flight == gateway.in_flight == 0)
    assert (first, rest) == (b"data: 1\n\n", b"data: 2\n\n")
    assert roads.taken == {"function": 1}


async def test_one_that_becomes_too_long_is_broken_off(tmp_path):
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 4096

    async def stream(_: Received) -> Answer:
        return Answer(chunks=parts)

    limits = {"limits": {"max_response": "128KiB"}}
    async with (
        running(Upstream(ok())) as function,
        Harness(tmp_path, model=by_url(function, **limits)) as gateway,
    ):
        await gateway.infer()
        function.behave = stream
        with pytest.raises(Exception, match="payload"):
            await gateway.infer(x_request_id="long")
        line = await gateway.logged("long")
        await gateway.until(lambda: gateway.runtime_function.in_flight == gateway.in_flight == 0)
    assert line["outcome"] == "upstream_failed"


@pytest.mark.parametrize("size", [100_000, 3_000_000], ids=["long", "longer than any buffer"])
async def test_a_long_answer_of_lambda_arrives_whole(tmp_path, monkeypatch, size):
    body = bytes(range(256)) * (size // 256)
    async with Harness(tmp_path, function=ok()) as gateway:
        await gateway.infer()
        gateway.function.behave = ok(body)
        roads = Roads(gateway, monkeypatch)
        reply = await gateway.infer()
        await gateway.until(lambda: gateway.runtime_function.in_flight == gateway.in_flight == 0)
    assert (reply.status, reply.body) == (200, body)
    assert roads.taken == {"function": 1}


async def test_what_only_the_gateway_may_say_is_not_passed_on(tmp_path, monkeypatch):
    async with (
        running(Upstream(ok())) as function,
        Harness(tmp_path, model=by_url(function, headers={"X-Key": "ours"})) as gateway,
    ):
        await gateway.infer()
        roads = Roads(gateway, monkeypatch)
        headers: Any = {"X_Amz_Target": "theirs", "X_key": "theirs", "x_own": "kept"}
        await gateway.infer(**headers)
        await gateway.infer(**headers)
        heads = [received.headers for received in function.received[-2:]]
    assert roads.taken == {"function": 2}
    for head in heads:
        assert "theirs" not in head.values()
        assert (head["x-key"], head["x-own"]) == ("ours", "kept")


async def test_a_handlers_failure_is_the_models_answer_and_no_second_try(tmp_path, monkeypatch):
    async with (
        running(Upstream(ok())) as function,
        Harness(tmp_path, warm=[ok()], model=by_url(function)) as gateway,
    ):
        await gateway.infer(x_router_backend="serverless")
        function.behave = ok(b"", 500)  # as a platform says that the handler raised
        roads = Roads(gateway, monkeypatch)
        reply = await gateway.infer(x_router_backend="serverless", x_request_id="raised")
        line = await gateway.logged("raised")
    assert (reply.status, reply.decision) == (500, ("serverless", "hint"))
    assert "error" in reply.json()
    assert (line["outcome"], line["attempts"]) == ("model_error", 1)
    assert roads.taken == {"function": 1}


async def test_a_slow_call_is_overtaken_by_the_pool(tmp_path):
    """It is hedged while it runs; the pool, believed to be slow, proves quicker now."""

    async def slow_pool(_: Received) -> Answer:
        await asyncio.sleep(0.05)
        return Answer()

    model = {"hedge": {"budget": 0.5}, "slo": {"latency_ms": 5}}
    never = Gate()
    async with Harness(tmp_path, warm=[slow_pool], function=ok(), model=model) as gateway:
        for _ in range(60):
            await gateway.infer()
        gateway.warm[0].behave = ok()
        gateway.function.behave = never
        replies = [await gateway.infer() for _ in range(5)]  # one may be sent to find out
        function = gateway.runtime_function
        await gateway.until(lambda: gateway.pool.in_flight == function.in_flight == 0)
        await gateway.until(lambda: never.waiting == 0)
    hedged = [reply for reply in replies if reply.decision == ("pool", "hedge")]
    assert hedged
    assert {reply.headers["x-router-attempts"] for reply in hedged} == {"2"}
    assert never.cancelled >= len(hedged)
