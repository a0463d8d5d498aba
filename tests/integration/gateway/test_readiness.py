"""When a gateway says that it may be given traffic, and how long it holds what it was given."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from router.gateway.readiness import Readiness
from tests.fakes.upstreams import Gate, Upstream, ok
from tests.integration.harness import Harness


async def readiness(gateway: Harness) -> tuple[int, Any]:
    reply = await gateway.ask("GET", "/readyz")
    return reply.status, reply.json().get("missing")


async def test_a_model_whose_replicas_have_never_answered_is_waited_for(tmp_path):
    replica = Upstream(ok(), is_ready=False)
    async with Harness(tmp_path, warm=[replica]) as gateway:
        status, missing = await readiness(gateway)
        assert (status, len(missing)) == (503, 1)
        assert missing[0].startswith("model m has not answered yet")
        replica.is_ready = True
        await gateway.until(lambda: gateway.pool.ready == 1)
        assert await readiness(gateway) == (200, None)
        replica.is_ready = False
        await gateway.until(lambda: gateway.pool.ready == 0)
        assert await readiness(gateway) == (200, None), "no other gateway would do better"


async def test_a_function_can_start_when_it_is_called(tmp_path):
    replica = Upstream(ok(), is_ready=False)
    async with Harness(tmp_path, warm=[replica], function=ok()) as gateway:
        assert await readiness(gateway) == (200, None)


async def test_a_gateway_that_drains_says_so(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        await gateway.ask("POST", "/v1/drain")
        assert await readiness(gateway) == (503, ["the gateway drains"])


@pytest.mark.parametrize(
    ("is_missing", "expected"), [(True, ["the local function host does not listen"]), (False, [])]
)
async def test_the_function_host_is_waited_for(tmp_path, is_missing, expected):
    host = cast(Any, SimpleNamespace(is_missing=is_missing))
    async with Harness(tmp_path, function=ok()) as gateway:
        found = Readiness(gateway.gateway._runtime, host).missing(time.monotonic())
    assert found == expected


@pytest.mark.parametrize("place", ["pool", "function"])
async def test_who_names_no_deadline_is_held_for_the_longest_wait_and_told_when_to_come_back(
    tmp_path, place
):
    gate, queue = Gate(), {"queue": {"max_wait": "200ms"}}
    settings: dict[str, Any] = {
        "pool": {"concurrency": 1, **queue},
        "serverless": {"max_concurrency": 1, **queue},
    }
    sides: dict[str, Any] = {"warm": [gate]} if place == "pool" else {"function": gate}
    async with Harness(tmp_path, **sides, **settings) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        await gateway.until(lambda: gate.waiting == 1)
        began = time.monotonic()
        reply = await gateway.infer()
        took_s = time.monotonic() - began
        gate.opened.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert (reply.status, reply.headers["x-router-error"]) == (503, "queue_timeout")
    assert int(reply.headers["retry-after"]) >= 1
    assert 0.2 <= took_s < 2.0
