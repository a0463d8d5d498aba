"""Pools whose replicas somebody else runs, behind a whole gateway."""

import asyncio
import json

import pytest

from tests.fakes.upstreams import Received, Upstream, ok, running
from tests.integration.harness import Harness


@pytest.fixture
async def receiver():
    """A scale hook."""
    async with running(Upstream(ok())) as receiver:
        yield receiver


async def until_told(receiver: Upstream, replicas: int) -> Received:
    async with asyncio.timeout(10):
        while True:
            for post in receiver.received:
                if json.loads(post.body)["replicas"] == replicas:
                    return post
            await asyncio.sleep(0.01)


async def test_a_name_is_as_good_as_an_address(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        url = gateway.warm[0].url.replace("127.0.0.1", "localhost")
        await gateway.write(gateway.changed(pool={"urls": [url], "resolve": "50ms"}))
        assert (await gateway.ask("POST", "/v1/reload")).status == 200
        await gateway.until(lambda: gateway.pool.ready == 1)
        reply = await gateway.infer()
        (received,) = (got for got in gateway.warm[0].received if got.method == "POST")
    assert reply.status == 200
    assert received.headers["host"] == url.removeprefix("http://"), "it is called by its name"


async def test_the_hook_is_told_what_sizing_wants(tmp_path, receiver):
    secret = tmp_path / "secret"
    await asyncio.to_thread(secret.write_text, "s3cret")
    scale = {"url": f"{receiver.url}/replicas", "secret_file": str(secret)}
    pool = {"scale": scale, "min_replicas": 2, "max_replicas": 3}
    async with Harness(tmp_path, warm=[ok()], pool=pool) as gateway:
        post = await until_told(receiver, 2)
        status = await gateway.status()
    assert json.loads(post.body) == {"model": "m", "replicas": 2}
    assert (post.target, post.headers["authorization"]) == ("/replicas", "Bearer s3cret")
    assert (status["replicas_wanted"], status["replicas_ready"]) == (2, 1)


async def test_a_hook_that_is_gone_holds_nothing_up(tmp_path):
    pool = {"scale": {"url": "http://127.0.0.1:1"}, "min_replicas": 2, "max_replicas": 3}
    async with Harness(tmp_path, warm=[ok()], pool=pool) as gateway:
        replies = [await gateway.infer() for _ in range(5)]
    assert {reply.status for reply in replies} == {200}
