"""A share of a model's traffic goes to another model or version, and comes back if that is bad."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from copy import deepcopy
from io import StringIO

import pytest
from rich.console import Console

from router.commands.admin_client import AdminPort
from router.commands.status_view import show_once
from tests.fakes.upstreams import Gate, Upstream, ok, running
from tests.integration.gateway.test_lifecycle import Traffic, reload
from tests.integration.harness import Harness

OLD, NEW = b'{"model_name":"m","outputs":[1]}', b'{"model_name":"m","outputs":[2]}'
ROLLBACK = {"min_requests": 10, "window": "60s"}


def with_canary(gateway, upstream=None, **canary):
    """The configuration with a rule for `m`, and perhaps the model `m-next` at that upstream."""
    config = deepcopy(gateway.config)
    if upstream is not None:
        pool = {**config["models"][0]["pool"], "urls": [upstream.url]}
        next_ = {"name": "m-next", "served_as": "m", "slo": {"latency_ms": 5000}, "pool": pool}
        config["models"].append(next_)
        canary = {"model": "m-next", **canary}
    rule = {"name": "canary", "match": {"model": "m"}, "route": "auto"}
    config["rules"] = [
        {**rule, "canary": {"share": 50, "rollback": ROLLBACK, **canary}},
        {"name": "default", "match": {}, "route": "auto"},
    ]
    return config


@asynccontextmanager
async def two_models(tmp_path, behave=None, server=None, **canary):
    """A gateway with a rule for `m`, and what `m-next` runs on."""
    async with (
        running(Upstream(behave or ok(NEW))) as upstream,
        Harness(tmp_path, warm=[ok(OLD)], server=server or {}) as gateway,
    ):
        assert (await reload(gateway, with_canary(gateway, upstream, **canary))).status == 200
        await gateway.until(lambda: runtime(gateway).models["m-next"].pool.ready == 1)
        yield gateway, upstream


def runtime(gateway):
    return gateway.gateway._runtime.current


async def canary_of(gateway):
    (found,) = (await gateway.ask("GET", "/v1/status")).json()["canaries"]
    return found


async def send(gateway, number, **headers):
    return [await gateway.infer(x_request_id=f"r-{n}", **headers) for n in range(number)]


@pytest.mark.parametrize("fast", [True, False], ids=["fast path on", "fast path off"])
async def test_a_share_goes_to_the_other_model(tmp_path, fast):
    async with two_models(tmp_path, server={"fast_path": fast}) as (gateway, upstream):
        replies = await send(gateway, 80)
        by_model = Counter((r.headers["x-router-model"], r.body) for r in replies)
        assert set(by_model) == {("m", OLD), ("m-next", NEW)}
        assert 20 < by_model["m-next", NEW] < 60
        assert {got.target for got in upstream.received} == {"/v2/models/m/infer"}
        again = await send(gateway, 80)
        assert [r.body for r in again] == [r.body for r in replies]


@pytest.mark.parametrize("fast", [True, False], ids=["fast path on", "fast path off"])
async def test_a_body_has_the_name_by_which_servers_know_the_model(tmp_path, fast):
    """OpenAI's paths name no model."""
    async with two_models(tmp_path, server={"fast_path": fast}, share=0) as (gateway, upstream):
        for _ in range(2):  # the second one finds an open connection
            await gateway.infer(b'{"model": "m-next", "n": 1e2}', "/v1/chat/completions")
    assert [got.body for got in upstream.received] == [b'{"model": "m", "n": 1e2}'] * 2


async def test_a_canary_is_asked_by_its_own_name_in_bodies_too(tmp_path):
    async with two_models(tmp_path, share=100) as (gateway, upstream):
        config = with_canary(gateway, upstream, share=100)
        del config["models"][1]["served_as"]
        assert (await reload(gateway, config)).status == 200
        reply = await gateway.infer(b'{"model": "m"}', "/v1/chat/completions")
    assert reply.headers["x-router-model"] == "m-next"
    assert [got.body for got in upstream.received] == [b'{"model": "m-next"}']


