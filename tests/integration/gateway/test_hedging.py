"""A replica that is slow now and then, seen through real sockets with and without hedging."""

import asyncio
import time
from typing import Any

from tests.fakes.upstreams import Answer, Received, ok
from tests.integration.harness import Harness

REQUESTS = 300
SLOW_EVERY = 40
SLOW_S = 0.25
BUDGET = 0.1


def slow_now_and_then(every=SLOW_EVERY, seconds=SLOW_S) -> Any:
    count = 0

    async def behave(_: Received) -> Answer:
        nonlocal count
        count += 1
        await asyncio.sleep(seconds if count % every == 0 else 0.001)
        return Answer()

    return behave


async def p99_s(gateway) -> float:
    took = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        assert (await gateway.infer()).status == 200
        took.append(time.perf_counter() - began)
    return sorted(took)[-REQUESTS // 100 - 1]


async def test_hedging_lowers_the_tail_within_its_budget(tmp_path):
    async with Harness(tmp_path, warm=[slow_now_and_then(), ok()]) as gateway:
        alone_s = await p99_s(gateway)
        await gateway.write(gateway.changed(hedge={"percentile": 95, "budget": BUDGET}))
        assert (await gateway.ask("POST", "/v1/reload")).status == 200
        hedged_s = await p99_s(gateway)
        asked = sum(len(replica.received) for replica in gateway.warm) - REQUESTS
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        status = await gateway.status()
    assert alone_s > 0.9 * SLOW_S
    assert hedged_s < alone_s / 4
    assert REQUESTS < asked <= REQUESTS * (1 + BUDGET)
    assert 'router_hedges_total{model="m",result="won"}' in metrics
    assert status["hedge"]["budget_left"] >= 0
    assert gateway.pool.in_flight == 0


async def test_the_budget_holds_where_far_more_is_slow(tmp_path):
    share, requests = 0.05, 200
    model = {"hedge": {"percentile": 75, "budget": share}}
    replicas = [slow_now_and_then(5, 0.1), ok()]
    async with Harness(tmp_path, warm=replicas, model=model) as gateway:
        for _ in range(requests):
            assert (await gateway.infer()).status == 200
        second = sum(len(replica.received) for replica in gateway.warm) - requests
        status = await gateway.status()
    assert 0 < second <= share * requests
    assert status["hedge"]["refused"] > 0


async def test_the_client_is_told(tmp_path):
    model = {"hedge": {"budget": 0.5}}
    async with Harness(tmp_path, warm=[slow_now_and_then(), ok()], model=model) as gateway:
        replies = [await gateway.infer(x_request_id=f"r{n}") for n in range(1, SLOW_EVERY + 1)]
        line = await gateway.logged(f"r{SLOW_EVERY}")
    assert replies[-1].decision == ("pool", "hedge")
    assert replies[-1].headers["x-router-attempts"] == "2"
    assert (line["reason"], line["attempts"]) == ("hedge", 2)


async def test_nothing_is_sent_twice_once_an_answer_has_begun(tmp_path):
    async def steady(_: Received) -> Answer:
        await asyncio.sleep(0.03)
        return Answer()

    async def slow_to_end(_: Received) -> Answer:
        async def chunks() -> Any:
            yield b"begin"
            await asyncio.sleep(0.15)
            yield b"end"

        return Answer(headers=(("content-type", "text/event-stream"),), chunks=chunks)

    model = {"hedge": {"budget": 0.5}}
    async with Harness(tmp_path, warm=[steady, steady], model=model) as gateway:
        for _ in range(20):
            await gateway.infer()
        before = sum(len(replica.received) for replica in gateway.warm)
        for replica in gateway.warm:
            replica.behave = slow_to_end
        reply = await gateway.infer()
        asked = sum(len(replica.received) for replica in gateway.warm) - before
    assert reply.body.endswith(b"end")
    assert (asked, reply.headers["x-router-attempts"]) == (1, "1")
