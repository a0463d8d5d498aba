import asyncio
import json
from typing import Any

import pytest

from tests.fakes.upstreams import Gate, ok
from tests.integration.harness import Harness


@pytest.fixture
async def gateway(tmp_path):
    rule = {"name": "large", "match": {"payload": ">1MiB"}, "route": "pool"}
    async with Harness(tmp_path, warm=[ok()], function=ok(), config={"rules": [rule]}) as gateway:
        yield gateway


async def explain(gateway, **question) -> Any:
    return await gateway.ask("POST", "/v1/explain", {"model": "m", "payload_bytes": 10, **question})


class TestExplain:
    async def test_it_tells_what_would_happen_and_why(self, gateway):
        document = (await explain(gateway)).json()
        assert (document["backend"], document["reason"]) == ("pool", "warm_capacity")
        assert document["rule"] == "implicit-default"
        assert document["error"] is None
        stages = [step["stage"] for step in document["trace"]]
        assert stages[0] == "rule"
        assert stages[-1] == "choice"
        assert {"feasible", "predict"} <= set(stages)

    async def test_it_answers_as_a_real_request_would_be(self, gateway):
        document = (await explain(gateway, payload_bytes=2 << 20)).json()
        reply = await gateway.infer(b"x" * (2 << 20))
        assert (document["backend"], document["reason"]) == reply.decision == ("pool", "rule")
        assert document["rule"] == "large"

    async def test_headers_and_deadline_are_part_of_the_question(self, gateway):
        document = (await explain(gateway, deadline_ms=5)).json()
        assert document["reason"] == "deadline"
        assert "5 ms left" in json.dumps(document["trace"])

    async def test_headers_mean_what_they_mean_on_the_data_port(self, gateway):
        timed = await explain(gateway, headers={"x-router-deadline-ms": "7"})
        assert "7 ms left" in timed.body.decode()
        refused = await explain(gateway, headers={"content-encoding": "br"})
        assert (refused.status, "br" in refused.json()["error"]) == (415, True)

    async def test_a_hint_is_followed_as_it_would_be(self, gateway):
        document = (await explain(gateway, headers={"X-Router-Backend": "serverless"})).json()
        assert (document["backend"], document["reason"]) == ("serverless", "hint")

    async def test_a_refusal_is_an_answer_too(self, gateway):
        config = gateway.changed()
        del config["models"][0]["pool"]
        await gateway.write(config)
        await gateway.ask("POST", "/v1/reload")
        document = (await explain(gateway, payload_bytes=10**8)).json()
        assert document["backend"] is None
        assert "6291556" in document["error"]

    async def test_it_reserves_and_counts_nothing(self, gateway):
        await explain(gateway)
        assert gateway.pool.in_flight == 0
        assert gateway.gateway._parts.book.totals()["m"].arrivals == 0
        assert (await gateway.status())["split"] == {"serverless": 0, "pool": 0}

    @pytest.mark.parametrize(
        ("question", "status", "told"),
        [
            ({"model": "x"}, 404, "'x'"),
            ({"payload_bytes": "many"}, 400, "payload_bytes"),
            ({"bytes": 5}, 400, "bytes"),
        ],
        ids=["unknown model", "a wrong type", "an unknown field"],
    )
    async def test_wrong_questions(self, gateway, question, status, told):
        reply = await explain(gateway, **question)
        assert reply.status == status
        assert told in reply.json()["error"]


async def test_status_shows_the_model_as_it_is(gateway):
    for backend in ("pool", "pool", "serverless"):
        await gateway.infer(x_router_backend=backend)
    await gateway.until(lambda: gateway.pool.wanted == 1)
    document = (await gateway.ask("GET", "/v1/status")).json()
    (model,) = document["models"]
    assert model["name"] == "m"
    assert (model["replicas_ready"], model["replicas_wanted"], model["replicas_billed"]) == (
        1,
        1,
        1,
    )
    (endpoint,) = model["endpoints"]
    assert (endpoint["state"], endpoint["in_flight"], endpoint["capacity"]) == ("ready", 0, 4)
    assert endpoint["address"].startswith("http://127.0.0.1:"), "whoever is here may know"
    assert model["startup_s"] is None, "its replica was there from the beginning"
    assert model["split"] == {"pool": 2, "serverless": 1}
    assert model["reasons"] == {"hint": 3}
    assert model["cost_usd"]["serverless"] > 0
    assert document["shared_state"]["mode"] == "in_process"
    assert document["config"]["last_error"] is None
    assert len(document["config"]["hash"]) == 64


