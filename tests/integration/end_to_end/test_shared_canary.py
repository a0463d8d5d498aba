"""Gateways that share state, and processes of one gateway, agree about a canary."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.valkey import ValkeyProcess, valkey_server
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import settings

__all__ = ["valkey_server"]


def config_of(repository: Path, **more: Any) -> dict[str, Any]:
    pool = {"kind": "static", "urls": ["http://127.0.0.1:9"]}  # nobody is asked anything
    models = [{"name": name, "slo": {"latency_ms": 100}, "pool": pool} for name in ("m", "n")]
    rule = {"name": "r", "match": {"model": "m"}, "route": "auto"}
    canary = {"model": "n", "share": 5}
    return settings(repository, *models, rules=[{**rule, "canary": canary}], **more)


async def act(gateway: GatewayProcess, action: str) -> None:
    question = {"rule": "r", "action": action}
    async with (
        aiohttp.ClientSession() as session,
        session.post(gateway.admin + "/v1/canary", json=question) as response,
    ):
        assert response.status == 200


async def until_all(gateways: Sequence[GatewayProcess], **facts: Any) -> list[dict[str, Any]]:
    """The canary as each gateway tells it, once all tell these facts."""
    async with asyncio.timeout(60):
        while True:
            documents = [await gateway.get("/v1/status") for gateway in gateways]
            found = [canary for document in documents for canary in document["canaries"]]
            if all(canary[name] == value for canary in found for name, value in facts.items()):
                return found
            await asyncio.sleep(0.05)


async def test_two_gateways_on_one_redis(
    start_gateway: StartGateway, repository: Path, valkey_server: ValkeyProcess
):
    config = config_of(repository, shared_state={"redis_url": valkey_server.url})
    gateways = start_gateway(config), start_gateway(config)
    await act(gateways[0], "roll_back")
    found = await until_all(gateways, state="rolled_back", share_percent=0)
    assert [canary["fault"] for canary in found] == ["asked", "heard"]
    await act(gateways[1], "resume")
    await until_all(gateways, state="running", share_percent=5)
    assert "canary of rule r is resumed, as by another gateway" in gateways[0].log


async def test_the_processes_of_one_gateway(start_gateway: StartGateway, repository: Path):
    config = config_of(repository)
    config["server"]["processes"] = 2
    gateway = start_gateway(config)
    await act(gateway, "roll_back")
    await until_all([gateway], state="rolled_back", rolled_back_in=2)
    await act(gateway, "resume")
    await until_all([gateway], state="running", rolled_back_in=0)
