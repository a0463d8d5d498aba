"""A replica that is slow now and then, seen through real sockets with and without hedging."""

import asyncio
from typing import Any

from tests.fakes.upstreams import Answer, Received, ok
from tests.integration.harness import Harness

REQUESTS = 300
SLOW_EVERY = 40
SLOW_S = 0.25
BUDGET = 0.1


class SlowNowAndThen:
    """Answers slowly one time in `every`; counts how often somebody waited for that."""

    def __init__(self, every: int = SLOW_EVERY, seconds: float = SLOW_S) -> None:
        self.every, self.seconds = every, seconds
        self.count = self.endured = 0

    async def __call__(self, _: Received) -> Answer:
        self.count += 1
        is_slow = self.count % self.every == 0
        await asyncio.sleep(self.seconds if is_slow else 0.001)
        self.endured += is_slow  # whoever was answered by another has hung up by now
        return Answer()


async def endured(gateway: Harness, replica: SlowNowAndThen) -> int:
    """How many of `REQUESTS` requests waited for the slow answer."""
    before = replica.endured
    for _ in range(REQUESTS):
        assert (await gateway.infer()).status == 200
    return replica.endured - before


async def test_hedging_lowers_the_tail_within_its_budget(tmp_path):
    slow = SlowNowAndThen()
    async with Harness(tmp_path, warm=[slow, ok()]) as gateway:
        alone = await endured(gateway, slow)
        slow.seconds = 2.0  # no machine is so busy that its quick answers take as long
        await gateway.write(gateway.changed(hedge={"percentile": 95, "budget": BUDGET}))
        assert (await gateway.ask("POST", "/v1/reload")).status == 200
        hedged = await endured(gateway, slow)
        asked = sum(len(replica.received) for replica in gateway.warm) - REQUESTS
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        status = await gateway.status()
    assert alone > REQUESTS / 100 >= hedged, "the 99th percentile was slow, and is so no more"
    assert REQUESTS < asked <= REQUESTS * (1 + BUDGET)
    assert 'router_hedges_total{model="m",result="won"}' in metrics
    assert status["hedge"]["budget_left"] >= 0
    assert gateway.pool.in_flight == 0


async def test_the_budget_holds_where_far_more_is_slow(tmp_path):
    share, requests = 0.05, 200
    model = {"hedge": {"percentile": 75, "budget": share}}
    async with Harness(tmp_path, warm=[SlowNowAndThen(5, 0.1), ok()], model=model) as gateway:
        for _ in range(requests):
            assert (await gateway.infer()).status == 200
        second = sum(len(replica.received) for replica in gateway.warm) - requests
        status = await gateway.status()
    assert 0 < second <= share * requests
    assert status["hedge"]["refused"] > 0


async def test_the_client_is_told(tmp_path):
    model = {"hedge": {"budget": 0.5}}
    async with Harness(tmp_path, warm=[SlowNowAndThen(), ok()], model=model) as gateway:
        replies = [await gateway.infer(x_request_id=f"r{n}") for n in range(1, SLOW_EVERY + 1)]
        line = await gateway.logged(f"r{SLOW_EVERY}")
    assert replies[-1].decision == ("pool", "hedge")
    assert replies[-1].headers["x-router-attempts"] == "2"
    assert (line["reason"], line["attempts"]) == ("hedge", 2)


async def test_nothing_is_sent_twice_once_an_answer_has_begun(tmp_path):
    async def steady(_: Received) -> Answer:
        await asyncio.sleep(0.3)  # a stall of the machine is no reason to hedge an answer at once
        return Answer()

    async def slow_to_end(_: Received) -> Answer:
        async def chunks() -> Any:
            yield b"begin"
            await asyncio.sleep(0.6)
            yield b"end"

        return Answer(headers=(("content-type", "text/event-stream"),), chunks=chunks)

    model = {"hedge": {"budget": 0.5}}
    pool = {"concurrency": 10}
    async with Harness(tmp_path, warm=[steady, steady], model=model, pool=pool) as gateway:
        await asyncio.gather(*(gateway.infer() for _ in range(20)))
        before = sum(len(replica.received) for replica in gateway.warm)
        for replica in gateway.warm:
            replica.behave = slow_to_end
        reply = await gateway.infer()
        asked = sum(len(replica.received) for replica in gateway.warm) - before
    assert reply.body.endswith(b"end")
    assert (asked, reply.headers["x-router-attempts"]) == (1, "1")
