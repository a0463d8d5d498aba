"""Staged incidents: what the page is told, and what a terminal prints, answers the question.

Each has a row in docs/page.md: the question, where to click, which command.
"""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from router.cli import main
from router.turns import at_once
from tests.fakes.upstreams import Answer, Received, hangs_up, ok
from tests.fakes.valkey import ValkeyProcess
from tests.integration.harness import Harness

TENANTS = ("checkout", "batch")


async def page(gateway: Harness) -> dict[str, Any]:
    """What the page's stream begins with: everything, as it is now."""
    at_once(gateway.gateway._recent.look())
    async with gateway.client.get(f"{gateway.admin}/v1/stream") as stream:
        text = await stream.content.readuntil(b"\n\n")
    found: dict[str, Any] = json.loads(text.removeprefix(b"data: "))
    found["tenants"] = (await gateway.ask("GET", "/v1/tenants")).json()
    return found


async def events(gateway: Harness, kind: str) -> list[dict[str, Any]]:
    """What the page's events show of that kind."""
    document = (await gateway.ask("GET", f"/v1/events?kind={kind}")).json()
    return list(document["events"])


async def terminal(gateway: Harness, *command: str) -> str:
    """What a command prints, its blanks made one."""
    asked = [*command, "--admin", gateway.admin]
    done = await asyncio.to_thread(CliRunner().invoke, main, asked, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


async def until_told(gateway: Harness, kind: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(20):
        while not (found := await events(gateway, kind)):
            await asyncio.sleep(0.02)
    return found


async def test_why_is_it_slow_and_which_replica(tmp_path: Path) -> None:
    async def slow(_: Received) -> Answer:
        await asyncio.sleep(0.15)
        return Answer()

    model = {"slo": {"latency_ms": 100}}
    async with Harness(tmp_path, warm=[ok(), slow], model=model) as gateway:
        for _ in range(3):  # too few for the slow one to be set aside
            await asyncio.gather(*(gateway.infer() for _ in range(4)))
        shown = (await page(gateway))["models"]["m"]
        assert shown["recent"]["p99_ms"] > shown["slo"]["latency_ms"]
        assert shown["recent"]["objective"]["late"] > 0
        slowest = max(shown["endpoints"], key=lambda one: one["p50_ms"])
        assert slowest["address"] == gateway.warm[1].url
        assert "> the last minute's p99 is above the objective" in await terminal(gateway, "status")
        told = await terminal(gateway, "status", "--model", "m")
        assert f"{slowest['id']} ready 0/4 {slowest['p50_ms']:.1f}" in told
        assert f"late {shown['recent']['objective']['late']}" in told


async def test_why_did_the_bill_double(tmp_path: Path) -> None:
    async with Harness(tmp_path, warm=[ok()], pool={"price_per_replica_hour": 360}) as gateway:

        async def usd_per_s() -> tuple[float, dict[str, Any]]:
            before = (await page(gateway))["models"]["m"]
            started = gateway.gateway._parts.clock()
            await asyncio.sleep(2.5)
            after = (await page(gateway))["models"]["m"]
            spent = after["cost_usd"]["warm_idle"] - before["cost_usd"]["warm_idle"]
            return spent / (gateway.gateway._parts.clock() - started), after

        usual, _ = await usd_per_s()
        await gateway.write(gateway.changed(pool={"price_per_replica_hour": 1080}))
        await gateway.ask("POST", "/v1/reload")
        now, shown = await usd_per_s()
        assert now > 1.5 * usual, "dollars by part: replicas that stand idle"
        assert shown["alternatives_usd"]["always_warm"] > 0
        (change,) = [
            event for event in await events(gateway, "config") if event["facts"].get("key")
        ]
        assert change["facts"]["key"] == "models[m].pool.price_per_replica_hour"
        told = await terminal(gateway, "events", "--kind", "config")
        assert "models[m].pool.price_per_replica_hour: 360.0 -> 1080.0 (API)" in told
        assert "warm_idle" in await terminal(gateway, "status", "--model", "m")


async def test_which_tenant_floods_and_who_is_throttled(tmp_path: Path) -> None:
    keys = [
        {
            "name": f"{name}-key", "tenant": name, "rate_per_s": 0.1, "burst": 5,
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
        }
        for name in TENANTS
    ]  # fmt: skip
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    config = {"auth": {"api_keys_file": "keys.yaml"}}
    async with Harness(tmp_path, warm=[ok()], config=config) as gateway:
        await asyncio.gather(*(gateway.infer(authorization="Bearer batch") for _ in range(40)))
        await gateway.infer(authorization="Bearer checkout")
        tenants = (await page(gateway))["tenants"]
        assert tenants["requests"]["batch"] == {"ok": 5, "rate_limited": 35}
        assert tenants["requests"]["checkout"] == {"ok": 1}
        assert tenants["refusals"] == {"batch-key": {"rate_limited": 35}}
        told = await terminal(gateway, "tenants")
        assert "batch 40 35 " in told
        assert "batch-key rate_limited 35" in told


async def test_which_replica_is_set_aside_and_why(tmp_path: Path) -> None:
    async with Harness(tmp_path, warm=[ok(), hangs_up()]) as gateway:
        async with asyncio.timeout(20):
            while not (found := await events(gateway, "ejection")):
                await asyncio.gather(*(gateway.infer() for _ in range(8)))
        bad = next(
            one for one in (await page(gateway))["models"]["m"]["endpoints"] if one["set_aside"]
        )
        assert (bad["address"], bad["state"]) == (gateway.warm[1].url, "ejected")
        assert bad["why_aside"] == "its attempts fail"
        assert bad["id"] in found[0]["text"]
        assert f"{bad['id']} ejected" in await terminal(gateway, "status", "--model", "m")
        assert bad["id"] in await terminal(gateway, "events", "--kind", "ejection")


async def test_is_redis_down(tmp_path: Path, valkey_server: ValkeyProcess) -> None:
    shared = {"redis_url": valkey_server.url, "staleness": "300ms"}
    async with Harness(tmp_path, warm=[ok()], config={"shared_state": shared}) as gateway:
        async with asyncio.timeout(20):
            while (await page(gateway))["rest"]["shared_state"]["degraded"]:
                await asyncio.sleep(0.05)
        await asyncio.to_thread(valkey_server.kill)
        found = await until_told(gateway, "shared_state")
        async with asyncio.timeout(20):
            while not (await page(gateway))["rest"]["shared_state"]["degraded"]:
                await asyncio.sleep(0.05)
        assert (await gateway.infer()).status == 200
        assert "DEGRADED" in await terminal(gateway, "status")
        assert found[-1]["text"] in await terminal(gateway, "events", "--kind", "shared_state")


async def test_what_changed_and_who_asked(tmp_path: Path) -> None:
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        await gateway.write(gateway.changed(slo={"latency_ms": 50}, pool={"concurrency": 9}))
        await gateway.ask("POST", "/v1/reload")
        facts = [event["facts"] for event in await events(gateway, "config")]
        told = {each["key"]: (each["old"], each["new"], each["who"]) for each in facts[:-1]}
        assert told == {
            "models[m].slo.latency_ms": ("5000.0", "50.0", "API"),
            "models[m].pool.concurrency": ("4", "9", "API"),
        }
        assert (await page(gateway))["rest"]["config"]["hash"] == facts[-1]["hash"]
        shown = await terminal(gateway, "events", "--kind", "config")
        assert "models[m].slo.latency_ms: 5000.0 -> 50.0 (API)" in shown


async def test_who_is_throttled_and_where_do_requests_go_instead(tmp_path: Path) -> None:
    async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
        gateway.function.refuse = 429
        reply = await gateway.infer(x_router_backend="serverless")
        assert (reply.status, reply.decision[0]) == (200, "pool")
        (found,) = await until_told(gateway, "throttled")
        assert (found["model"], found["facts"]["pause_s"] > 0) == ("m", True)
        shown = (await page(gateway))["models"]["m"]
        assert shown["serverless"]["breaker_open"] is True
        assert shown["recent"]["reasons"] == {"hint": 1, "spillover": 1}
        status = await terminal(gateway, "status")
        assert "! the function is not called for now" in status
        assert "throttled" in await terminal(gateway, "events", "--kind", "throttled")
        why = await terminal(gateway, "explain", "--model", "m", "--bytes", "2")
        assert "serverless" in why
        assert "breaker_open" in why
