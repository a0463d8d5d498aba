"""`server.processes`: several real processes on one port, seen as one gateway."""

import asyncio
import hashlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.valkey import ValkeyProcess, valkey_server
from tests.integration.end_to_end.client import MLP, infer, slow
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess, eventually, gone, runs
from tests.integration.end_to_end.models import model, settings

__all__ = ["valkey_server"]

ONE_REPLICA = {"min_replicas": 1}


def config_of(repository: Path, *models: dict[str, Any], **server: Any) -> dict[str, Any]:
    found = settings(repository, *(models or [model("mlp", pool=ONE_REPLICA)]))
    found["server"] = {**found["server"], "processes": 2, **server}
    return found


@pytest.fixture
def gateway(start_gateway: StartGateway, repository: Path) -> GatewayProcess:
    return start_gateway(config_of(repository))


@asynccontextmanager
async def clients() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that opens a connection for every request, so that both processes get some."""
    connector = aiohttp.TCPConnector(force_close=True, limit=8)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def statuses(session: aiohttp.ClientSession, gateway: GatewayProcess, count: int) -> set[int]:
    answers = [infer(session, gateway.url, "mlp", MLP) for _ in range(count)]
    return {found.status for found in await asyncio.gather(*answers)}


def processes_of(gateway: GatewayProcess) -> list[psutil.Process]:
    """The processes that serve; not their parent."""
    return [child for child in gateway.children() if runs(child, "serve-process")]


async def until_both_answer(gateway: GatewayProcess) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        while True:
            table: list[dict[str, Any]] = (await gateway.get("/v1/status"))["processes"]
            if sum(found["answers"] for found in table) == 2:
                return table
            await asyncio.sleep(0.05)


async def until_ready(gateway: GatewayProcess) -> None:
    """Until every process sees the replica; the status shows only what one of them knows."""
    async with clients() as session, asyncio.timeout(60):
        while True:
            found = [await infer(session, gateway.url, "mlp", MLP) for _ in range(12)]
            if {answer.backend for answer in found} == {"pool"}:
                return


async def counted(gateway: GatewayProcess, name: str, **labels: str) -> float:
    """The sum of a family's samples with those labels."""
    families = text_string_to_metric_families(await gateway.metrics())
    samples = (sample for family in families for sample in family.samples)
    return sum(
        sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_they_serve_count_and_size_as_one(gateway: GatewayProcess):
    await until_ready(gateway)
    async with clients() as session:
        before = await counted(gateway, "router_requests_total", outcome="ok")
        assert await statuses(session, gateway, 60) == {200}
    assert await counted(gateway, "router_requests_total", outcome="ok") == before + 60
    assert await counted(gateway, "router_request_duration_seconds_count") == before + 60
    await asyncio.to_thread(
        eventually, lambda: len(gateway.access_log()) == before + 60, "one file has all lines"
    )
    table = await until_both_answer(gateway)
    assert [found["leader"] for found in table].count(True) == 1
    accepted = 'router_client_connections_total{result="accepted"}'
    assert accepted in await gateway.metrics()
    status = await gateway.status("mlp")
    assert sum(status["split"].values()) == before + 60
    assert len(status["endpoints"]) == 1
    assert len(gateway.workers()) == 1, "one replica for all"
    hosts = [child for child in gateway.children() if runs(child, "workers.function_host")]
    assert len(hosts) == 1, "one function host for all"
    assert await counted(gateway, "router_replicas_ready", model="mlp") == 1
    assert status["alternatives_usd"]["always_warm"] > 0
    assert sum((await gateway.get("/v1/tenants"))["requests"][""].values()) >= before + 60
    assert (await gateway.get("/v1/jobs"))["on"] is False
    spent = {
        family.name: sum(sample.value for sample in family.samples if "_total" in sample.name)
        for family in text_string_to_metric_families(await gateway.metrics())
        if family.name in {"router_cost_usd", "router_tenant_cost_usd"}
    }
    assert spent["router_cost_usd"] > 0
    assert spent["router_tenant_cost_usd"] == pytest.approx(spent["router_cost_usd"], rel=1e-3)


async def test_both_take_part(gateway: GatewayProcess):
    await until_both_answer(gateway)
    sockets = [await asyncio.open_connection(*address(gateway.url)) for _ in range(40)]
    async with asyncio.timeout(60):
        while True:
            table = (await gateway.get("/v1/status"))["processes"]
            if sum(found["connections"] for found in table) >= 40:
                break
            await asyncio.sleep(0.05)
    for _, writer in sockets:
        writer.close()
    assert all(found["connections"] > 5 for found in table), table


def address(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition("//")[2].partition(":")
    return host, int(port)


async def test_while_one_is_dead_the_other_serves_and_no_count_is_lost(gateway: GatewayProcess):
    await until_ready(gateway)
    async with clients() as session:
        assert await statuses(session, gateway, 30) == {200}
        counts = [await counted(gateway, "router_requests_total", outcome="ok")]
        victim = processes_of(gateway)[0]
        victim.kill()
        gone([victim])
        while len(processes_of(gateway)) < 2:
            assert await statuses(session, gateway, 4) == {200}
            counts.append(await counted(gateway, "router_requests_total", outcome="ok"))
        table = await until_both_answer(gateway)
        assert await statuses(session, gateway, 10) == {200}
        counts.append(await counted(gateway, "router_requests_total", outcome="ok"))
    assert counts == sorted(counts), "a counter never goes down"
    assert sorted(found["restarts"] for found in table) == [0, 1]
    assert "ended with status -9" in gateway.log


async def test_a_reload_reaches_all(gateway: GatewayProcess):
    await until_both_answer(gateway)
    gateway.config["models"].append(model("echo"))
    gateway.write_config()
    async with clients() as session:
        async with session.post(gateway.admin + "/v1/reload") as reply:
            assert (await reply.json())["reloaded"] is True
        for _ in range(20):
            async with session.get(gateway.url + "/v2/models/echo/ready") as reply:
                assert reply.status != 404


async def test_what_happened_is_told_once_for_all_of_them(gateway: GatewayProcess):
    await until_both_answer(gateway)
    events = (await gateway.get("/v1/events"))["events"]
    texts = [event["text"] for event in events]
    assert len(texts) == len(set(texts)) > 2
    assert {"process", "sizing"} <= {event["kind"] for event in events}
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)


async def test_a_bad_reload_is_refused_and_changes_nothing(gateway: GatewayProcess):
    await until_both_answer(gateway)
    before = (await gateway.get("/v1/status"))["config"]["hash"]
    gateway.config_file.write_text("models: nonsense\n")
    async with clients() as session, session.post(gateway.admin + "/v1/reload") as reply:
        assert reply.status == 422
        assert "models" in (await reply.json())["errors"][0]
    assert (await gateway.get("/v1/status"))["config"]["hash"] == before
    async with asyncio.timeout(60):
        while (await gateway.get("/v1/status"))["config"]["last_error"] is None:
            await asyncio.sleep(0.05)


async def test_a_drain_reaches_all_and_whoever_is_started_again(gateway: GatewayProcess):
    await until_both_answer(gateway)
    async with clients() as session:
        async with session.post(gateway.admin + "/v1/drain") as reply:
            assert await reply.json() == {"draining": True, "in_flight": 0}
        async with session.get(gateway.admin + "/readyz") as reply:
            assert reply.status == 503
        processes_of(gateway)[0].kill()
        async with asyncio.timeout(60):
            while not (await gateway.get("/v1/status"))["draining"]:
                await asyncio.sleep(0.05)
        await until_both_answer(gateway)
        for _ in range(20):
            async with session.get(gateway.url + "/v2/health/ready") as reply:
                assert reply.status == 503


@pytest.mark.alone
async def test_a_drained_replica_is_left_alone_by_all_and_whoever_is_started_again(
    gateway: GatewayProcess,
):
    await until_both_answer(gateway)
    await until_ready(gateway)
    (endpoint,) = (await gateway.get("/v1/status"))["models"][0]["endpoints"]
    question = {"model": "mlp", "endpoint": endpoint["id"]}
    async with clients() as session:
        async with session.post(gateway.admin + "/v1/drain", json=question) as reply:
            assert (await reply.json())["draining"] is True
        assert await backends(session, gateway) == {"serverless"}
        (shown,) = (await gateway.get("/v1/status"))["models"][0]["endpoints"]
        assert shown["state"] == "draining"
        # The id names the process whose replica it is; the other one may go.
        other = next(p for p in processes_of(gateway) if f"-{p.pid}-" not in endpoint["id"])
        other.kill()
        other.wait(10)
        await until_both_answer(gateway)
        async with asyncio.timeout(60):
            while not await agree(gateway, endpoint["id"], "draining"):
                await asyncio.sleep(0.1)
        assert await backends(session, gateway) == {"serverless"}
        question["draining"] = False
        async with session.post(gateway.admin + "/v1/drain", json=question) as reply:
            assert (await reply.json())["draining"] is False
        question["endpoint"] = "nobody"
        async with session.post(gateway.admin + "/v1/drain", json=question) as reply:
            assert reply.status == 404
    await until_ready(gateway)


async def backends(session: aiohttp.ClientSession, gateway: GatewayProcess) -> set[str | None]:
    # One after the other: so many at once would be too many for the function.
    return {(await infer(session, gateway.url, "mlp", MLP)).backend for _ in range(12)}


async def agree(gateway: GatewayProcess, endpoint: str, state: str) -> bool:
    """Whether both processes know the endpoint, in that state."""
    found = await counted(gateway, "router_endpoints", model="mlp", state=state)
    ready = await counted(gateway, "router_endpoints", model="mlp", state="ready")
    return (found, ready) == (1, 0)


async def test_explain_is_answered_by_one_of_them(gateway: GatewayProcess):
    await until_both_answer(gateway)
    question = {"model": "mlp", "payload_bytes": 100}
    async with clients() as session:
        async with session.post(gateway.admin + "/v1/explain", json=question) as reply:
            assert (reply.status, (await reply.json())["error"]) == (200, None)
        async with session.post(gateway.admin + "/v1/explain", json={"model": "x"}) as reply:
            assert reply.status == 400


async def test_a_signal_drains_all_and_leaves_nothing(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(config_of(repository, model("slow", pool=ONE_REPLICA)))
    await until_both_answer(gateway)
    children = gateway.children()
    async with clients() as session:
        sent = [
            asyncio.create_task(infer(session, gateway.url, "slow", slow(800))) for _ in range(4)
        ]
        async with asyncio.timeout(60):
            while (await gateway.get("/v1/status"))["in_flight"] < 4:
                await asyncio.sleep(0.01)
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        assert {found.status for found in await asyncio.gather(*sent)} == {200}
    assert await asyncio.to_thread(gateway.wait) == 0
    assert gone(children) == []


async def test_nothing_survives_the_kill_of_the_parent(gateway: GatewayProcess):
    await until_ready(gateway)
    children = gateway.children()
    assert len(children) >= 5, "two processes, store, function host, replica"
    assert gateway.process is not None
    gateway.process.kill()
    gateway.wait()
    assert gone(children) == []


async def test_replicas_that_somebody_else_runs_are_paid_once(
    start_gateway: StartGateway, repository: Path
):
    """At a dollar per second, whether or not they are there."""
    static = {"kind": "static", "urls": ["http://127.0.0.1:9"], "price_per_replica_hour": 3600}
    bare = {**model("mlp", serverless=None), "pool": static}
    gateway = start_gateway(config_of(repository, bare))
    await until_both_answer(gateway)
    started, before = time.monotonic(), await counted(gateway, "router_cost_usd_total")
    await asyncio.sleep(3)
    cost = await counted(gateway, "router_cost_usd_total") - before
    assert 0.6 < cost / (time.monotonic() - started) < 1.4


async def test_the_store_is_started_again(gateway: GatewayProcess):
    await until_both_answer(gateway)
    store = next(child for child in gateway.children() if "valkey-server" in child.name())
    store.kill()
    eventually(lambda: "embedded store ended" in gateway.log, "the end is noticed")
    async with asyncio.timeout(60):
        while True:
            table = (await gateway.get("/v1/status"))["processes"]
            names = {child.name() for child in gateway.children()}
            if [found["leader"] for found in table].count(True) == 1 and any(
                "valkey" in name for name in names
            ):
                break
            await asyncio.sleep(0.05)
    async with clients() as session:
        assert await statuses(session, gateway, 10) == {200}


async def test_the_users_redis_is_used_where_there_is_one(
    start_gateway: StartGateway, repository: Path, valkey_server: ValkeyProcess
):
    config = config_of(repository)
    config["shared_state"] = {"redis_url": valkey_server.url}
    gateway = start_gateway(config)
    await until_both_answer(gateway)
    assert not [child for child in gateway.children() if "valkey" in child.name()]
    with valkey_server.client() as client:
        assert client.zcard("hybrid-router:gateways") == 2


def test_a_port_that_others_share_is_refused(
    gateway: GatewayProcess, tmp_path: Path, repository: Path
):
    taken = gateway.url.removeprefix("http://")
    second = GatewayProcess(tmp_path / "second", config_of(repository, listen=taken))
    try:
        with pytest.raises(AssertionError, match="no readiness line"):
            second.start()
        assert second.wait() == 1
        assert f"cannot listen: [Errno 98] {taken}: address already in use" in second.log
    finally:
        second.ensure_gone()


async def test_they_keep_to_the_configured_totals_together(
    start_gateway: StartGateway, repository: Path, tmp_path: Path
):
    """Connections are divided; the rate of a key is counted by both of them."""
    digest = hashlib.sha256(b"secret").hexdigest()
    key = {"name": "k", "tenant": "t", "sha256": digest, "rate_per_s": 1, "burst": 20}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump([key]))
    config = config_of(repository, max_connections=30)
    config["auth"] = {"api_keys_file": str(tmp_path / "keys.yaml")}
    gateway = start_gateway(config)
    await until_both_answer(gateway)
    headers = {"authorization": "Bearer secret"}
    url = gateway.url + "/v2/models/mlp"
    statuses_seen: Counter[int] = Counter()
    connector = aiohttp.TCPConnector(force_close=True, limit=4)
    began = time.monotonic()
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def ask() -> None:
            async with session.get(url) as reply:
                statuses_seen[reply.status] += 1

        for _ in range(30):
            await asyncio.gather(*(ask() for _ in range(4)))
            await asyncio.sleep(0.05)  # as clients do; the processes talk every 100 ms
    lasted_s = time.monotonic() - began
    assert statuses_seen[429] > 0
    allowed = sum(count for status, count in statuses_seen.items() if status != 429)
    # At worst the other one hears two exchanges later what was let through.
    assert 20 <= allowed <= 20 + lasted_s + 12

    sockets = [await asyncio.open_connection(*address(gateway.url)) for _ in range(60)]
    try:
        async with asyncio.timeout(60):
            while await counted(gateway, "router_client_connections_total", result="refused") < 30:
                await asyncio.sleep(0.05)
        assert await counted(gateway, "router_client_connections_open") <= 30
    finally:
        for _, writer in sockets:
            writer.transport.abort()


async def test_one_that_hangs_is_counted_out_and_replaced(gateway: GatewayProcess):
    await until_both_answer(gateway)
    victim = processes_of(gateway)[0]
    victim.suspend()  # alive to the system, and given connections by it
    async with asyncio.timeout(10):
        while (await gateway.get("/readyz"))["processes"] == {"ready": 2, "wanted": 2}:
            await asyncio.sleep(0.05)
    assert await gateway.get("/readyz") == {"ready": True, "processes": {"ready": 1, "wanted": 2}}
    assert await asyncio.to_thread(gone, [victim], 10.0) == []
    table = await until_both_answer(gateway)
    assert sorted(found["restarts"] for found in table) == [0, 1]
    async with asyncio.timeout(10):
        while (await gateway.get("/readyz"))["processes"] != {"ready": 2, "wanted": 2}:
            await asyncio.sleep(0.05)
    assert "hangs and is killed" in gateway.log
