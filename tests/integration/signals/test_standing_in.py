"""Gateways whose Redis is several servers: sentinels' master or a cluster's, lost in turn."""

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from router.signals.redis_client import redis_client
from tests.fakes.upstreams import ok
from tests.fakes.valkey_fleets import FLEETS, Fleet, Node
from tests.fakes.valkey_fleets import running as fleet_running
from tests.integration.harness import Harness
from tests.integration.signals.gateways import NAMESPACE, Gateway, eventually, running

KEY = f"{{{NAMESPACE}}}"
WITHIN_S = 60.0
TIMEOUT_S = 0.25


LOST = {"sentinels": (Node.pause, Node.kill), "cluster": (Node.kill, Node.pause)}
"""How another server is lost, and then the one that has the keys."""


@pytest.fixture(params=FLEETS)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    yield from fleet_running(request.param, tmp_path / "fleet")


async def test_another_server_stands_in_and_requests_do_not_notice(
    fleet: Fleet, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    shared = {"redis_url": fleet.url, "namespace": "gateways"}
    client = redis_client(fleet.url, KEY, TIMEOUT_S, 4)
    try:
        async with (
            running(fleet.url, "a", 1.0, TIMEOUT_S) as a,
            running(fleet.url, "b", 1.0, TIMEOUT_S) as b,
            Harness(tmp_path, warm=[ok()], config={"shared_state": shared}) as gateway,
        ):
            await agree(a, b)
            assert await used(client) == [True, 1, b"1"]
            usual = await asked(gateway, 100)
            for node, lose in zip(fleet.in_turn(KEY), LOST[fleet.kind], strict=True):
                lose(node)
                during = await asked(gateway, 100)
                assert statistics.median(during) < 5 * statistics.median(usual) + 0.05
                await agree(a, b)
                await asyncio.to_thread(fleet.wait_for, node)
            assert await until_used(client) == [True, 1, b"1"]
            state = gateway.gateway._shared
            assert state is not None
            done = state.flushes_ok
            await eventually(lambda: state.flushes_ok > done, WITHIN_S)
    finally:
        await client.aclose()


async def agree(a: Gateway, b: Gateway) -> None:
    """Both have exchanged after now, see each other, and one of them leads."""
    done = a.state.flushes_ok, b.state.flushes_ok
    await eventually(
        lambda: a.state.flushes_ok > done[0] and b.state.flushes_ok > done[1], WITHIN_S
    )
    await eventually(lambda: a.peers == {"b"} and b.peers == {"a"} and a.leads != b.leads, WITHIN_S)


async def asked(gateway: Harness, number: int) -> list[float]:
    took = []
    for _ in range(number):
        started = time.monotonic()
        assert (await gateway.infer()).status == 200
        took.append(time.monotonic() - started)
        await asyncio.sleep(0.005)
    return took


async def until_used(client: Redis) -> list[object]:
    """What is found once another server stands in."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await used(client)
            except RedisError:
                await asyncio.sleep(0.05)


async def used(client: Redis) -> list[object]:
    """A transaction, a script and a single connection, as the gateway uses them."""
    async with client.pipeline(transaction=True) as pipe:
        await pipe.set(f"{KEY}:a", 1)
        (was_set,) = await pipe.execute()
    script = client.register_script("return redis.call('EXISTS', KEYS[1])")
    async with client.client() as connection:
        exists = await script(keys=[f"{KEY}:a"], client=connection)
        return [was_set, exists, await connection.get(f"{KEY}:a")]
