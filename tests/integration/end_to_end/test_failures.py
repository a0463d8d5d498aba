"""Things that break while traffic goes on: workers, Redis, files, the gateway itself."""

import asyncio
import signal
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.fakes.valkey import ValkeyProcess, valkey_server
from tests.integration.end_to_end.client import MLP, count, infer, slow, steady
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import eventually, gone, runs
from tests.integration.end_to_end.models import model, settings
from tests.integration.end_to_end.test_traffic import until_ready

__all__ = ["valkey_server"]


async def test_killing_a_busy_worker_fails_no_request(
    start_gateway: StartGateway, repository: Path
):
    config = settings(repository, model("slow", pool={"min_replicas": 1}))
    gateway = start_gateway(config)
    await until_ready(gateway, "slow", 1)
    async with aiohttp.ClientSession() as session:
        requests = [
            asyncio.create_task(infer(session, gateway.url, "slow", slow(1200))) for _ in range(4)
        ]
        (worker,) = gateway.workers()
        async with asyncio.timeout(60):
            while (await gateway.status("slow"))["endpoints"][0]["in_flight"] < 4:
                await asyncio.sleep(0.01)
        worker.kill()
        outcomes = await asyncio.gather(*requests)
    assert {found.status for found in outcomes} == {200}
    assert {found.backend for found in outcomes} == {"serverless"}
    # One of them went out on a connection that had served a probe; losing that at once looks like
    # a connection the worker had closed, and then the request counts as never sent.
    assert count(outcomes)[200, "serverless", "fallback"] >= 3
    await until_ready(gateway, "slow", 1)  # and a new one has taken its place


@pytest.mark.parametrize("breakage", ["pause", "kill"])
async def test_redis_hung_or_gone_costs_no_request_anything(
    start_gateway: StartGateway, repository: Path, valkey_server: ValkeyProcess, breakage: str
):
    shared = {"redis_url": valkey_server.url, "staleness": "500ms"}
    config = settings(repository, model("mlp", pool={"min_replicas": 1}), shared_state=shared)
    gateway = start_gateway(config)
    await until_ready(gateway, "mlp", 1)
    async with aiohttp.ClientSession() as session:
        await steady(session, gateway.url, "mlp", MLP, rps=20, seconds=0.5)
        getattr(valkey_server, breakage)()
        outcomes = await steady(session, gateway.url, "mlp", MLP, rps=40, seconds=3)
        assert (await gateway.get("/v1/status"))["shared_state"]["degraded"] is True
        assert "router_signals_degraded 1.0" in await gateway.metrics()
    assert count(outcomes) == {(200, "pool", "warm_capacity"): 120}
    assert gateway.stop() == 0
    during = gateway.access_log()[-120:]
    assert max(line["total_ms"] - line["upstream_ms"] for line in during) < 100


async def test_a_broken_edit_changes_nothing_and_says_why(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(settings(repository, model("mlp")))
    good = gateway.config_file.read_text()
    before = (await gateway.get("/v1/status"))["config"]["hash"]
    gateway.config_file.write_text(good.replace("latency_ms: 2000", "latency_ms: -5"))
    async with asyncio.timeout(60):
        while (await gateway.get("/v1/status"))["config"]["last_error"] is None:
            await asyncio.sleep(0.05)
    config = (await gateway.get("/v1/status"))["config"]
    assert config["hash"] == before
    assert "models[0].slo.latency_ms = -5, must be" in config["last_error"]
    assert "router_config_last_reload_successful 0.0" in await gateway.metrics()
    async with aiohttp.ClientSession() as session:
        assert (await infer(session, gateway.url, "mlp", MLP)).status == 200
        gateway.config_file.write_text(good.replace("latency_ms: 2000", "latency_ms: 1999"))
        async with session.post(gateway.admin + "/v1/reload") as response:
            assert (response.status, (await response.json())["reloaded"]) == (200, True)
    assert (await gateway.get("/v1/status"))["config"]["last_error"] is None


async def test_clients_that_saw_a_reload_leave_no_memory_behind(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(settings(repository, model("mlp", serverless=None)))
    await until_ready(gateway, "mlp", 0)
    text = gateway.config_file.read_text()
    process = psutil.Process(gateway.process.pid if gateway.process else 0)

    async def reload(number: int) -> None:
        gateway.config_file.write_text(
            text.replace("latency_ms: 2000", f"latency_ms: {2000 + number}")
        )
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as clients:
            await asyncio.gather(*(get(clients, gateway.url) for _ in range(100)))
            async with clients.post(gateway.admin + "/v1/reload") as response:
                assert response.status == 200, await response.text()

    async def get(clients: aiohttp.ClientSession, url: str) -> None:
        async with clients.get(url + "/v2/health/live") as response:
            assert response.status == 200

    for number in range(1, 11):
        await reload(number)
    before = process.memory_info().rss
    for number in range(11, 61):
        await reload(number)
    grown_mb = (process.memory_info().rss - before) / 1e6
    assert grown_mb < 5, "some 3 kB a client and reload would be 15 MB"


async def test_sigterm_finishes_what_was_accepted_and_leaves_nothing_behind(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(settings(repository, model("slow", pool={"min_replicas": 1})))
    await until_ready(gateway, "slow", 1)
    async with aiohttp.ClientSession() as session:
        hints = [{"x-router-backend": "pool"}, {"x-router-backend": "serverless"}]
        requests = [
            asyncio.create_task(infer(session, gateway.url, "slow", slow(600), hint))
            for hint in hints
        ]
        async with asyncio.timeout(60):
            while (await gateway.get("/v1/status"))["in_flight"] < 2:
                await asyncio.sleep(0.01)
            while len(children := gateway.children()) < 3:
                await asyncio.sleep(0.01)  # the sandbox is on its way
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        outcomes = await asyncio.gather(*requests)
    assert {found.status for found in outcomes} == {200}
    assert await asyncio.to_thread(gateway.wait) == 0
    assert len(children) >= 3, "a worker, the function host and a sandbox"
    assert gone(children) == []


async def test_a_killed_gateway_takes_all_its_children_with_it(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(settings(repository, model("mlp", pool={"min_replicas": 1})))
    await until_ready(gateway, "mlp", 1)
    async with aiohttp.ClientSession() as session:
        await infer(session, gateway.url, "mlp", MLP, {"x-router-backend": "serverless"})
    children = gateway.children()
    assert len(children) >= 3
    assert gateway.process is not None
    gateway.process.kill()
    gateway.wait()
    assert gone(children) == []


async def test_a_dead_function_host_is_replaced(start_gateway: StartGateway, repository: Path):
    gateway = start_gateway(settings(repository, model("mlp", pool=None)))

    def host_pids() -> set[int]:
        return {p.pid for p in gateway.children() if runs(p, "workers.function_host")}

    (old,) = host_pids()
    next(p for p in gateway.children() if p.pid == old).kill()
    eventually(lambda: bool(host_pids() - {old}), "a new function host")
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(60):
            while (found := await infer(session, gateway.url, "mlp", MLP)).status != 200:
                await asyncio.sleep(0.1)
    assert found.backend == "serverless"
