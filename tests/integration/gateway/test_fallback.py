"""A model that cannot be served, and the one that stands in for it, through real sockets."""

import asyncio
import hashlib
import json

import pytest
import yaml

from tests.fakes.upstreams import Gate, Upstream, hangs_up, ok, running
from tests.integration.harness import Harness

SPARE = b'{"model_name": "spare", "outputs": []}'


@pytest.fixture
async def spare():
    """What stands behind model `spare`."""
    upstream = Upstream(ok(SPARE))
    async with running(upstream):
        yield upstream


async def with_chain(gateway, spare, **model) -> None:
    """Put models `m` and `spare` in force, `m` falling back on the other one."""
    config = gateway.changed(fallback=["spare"], attempts=1, **model)
    pool = {"kind": "static", "urls": [spare.url], "health": {"interval": "50ms"}}
    config["models"].append({"name": "spare", "slo": {"latency_ms": 5000}, "pool": pool})
    await gateway.write(config)
    assert (await gateway.ask("POST", "/v1/reload")).status == 200
    models = gateway.gateway._runtime.current.models
    await gateway.until(lambda: models["spare"].pool.ready == 1)


@pytest.fixture
async def gateway(tmp_path, spare):
    async with Harness(tmp_path, warm=[hangs_up()]) as gateway:
        await with_chain(gateway, spare)
        yield gateway


async def test_the_next_model_answers_when_all_attempts_have_failed(gateway, spare):
    reply = await gateway.infer(x_request_id="r")
    line = await gateway.logged("r")
    metrics = (await gateway.ask("GET", "/metrics")).body.decode()
    assert (reply.status, reply.body) == (200, SPARE)
    assert reply.decision == ("pool", "fallback")
    assert reply.headers["x-router-model"] == "spare"
    assert reply.headers["x-router-attempts"] == "2"
    assert [got.target for got in spare.received] == ["/v2/models/spare/infer"]
    assert (line["model"], line["asked_model"], line["reason"]) == ("spare", "m", "fallback")
    assert 'router_passed_on_total{model="m"} 1.0' in metrics
    assert 'router_decisions_total{backend="pool",model="spare",reason="fallback"} 1.0' in metrics


@pytest.mark.parametrize(
    ("path", "body", "asked", "got"),
    [
        ("/v2/models/m/versions/3/infer", b"{}", "/v2/models/spare/infer", b"{}"),
        ("/v1/models/m:predict", b"{}", "/v1/models/spare:predict", b"{}"),
        (
            "/v1/chat/completions",
            b'{"model": "m", "n": 1e2, "stream": false}',
            "/v1/chat/completions",
            b'{"model": "spare", "n": 1e2, "stream": false}',
        ),
    ],
    ids=["OIP with a version", "KServe v1", "OpenAI"],
)
async def test_the_next_model_is_asked_by_its_own_name(gateway, spare, path, body, asked, got):
    reply = await gateway.infer(body, path)
    assert (reply.status, reply.headers["x-router-model"]) == (200, "spare")
    assert [(one.target, one.body) for one in spare.received] == [(asked, got)]


async def test_a_model_that_can_be_served_is(gateway, spare):
    gateway.warm[0].behave = ok()
    reply = await gateway.infer()
    assert reply.status == 200
    assert "x-router-model" not in reply.headers
    assert spare.received == []


async def test_questions_about_a_model_are_not_passed_on(gateway, spare):
    reply = await gateway.request("GET", "/v2/models/m")
    assert (reply.status, spare.received) == (502, [])