async def test_the_configuration_is_shown_with_secrets_masked(tmp_path):
    url = "redis://:hunter2@127.0.0.1:1/0"
    async with Harness(
        tmp_path, warm=[ok()], config={"shared_state": {"redis_url": url}}
    ) as gateway:
        reply = await gateway.ask("GET", "/v1/config")
        served = await gateway.infer()
    assert "hunter2" not in reply.body.decode()
    assert reply.json()["shared_state"]["redis_url"].startswith("redis://")
    assert reply.json()["models"][0]["name"] == "m"
    assert served.status == 200, "a Redis that is not there holds nobody up"


async def test_metrics_tell_of_requests_and_decisions(gateway):
    await gateway.infer()
    await gateway.request("POST", "/v2/models/made-up/infer", b"{}")
    text = (await gateway.ask("GET", "/metrics")).body.decode()
    assert 'router_requests_total{backend="pool",model="m",outcome="ok"} 1.0' in text
    assert 'router_decisions_total{backend="pool",model="m",reason="warm_capacity"} 1.0' in text
    assert 'router_replicas_ready{model="m"} 1.0' in text
    assert "made-up" not in text, "clients cannot make series"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/nothing", 404),
        ("GET", "/v1/reload", 405),
        ("POST", "/v1/status", 405),
    ],
)
async def test_paths(gateway, method, path, status):
    reply = await gateway.ask(method, path)
    assert reply.status == status
    assert isinstance(reply.json(), dict)


async def test_the_two_ports_do_not_answer_for_each_other(gateway):
    assert (await gateway.request("GET", "/metrics")).status == 404
    assert (await gateway.ask("GET", "/v2")).status == 404


class TestDrainOfOneEndpoint:
    async def drain(self, gateway, endpoint, **more) -> Any:
        question = {"model": "m", "endpoint": endpoint, **more}
        return await gateway.ask("POST", "/v1/drain", question)

    async def test_nothing_new_goes_there_and_what_is_in_flight_ends(self, tmp_path):
        gate = Gate()
        async with Harness(tmp_path, warm=[gate, ok()]) as gateway:
            held = [asyncio.create_task(gateway.infer()) for _ in range(4)]
            await gateway.until(lambda: gate.waiting > 0)
            busy = next(e for e in (await gateway.status())["endpoints"] if e["in_flight"])
            waiting = busy["in_flight"]
            reply = await self.drain(gateway, busy["id"])
            used = {(await gateway.infer()).headers["x-router-endpoint"] for _ in range(8)}
            (shown,) = [e for e in (await gateway.status())["endpoints"] if e["id"] == busy["id"]]
            gate.opened.set()
            assert [(await task).status for task in held] == [200] * 4
            await gateway.until(lambda: gateway.pool.in_flight == 0)
        assert reply.json() == {
            "model": "m", "endpoint": busy["id"], "draining": True, "in_flight": waiting,
        }  # fmt: skip
        assert busy["id"] not in used
        assert (shown["state"], shown["in_flight"]) == ("draining", waiting)

    async def test_it_can_be_taken_back_and_serves_those_who_wait(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            (endpoint,) = gateway.pool.endpoints
            await self.drain(gateway, endpoint)
            held = asyncio.create_task(gateway.infer())
            await gateway.until(lambda: len(gateway.pool.queue) == 1)
            await self.drain(gateway, endpoint, draining=False)
            assert (await held).status == 200
            assert (await gateway.status())["endpoints"][0]["state"] == "ready"

    async def test_a_reload_does_not_take_it_back(self, tmp_path):
        async with Harness(tmp_path, warm=[ok(), ok()]) as gateway:
            first, _ = gateway.pool.endpoints
            await self.drain(gateway, first)
            await gateway.write(gateway.changed(slo={"latency_ms": 1000}))
            await gateway.ask("POST", "/v1/reload")
            states = {e["id"]: e["state"] for e in (await gateway.status())["endpoints"]}
        assert states[first] == "draining"

    @pytest.mark.parametrize(
        ("question", "status", "told"),
        [
            ({"model": "x", "endpoint": "e"}, 404, "'x'"),
            ({"model": "m", "endpoint": "nobody"}, 404, "nobody"),
            ({"model": "m"}, 400, "endpoint"),
            ({"model": "m", "endpoint": "e", "undo": True}, 400, "undo"),
        ],
        ids=["unknown model", "unknown endpoint", "half a question", "an unknown field"],
    )
    async def test_wrong_questions_drain_nothing(self, gateway, question, status, told):
        reply = await gateway.ask("POST", "/v1/drain", question)
        assert (reply.status, told in reply.json()["error"]) == (status, True)
        assert (await gateway.ask("GET", "/readyz")).status == 200
        assert gateway.pool.ready == 1