async def test_log_and_metrics_say_who_answered(tmp_path):
    async with two_models(tmp_path, share=100) as (gateway, _):
        await gateway.infer(x_request_id="mine")
        line = await gateway.logged("mine")
        assert (line["model"], line["asked_model"], line["rule"]) == ("m-next", "m", "default")
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        labels = 'model="m-next",outcome="ok"'
        assert f'router_requests_total{{backend="pool",{labels}}} 1.0' in metrics
        assert 'router_canary_share_ratio{model="m",rule="canary"} 1.0' in metrics


async def test_the_other_model_can_be_asked_for_by_its_name(tmp_path):
    for fast in (True, False):
        async with two_models(tmp_path, server={"fast_path": fast}) as (gateway, upstream):
            for _ in range(3):  # the third by the fast path
                reply = await gateway.infer(path="/v2/models/m-next/infer")
                assert reply.body == NEW
                assert "x-router-model" not in reply.headers
            await gateway.request("GET", "/v2/models/m-next/versions/3/stats")
            targets = [got.target for got in upstream.received]
            assert targets == ["/v2/models/m/infer"] * 3 + ["/v2/models/m/versions/3/stats"]


async def test_another_version_of_the_same_model(tmp_path):
    async with Harness(tmp_path, warm=[ok(OLD)]) as gateway:
        await reload(gateway, with_canary(gateway, version="2"))
        replies = await send(gateway, 60)
        versions = Counter(r.headers.get("x-router-model-version") for r in replies)
        assert set(versions) == {None, "2"}
        received = gateway.warm[0].received
        targets = Counter(got.target for got in received if got.method == "POST")
        assert targets == {
            "/v2/models/m/infer": versions[None],
            "/v2/models/m/versions/2/infer": versions["2"],
        }


async def test_a_client_that_names_a_version_gets_it(tmp_path):
    async with two_models(tmp_path, share=100) as (gateway, upstream):
        reply = await gateway.infer(path="/v2/models/m/versions/1/infer")
        assert (reply.body, upstream.received) == (OLD, [])


async def test_a_header_keeps_its_side(tmp_path):
    async with two_models(tmp_path, sticky="header:x-user") as (gateway, _):
        sides = {}
        for user in "abcdefghijkl":
            replies = await send(gateway, 4, x_user=user)
            assert len({r.body for r in replies}) == 1
            sides[user] = replies[0].body
        assert set(sides.values()) == {OLD, NEW}


async def test_a_failing_canary_is_rolled_back(tmp_path, caplog):
    async with two_models(tmp_path, ok(status=500)) as (gateway, _):
        await send(gateway, 200)
        found = await canary_of(gateway)
        assert (found["state"], found["share_percent"]) == ("rolled_back", 0)
        assert (found["fault"], found["rollbacks"]) == ("errors", 1)
        assert found["window"]["canary"] == {"requests": 10, "failed": 10, "p95_ms": None}
        replies = [await gateway.infer() for _ in range(40)]
        assert {(r.status, r.headers["x-router-model"]) for r in replies} == {(200, "m")}
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert 'router_canary_share_ratio{model="m",rule="canary"} 0.0' in metrics
        assert 'router_canary_rollbacks_total{model="m",rule="canary"} 1.0' in metrics
        sample = '{model="m",result="failed",rule="canary",side="canary"} 10.0'
        assert f"router_canary_requests_total{sample}" in metrics
    (event,) = [r for r in caplog.records if "rolled back" in r.message]
    assert "100.0% of 10 requests failed" in event.message


async def test_it_stays_out_until_it_is_resumed_or_changed(tmp_path):
    async with two_models(tmp_path, ok(status=500)) as (gateway, upstream):
        await send(gateway, 200)
        same = with_canary(gateway, upstream)
        same["models"][0]["attempts"] = 2
        await reload(gateway, same)
        assert (await canary_of(gateway))["state"] == "rolled_back"

        upstream.behave = ok(NEW)
        question = {"rule": "canary", "action": "resume"}
        assert (await gateway.ask("POST", "/v1/canary", question)).json()["state"] == "running"
        assert {r.body for r in await send(gateway, 40)} == {OLD, NEW}

        question["action"] = "roll_back"
        assert (await gateway.ask("POST", "/v1/canary", question)).json()["fault"] == "asked"
        assert {r.body for r in await send(gateway, 40)} == {OLD}

        await reload(gateway, with_canary(gateway, upstream, share=60))
        assert {r.body for r in await send(gateway, 40)} == {OLD, NEW}


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ({"rule": "default", "action": "resume"}, 404),
        ({"rule": "canary", "action": "promote"}, 400),
        ({"rule": "canary"}, 400),
        ({"rule": "canary", "action": "resume", "share": 5}, 400),
    ],
    ids=["a rule without canary", "an unknown action", "no action", "an unknown key"],
)
async def test_questions_that_are_refused(tmp_path, question, status):
    async with two_models(tmp_path) as (gateway, _):
        reply = await gateway.ask("POST", "/v1/canary", question)
        assert reply.status == status
        assert reply.json()["error"]


