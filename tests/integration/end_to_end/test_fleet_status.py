"""What several gateways on one Redis show as one: sums equal to the parts, and who is in them."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.valkey import ValkeyProcess, valkey_server
from tests.integration.end_to_end.client import MLP, steady
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import model, settings

__all__ = ["valkey_server"]

WITHIN_S = 30
SHARED = {"staleness": "1s", "namespace": "fleet"}


def only_functions(url: str, **more: Any) -> dict[str, Any]:
    return {"shared_state": {**SHARED, "redis_url": url}, **more}


async def until(gateway: GatewayProcess, condition: Any) -> dict[str, Any]:
    """The status of all gateways, once it is so."""
    async with asyncio.timeout(WITHIN_S):
        while not condition(status := await gateway.get("/v1/status?fleet=1")):
            await asyncio.sleep(0.1)
    return status


async def command(gateway: GatewayProcess, name: str, *more: str) -> str:
    arguments = ("-m", "router", name, "--fleet", "--admin", gateway.admin, *more)
    process = await asyncio.create_subprocess_exec(
        ".venv/bin/python", *arguments, stdout=asyncio.subprocess.PIPE, env={"COLUMNS": "200"}
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    return told.decode()


def decided(status: dict[str, Any]) -> int:
    return sum(status["models"][0]["decisions"].values())


def requests(tenants: dict[str, Any]) -> float:
    return sum(sum(counts.values()) for counts in tenants["requests"].values())


async def test_all_gateways_are_shown_as_one(
    start_gateway: StartGateway, repository: Path, valkey_server: ValkeyProcess
):
    config = settings(repository, model("mlp", pool=None), **only_functions(valkey_server.url))
    first = start_gateway(config)
    second = start_gateway({**config, "controller": {"interval": "300ms"}})
    async with aiohttp.ClientSession() as session:
        for gateway, count in ((first, 10), (second, 6)):
            await steady(session, gateway.url, "mlp", MLP, count, 1)
    status = await until(first, lambda found: decided(found) == 16)
    parts = [await gateway.status("mlp") for gateway in (first, second)]
    (shown,) = status["models"]
    for name in ("decisions", "split", "reasons", "cost_usd", "alternatives_usd"):
        for key, value in shown[name].items():
            assert abs(value - sum(part[name].get(key, 0) for part in parts)) < 1e-12, (name, key)
    assert shown["serverless"]["calls"] == sum(part["serverless"]["calls"] for part in parts) == 16
    await until(first, lambda found: found["models"][0]["recent"]["requests"] == 16)
    assert requests(await first.get("/v1/tenants?fleet=1")) == 16
    assert requests(await first.get("/v1/tenants")) == 10
    assert (await first.status("mlp"))["split"]["serverless"] == 10, "not asked for all"

    gateways = {one["is_asked"]: one for one in status["gateways"]}
    assert len(status["gateways"]) == 2
    assert (gateways[True]["config_differs"], gateways[False]["config_differs"]) == (False, True)
    told = await command(first, "status", "--once")
    assert f"gateway {gateways[False]['id']}" in told
    assert "ANOTHER CONFIGURATION" in told
    assert " 16 " in await command(first, "tenants")

    with valkey_server.client() as client:
        other = gateways[False]["id"]
        (key,) = [found for found in client.keys("*:summary:*") if other.encode() in found]

        def is_not_believed(found: dict[str, Any]) -> bool:
            client.set(key, b"poison")
            return bool(found["gateways_not_heard"] == [other])

        assert decided(await until(first, is_not_believed)) == 10
    await until(first, lambda found: decided(found) == 16)
    assert second.process is not None
    second.process.kill()
    second.wait()
    status = await until(first, lambda found: len(found["gateways"]) == 1)
    assert decided(status) == 10
    assert status["gateways_not_heard"] == []


async def test_processes_of_one_gateway_hear_the_others_too(
    start_gateway: StartGateway, repository: Path, valkey_server: ValkeyProcess
):
    config = settings(repository, model("mlp", pool=None), **only_functions(valkey_server.url))
    first = start_gateway({**config, "server": {**config["server"], "processes": 2}})
    second = start_gateway(config)
    async with aiohttp.ClientSession() as session:
        await steady(session, second.url, "mlp", MLP, 6, 1)
    status = await until(first, lambda found: decided(found) == 6)
    assert len(status["gateways"]) == 3
    assert requests(await first.get("/v1/tenants?fleet=1")) == 6
