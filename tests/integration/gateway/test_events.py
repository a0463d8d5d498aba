"""What the admin port tells of things that happened to a gateway."""

import pytest

from tests.fakes.upstreams import ok
from tests.integration.harness import Harness


async def events(gateway: Harness, query: str = "") -> list[str]:
    document = (await gateway.ask("GET", f"/v1/events{query}")).json()
    return [f"{event['kind']}: {event['text']}" for event in document["events"]]


async def test_a_reload_tells_what_changed_and_who_asked(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        assert {kind.partition(":")[0] for kind in await events(gateway)} == {"sizing", "replica"}
        last = (await gateway.ask("GET", "/v1/events")).json()["last"]
        await gateway.write(gateway.changed(slo={"latency_ms": 77}))
        await gateway.ask("POST", "/v1/reload")
        found = await events(gateway, f"?after={last}")
        assert found[0].startswith(
            "config: configuration: models[m].slo.latency_ms: 5000.0 -> 77.0"
        )
        assert await events(gateway, f"?after={last}&kind=sizing") == []
        assert await events(gateway, "?text=latency_MS") == found[:1]

        await gateway.write("models: [")
        assert (await gateway.ask("POST", "/v1/reload")).status == 422
        refused = (await events(gateway))[-1]
        assert "not valid and was not taken up" in refused


@pytest.mark.parametrize(
    "query", ["?limit=0", "?limit=10001", "?after=x", "?kind=nothing", "?unknown=1"]
)
async def test_a_question_that_makes_no_sense_is_refused(tmp_path, query):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reply = await gateway.ask("GET", f"/v1/events{query}")
    assert reply.status == 400
    assert "error" in reply.json()


async def test_the_status_tells_how_each_replica_does_and_where_it_is(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        for _ in range(3):
            await gateway.infer()
        (endpoint,) = (await gateway.status())["endpoints"]
        assert endpoint["address"] == gateway.warm[0].url
        assert 0 < endpoint["p50_ms"] <= endpoint["p99_ms"]
        assert (endpoint["good_answers"], endpoint["errors"], endpoint["set_aside"]) == (3, 0, 0)


async def test_who_may_be_anybody_gets_no_addresses(tmp_path):
    async with Harness(tmp_path, warm=[ok()], server={"admin_listen": "0.0.0.0:0"}) as gateway:
        gateway.admin = gateway.admin.replace("0.0.0.0", "127.0.0.1")
        (endpoint,) = (await gateway.status())["endpoints"]
    assert endpoint["address"] is None