async def test_a_canary_without_capacity_counts_as_failed(tmp_path):
    async with two_models(tmp_path) as (gateway, upstream):
        upstream.is_ready = False
        await gateway.until(lambda: runtime(gateway).models["m-next"].pool.ready == 0)
        config = with_canary(gateway, upstream)
        config["models"][1]["pool"]["queue"] = {"max_wait": "10ms"}
        await reload(gateway, config)
        replies = await send(gateway, 100)
        assert (await canary_of(gateway))["state"] == "rolled_back"
        assert Counter(r.status for r in replies)[503] == 10


async def test_a_client_that_leaves_says_nothing_about_the_canary(tmp_path):
    gate = Gate()
    async with two_models(tmp_path, gate, share=100) as (gateway, _):
        for _ in range(12):
            leaving = asyncio.create_task(gateway.infer())
            await gateway.until(lambda: gate.waiting == 1)
            leaving.cancel()
            await gateway.until(lambda: gate.waiting == 0 and gateway.in_flight == 0)
        found = await canary_of(gateway)
        assert (found["state"], found["window"]["canary"]["requests"]) == ("running", 0)


async def test_explain_names_the_side(tmp_path):
    async with two_models(tmp_path, share=100) as (gateway, _):
        answer = (
            await gateway.ask("POST", "/v1/explain", {"model": "m", "payload_bytes": 9})
        ).json()
        assert answer["model"] == "m-next"
        assert answer["trace"][0]["stage"] == "canary"
        assert answer["trace"][0]["verdict"].endswith("this one is canary")


async def test_blue_becomes_green_without_a_failed_request(tmp_path):
    async with two_models(tmp_path, share=0) as (gateway, upstream):
        traffic = Traffic(gateway)
        await traffic.more()
        assert {r.body for r in traffic.replies} == {OLD}
        await reload(gateway, with_canary(gateway, upstream, share=100))
        await traffic.more(40)
        assert {r.body for r in traffic.replies[-20:]} == {NEW}
        await reload(gateway, with_canary(gateway, upstream, share=0))
        await traffic.more(40)
        assert {r.body for r in traffic.replies[-20:]} == {OLD}
        assert set(await traffic.stop()) == {200}


async def test_a_rule_moves_everything_to_the_other_backend_without_a_failed_request(tmp_path):
    async with Harness(tmp_path, warm=[ok(OLD)], function=ok(NEW)) as gateway:
        config = gateway.changed()
        traffic = Traffic(gateway)
        for route, body in (("serverless", NEW), ("pool", OLD), ("serverless", NEW)):
            config["rules"] = [{"name": "all", "match": {}, "route": route}]
            assert (await reload(gateway, config)).status == 200
            await traffic.more(40)
            assert {r.body for r in traffic.replies[-20:]} == {body}
        assert set(await traffic.stop()) == {200}


async def test_the_status_table_tells_of_a_canary(tmp_path):
    async with two_models(tmp_path) as (gateway, _):
        console = Console(file=StringIO(), width=200)
        await show_once(AdminPort(gateway.admin), console)
        await gateway.ask("POST", "/v1/canary", {"rule": "canary", "action": "roll_back"})
        await show_once(AdminPort(gateway.admin), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    told = [line.strip() for line in lines if line.startswith("canary ")]
    assert told == [
        "canary canary of m gets 50 %",
        "canary canary of m ROLLED BACK: asked for by the admin port",
    ]
