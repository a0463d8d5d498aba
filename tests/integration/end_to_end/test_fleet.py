"""Two gateways on one Redis: they see each other's traffic and size the pool as one."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.valkey import ValkeyProcess, valkey_server
from tests.integration.end_to_end.client import MLP, count, infer, steady
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.models import model, settings
from tests.integration.end_to_end.test_traffic import until_ready

__all__ = ["valkey_server"]


async def test_two_gateways_size_as_one_and_share_the_replica(
    start_gateway: StartGateway, repository: Path, valkey_server: ValkeyProcess
):
    # Each gateway sees 8 requests per second; only both together pay for a replica.
    shared = {"redis_url": valkey_server.url}
    config = settings(repository, model("mlp"), shared_state=shared)
    first, second = start_gateway(config), start_gateway(config)
    async with aiohttp.ClientSession() as session:

        async def both(seconds: float) -> None:
            await asyncio.gather(
                *(steady(session, g.url, "mlp", MLP, 8, seconds) for g in (first, second))
            )

        await both(6)
        for gateway in (first, second):
            status = await gateway.status("mlp")
            assert 12 < status["load_rps"] < 20
            assert status["replicas_wanted"] == 1
        async with asyncio.timeout(60):
            while True:
                await both(1)
                answers = [await infer(session, g.url, "mlp", MLP) for g in (first, second)]
                if {found.backend for found in answers} == {"pool"}:
                    break
    assert answers[0].endpoint == answers[1].endpoint
    assert len(first.workers()) + len(second.workers()) == 1


@pytest.mark.alone
async def test_one_gateway_alone_below_break_even_starts_nothing(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(settings(repository, model("mlp")))
    async with aiohttp.ClientSession() as session:
        outcomes = await steady(session, gateway.url, "mlp", MLP, 8, 5)
    assert count(outcomes) == {(200, "serverless", "below_break_even"): 40}
    assert (await gateway.status("mlp"))["replicas_wanted"] == 0


async def test_the_survivor_takes_over_when_the_leader_dies(
    start_gateway: StartGateway, repository: Path, valkey_server: ValkeyProcess
):
    shared = {"redis_url": valkey_server.url, "staleness": "1s"}
    config = settings(repository, model("mlp", pool={"min_replicas": 1}), shared_state=shared)
    first = start_gateway(config)
    await until_ready(first, "mlp", 1)
    second = start_gateway(config)
    await until_ready(second, "mlp", 1)
    assert not second.workers(), "it uses the leader's replica"
    assert first.process is not None
    first.process.kill()
    first.wait()
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while not second.workers():
            assert (await infer(session, second.url, "mlp", MLP)).status == 200
            await asyncio.sleep(0.05)
    await until_ready(second, "mlp", 1)
