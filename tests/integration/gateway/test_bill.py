"""What tenants pay is the bill, to a thousandth, whatever their requests went through."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.upstreams import Answer, Behaviour, Received, ok
from tests.integration.gateway.test_hedging import SlowNowAndThen
from tests.integration.harness import INFER, Harness
from tests.integration.jobs.test_later import ended

TENANTS = ("a", "b", "c")
POOL = {"price_per_replica_hour": 36, "concurrency": 1}


def keys(folder: Path, **more: Any) -> dict[str, Any]:
    found = [
        {"name": name, "tenant": name, "sha256": hashlib.sha256(name.encode()).hexdigest()}
        for name in TENANTS
    ]
    (folder / "keys.yaml").write_text(yaml.safe_dump(found))
    return {"auth": {"api_keys_file": "keys.yaml"}, **more}


async def ask(gateway: Harness, number: int, **headers: str) -> int:
    tenant = TENANTS[number // 2 % 3]
    body = b"{}" + b" " * (number % 5)
    reply = await gateway.infer(body, authorization=f"Bearer {tenant}", **headers)
    return reply.status


async def spills(gateway: Harness) -> None:
    """Twelve at once on two slots: most go to the function."""
    answers = await asyncio.gather(*(ask(gateway, number) for number in range(12)))
    assert set(answers) == {200}


async def takes_turns(gateway: Harness) -> None:
    for number in range(30):
        assert await ask(gateway, number) == 200


async def leaves(gateway: Harness) -> None:
    """Clients that go away in the middle."""
    asked = [asyncio.create_task(ask(gateway, number)) for number in range(6)]
    await gateway.until(lambda: gateway.in_flight > 0)
    for each in asked[::2]:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def later(gateway: Harness) -> None:
    """Jobs, which run on what is paid already or on the function."""
    places = []
    for number in range(6):
        key = f"Bearer {TENANTS[number % 3]}"
        headers = {"prefer": "respond-async", "authorization": key}
        taken = await gateway.request("POST", INFER, b"{}", headers)
        assert taken.status == 202
        places.append((taken.headers["location"], key))
    async with asyncio.timeout(20):
        for place, key in places:
            assert (await ended(gateway, place, authorization=key))["status"] == "done"


async def slow(_: Received) -> Answer:
    await asyncio.sleep(0.02)
    return Answer()


def bill_of(gateway: Harness) -> tuple[float, float, dict[str, float]]:
    """By models, by tenants, and what each tenant pays."""
    values = gateway.gateway._metrics.snapshot().values
    paid: dict[str, float] = {}
    for (tenant, _), usd in values["router_tenant_cost_usd_total"]:
        paid[tenant] = paid.get(tenant, 0.0) + usd
    return sum(usd for _, usd in values["router_cost_usd_total"]), sum(paid.values()), paid


@pytest.mark.parametrize(
    ("does", "settings"),
    [
        (takes_turns, {}),
        (spills, {}),
        (takes_turns, {"model": {"hedge": {"percentile": 75, "budget": 0.3}}}),
        (leaves, {}),
        (later, {"config": {"jobs": {"directory": "jobs"}}}),
    ],
    ids=["one after the other", "spilled over", "hedged", "given up", "jobs"],
)  # fmt: skip
async def test_what_tenants_pay_is_the_bill(
    tmp_path: Path, does: Callable[[Harness], Awaitable[None]], settings: dict[str, Any]
) -> None:
    config = keys(tmp_path, **settings.get("config", {}))
    model = settings.get("model", {})
    warm: list[Behaviour] = [slow, SlowNowAndThen(7, 0.05)]
    async with Harness(
        tmp_path, warm=warm, function=ok(), pool=POOL, config=config, model=model
    ) as gateway:
        await does(gateway)
        await gateway.until(lambda: gateway.in_flight == 0)
        spent_before = bill_of(gateway)[0]
        # Until the sizing's next step has put on the bill what was used until now.
        await gateway.until(lambda: bill_of(gateway)[0] > spent_before)
        bill, paid, by_tenant = bill_of(gateway)
        assert paid == pytest.approx(bill, rel=1e-3)
        assert all(by_tenant[tenant] > 0 for tenant in TENANTS), by_tenant
        shown = (await gateway.ask("GET", "/v1/status")).json()["models"]
        told = sum(sum(each["cost_usd"].values()) for each in shown)
        assert told == pytest.approx(bill_of(gateway)[0], rel=1e-3)
        tenants = (await gateway.ask("GET", "/v1/tenants")).json()
        assert {"a", "b", "c"} <= tenants["cost_usd"].keys()