async def test_a_model_without_a_replica_is_stood_in_for(tmp_path, spare):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        await with_chain(gateway, spare, pool={"queue": {"max_requests": 0}})
        gateway.warm[0].is_ready = False
        await gateway.until(lambda: gateway.pool.ready == 0)
        reply = await gateway.infer()
        question = {"model": "m", "payload_bytes": 10}
        told = (await gateway.ask("POST", "/v1/explain", question)).json()
    assert (reply.status, reply.headers["x-router-model"]) == (200, "spare")
    assert reply.headers["x-router-attempts"] == "1"
    steps = {(step["stage"], step["subject"]) for step in told["trace"]}
    assert {("fallback", "spare"), ("choice", "none")} <= steps
    assert (told["model"], told["reason"], told["error"]) == ("spare", "fallback", None)


async def test_replicas_that_failed_are_not_waited_for(tmp_path, spare):
    """There is a queue, of half a minute; another model answers at once."""
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        await with_chain(gateway, spare)
        gateway.warm[0].is_ready = False
        await gateway.until(lambda: gateway.pool.ready == 0)
        async with asyncio.timeout(5):
            reply = await gateway.infer()
        question = {"model": "m", "payload_bytes": 10}
        told = (await gateway.ask("POST", "/v1/explain", question)).json()
    assert (reply.status, reply.headers["x-router-model"]) == (200, "spare")
    assert (told["model"], told["reason"], told["held"]) == ("spare", "fallback", False)


async def test_a_long_body_that_a_function_got_whole_is_passed_on(tmp_path, spare):
    async with Harness(tmp_path, warm=[ok()], function=hangs_up()) as gateway:
        await with_chain(gateway, spare)
        reply = await gateway.infer(b"x" * 100_000, x_router_backend="serverless")
    assert (reply.status, reply.headers["x-router-model"]) == (200, "spare")
    assert spare.received[0].body == b"x" * 100_000


async def test_a_model_that_sheds_is_stood_in_for(tmp_path, spare):
    gate = Gate()
    async with Harness(tmp_path, warm=[gate], pool={"concurrency": 1}) as gateway:
        await with_chain(gateway, spare, pool={"queue": {"max_requests": 0}})
        first = asyncio.create_task(gateway.infer())
        await gateway.until(lambda: gate.waiting == 1)
        reply = await gateway.infer()
        gate.opened.set()
        assert (await first).status == 200
    assert (reply.status, reply.headers["x-router-model"]) == (200, "spare")


async def test_the_last_one_says_why_nobody_could(gateway, spare):
    spare.behave = hangs_up()
    reply = await gateway.infer()
    assert (reply.status, reply.headers["x-router-model"]) == (502, "spare")
    assert "error" in reply.json()


async def test_what_must_not_run_twice_is_not_passed_on(tmp_path, spare):
    async with Harness(tmp_path, warm=[hangs_up()]) as gateway:
        await with_chain(gateway, spare, idempotent=False)
        reply = await gateway.infer()
    assert (reply.status, spare.received) == (502, [])


@pytest.mark.parametrize(
    ("models", "status"), [(["m"], 502), (["m", "spare"], 200)], ids=["not allowed", "allowed"]
)
async def test_only_models_that_the_key_may_use_stand_in(tmp_path, spare, models, status):
    digest = hashlib.sha256(b"key").hexdigest()
    keys = [{"name": "n", "sha256": digest, "tenant": "t", "models": models}]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    config = {"auth": {"api_keys_file": "keys.yaml"}}
    async with Harness(tmp_path, warm=[hangs_up()], config=config) as gateway:
        await with_chain(gateway, spare)
        reply = await gateway.infer(x_api_key="key")
    assert (reply.status, len(spare.received)) == (status, int(status == 200))


async def test_a_long_body_is_passed_on_while_nothing_of_it_has_been(tmp_path, spare):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        await with_chain(gateway, spare, pool={"queue": {"max_requests": 0}})
        gateway.warm[0].is_ready = False
        await gateway.until(lambda: gateway.pool.ready == 0)
        body = json.dumps({"data": "x" * 300_000}).encode()
        reply = await gateway.infer(body)
    assert (reply.status, reply.headers.get("x-router-model")) == (200, "spare"), reply
    assert spare.received[0].body == body
