"""Every row of the failure matrix, through a whole gateway with four replicas."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.fakes.upstreams import Behaviour, Upstream, hangs_up, ok
from tests.integration.failures.faults import (
    Hung,
    counted,
    cuts,
    never,
    resets,
    send,
    send_until,
    states,
    until_states,
    works,
)
from tests.integration.failures.matrix import MATRIX
from tests.integration.harness import Harness

REPLICAS = 4
HEALTH = {"interval": "50ms", "timeout": "200ms", "unhealthy_after": 2}
FOR_LONG = {"ejection": {"pause": "60s"}}
"""What is ejected stays so for the whole test, however long a busy machine takes for it."""


@pytest.fixture
def pool_of(tmp_path):
    """A gateway with these replicas, and good ones up to four."""

    def make(
        *bad: Behaviour | Upstream, function: Behaviour | None = None, **pool: Any
    ) -> AbstractAsyncContextManager[Harness]:
        good: Sequence[Behaviour] = [works()] * (REPLICAS - len(bad))
        settings = {"health": HEALTH, "concurrency": 2, **pool}
        return Harness(tmp_path, warm=[*bad, *good], function=function, pool=settings)

    return make


async def balanced(gateway: Harness) -> None:
    """Whatever happened, no slot is kept and nobody waits."""
    await gateway.until(lambda: gateway.pool.in_flight == 0 and not len(gateway.pool.queue))


async def test_crash(pool_of):
    async with pool_of(works(0.05)) as gateway:
        requests = asyncio.create_task(send(gateway, 200))
        await gateway.until(lambda: len(gateway.warm[0].received) >= 2)
        assert gateway.warm[0].crash is not None
        await gateway.warm[0].crash()
        traffic = await requests
        await until_states(gateway, ready=3, not_ready=1)
        await balanced(gateway)
        results = await counted(gateway, "router_attempts_total", "result")
    assert (traffic.lost, traffic.statuses[200]) == (0, 200)
    assert set(results) <= {"ok", "response_lost", "connect_failed", "cancelled"}


async def test_hang(pool_of):
    hung = Hung(works())
    async with pool_of(hung) as gateway:
        await send(gateway, 20)
        hung.is_hung, hung.behave = True, never
        async with asyncio.timeout(5):  # a request's own time-out is a minute
            traffic = await send(gateway, 100)
        assert await states(gateway) == {"ready": 3, "not_ready": 1}
        await balanced(gateway)
        results = await counted(gateway, "router_attempts_total", "result")
    assert (traffic.lost, traffic.statuses[200]) == (0, 100)
    assert set(results) == {"ok", "response_lost"}


async def test_stuck(pool_of):
    timeouts = {"response": "200ms"}
    async with pool_of(never, timeouts=timeouts, health={**HEALTH, **FOR_LONG}) as gateway:
        traffic = await send_until(gateway, "ejected")
        assert await states(gateway) == {"ready": 3, "ejected": 1}
        await balanced(gateway)
        results = await counted(gateway, "router_attempts_total", "result")
        ejections = await counted(gateway, "router_endpoint_ejections_total", "model")
    assert traffic.lost == 0
    assert results.keys() == {"ok", "timeout"}
    assert 3 <= results["timeout"] <= 6, "three, and those that were under way with the third"
    assert ejections == {"m": 1}


async def test_slow(pool_of):
    # The others come nowhere near, however busy the machine is.
    ejection = {"pause": "60s", "least_excess": "50ms"}
    async with pool_of(works(0.15), health={**HEALTH, "ejection": ejection}) as gateway:
        traffic = await send_until(gateway, "slow")
        assert await states(gateway) == {"ready": 3, "slow": 1}
        seen = len(gateway.warm[0].received)
        after = await send(gateway, 100)
        await balanced(gateway)
        ejections = await counted(gateway, "router_endpoint_ejections_total", "model")
    assert (traffic.lost + after.lost, seen) == (0, len(gateway.warm[0].received))
    assert ejections == {"m": 1}


@pytest.mark.parametrize("fast_path", [True, False])
async def test_reset(tmp_path, fast_path):
    warm = [resets, works(), works(), works()]
    pool, server = {"health": HEALTH}, {"fast_path": fast_path}
    async with Harness(tmp_path, warm=warm, pool=pool, server=server) as gateway:
        traffic = await send(gateway, 100)
        await balanced(gateway)
        results = await counted(gateway, "router_attempts_total", "result")
        ejections = await counted(gateway, "router_endpoint_ejections_total", "model")
    assert (traffic.lost, traffic.statuses[200]) == (0, 100)
    assert results["response_lost"] >= 3
    assert results.keys() == {"ok", "response_lost"}
    assert ejections["m"] >= 1


async def test_cut(pool_of):
    async with pool_of(cuts) as gateway:
        traffic = await send(gateway, 100)
        await balanced(gateway)
        outcomes = await counted(gateway, "router_requests_total", "outcome")
        ejections = await counted(gateway, "router_endpoint_ejections_total", "model")
        sent = len(gateway.warm[0].received)
    assert traffic.cut == sent, "the streams that broke, no more, and none was repeated"
    assert 3 <= sent <= 8
    assert traffic.statuses == {200: 100 - sent}
    assert outcomes == {"ok": 100 - sent, "upstream_failed": sent}
    assert ejections == {"m": 1}


async def test_busy(pool_of):
    async with pool_of(ok(status=503)) as gateway:
        traffic = await send(gateway, 400)
        assert await states(gateway) == {"ready": 3, "ejected": 1}
        tried = len(gateway.warm[0].received)
        await balanced(gateway)
        results = await counted(gateway, "router_attempts_total", "result")
        ejections = await counted(gateway, "router_endpoint_ejections_total", "model")
    assert (traffic.lost, traffic.statuses[200]) == (0, 400)
    assert results == {"ok": 400, "rejected": tried}
    assert tried < 20, "though it is always free"
    assert ejections["m"] >= 1


async def test_refused(pool_of):
    async with pool_of(ok()) as gateway:
        assert gateway.warm[0].crash is not None
        await gateway.warm[0].crash()
        traffic = await send(gateway, 100)
        await until_states(gateway, ready=3, not_ready=1)
        await balanced(gateway)
    assert (traffic.lost, traffic.statuses[200]) == (0, 100)


async def test_half(pool_of):
    async with pool_of(hangs_up(), hangs_up()) as gateway:
        traffic = await send(gateway, 100)
        assert await states(gateway) == {"ready": 2, "ejected": 2}
        assert (await gateway.status())["panicking"] is False
        await balanced(gateway)
        ejections = await counted(gateway, "router_endpoint_ejections_total", "model")
    assert (traffic.lost, traffic.statuses[200]) == (0, 100)
    assert ejections["m"] >= 2


async def test_all(pool_of):
    async with pool_of(*[hangs_up()] * REPLICAS) as gateway:
        traffic = await send(gateway, 20)
        assert await counted(gateway, "router_pool_panicking", "model") == {"m": 1}
        outcomes = await counted(gateway, "router_requests_total", "outcome")
        gateway.warm[2].behave = ok()
        healed = await send(gateway, 40)
        await balanced(gateway)
    assert traffic.statuses == {502: 20}, "told at once, not held"
    assert outcomes == {"upstream_failed": 20}
    assert healed.statuses[200] >= 30, "the good one is found among the bad"


async def test_all_with_function(pool_of):
    async with pool_of(*[hangs_up()] * REPLICAS, function=ok()) as gateway:
        traffic = await send(gateway, 60)
        assert await states(gateway) == {"ejected": 4}
        assert await counted(gateway, "router_breaker_open", "backend") == {"pool": 1}
        assert await counted(gateway, "router_pool_panicking", "model") == {}
        tried = sum(len(replica.received) for replica in gateway.warm)
        for replica in gateway.warm:
            replica.behave = ok()
        await gateway.until(lambda: gateway.pool.ready > 0)
        back = await send(gateway, 20)
        await balanced(gateway)
    assert (traffic.lost, traffic.statuses[200], back.lost) == (0, 60, 0)
    assert set(traffic.reasons) == {"fallback", "no_endpoint"}
    assert tried < 30, "most requests did not try the pool"
    assert back.reasons["warm_capacity"] > 0


async def test_flapping(pool_of):
    ejection = {"pause": "200ms"}
    pauses, lost = [], 0
    async with pool_of(ok(), health={**HEALTH, "ejection": ejection}) as gateway:
        clock = asyncio.get_running_loop().time
        for _ in range(3):
            gateway.warm[0].behave = hangs_up()
            ejected_at = clock()
            while not (await states(gateway))["ejected"]:
                ejected_at = clock()  # not later than that, or the pause would seem shorter
                lost += (await send(gateway, 20)).lost
            gateway.warm[0].behave = ok()
            while (await states(gateway))["ejected"]:
                lost += (await send(gateway, 4)).lost
            pauses.append(clock() - ejected_at)
            lost += (await send(gateway, 20)).lost
        await balanced(gateway)
        ejections = await counted(gateway, "router_endpoint_ejections_total", "model")
    assert lost == 0
    assert ejections["m"] >= 3
    assert pauses[2] >= 0.8, "the third pause is of 800 ms"


def test_every_row_is_tested():
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {row.name.replace(" ", "_") for row in MATRIX} <= tests
