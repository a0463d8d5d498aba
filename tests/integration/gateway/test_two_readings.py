"""Bodies that servers may read in two ways, and those that take long to read: nobody else suffers.

What a part of a body costs is measured in the CPU time of the loop's thread, which the load of the
machine does not change.
"""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fakes.upstreams import Received, ok
from tests.integration.harness import Harness

CHAT = "/v1/chat/completions"
BODY_BYTES = 50_000_000
STALL_S = 0.005
NESTED = b"[" * 2000 + b"]" * 2000


@pytest.fixture(params=[True, False], ids=["fast path", "ordinary path"])
async def gateway(tmp_path, request):
    server = {"fast_path": request.param}
    async with Harness(tmp_path, warm=[ok()], server=server) as gateway:
        assert (await gateway.infer(b'{"model":"m"}', CHAT)).status == 200
        gateway.warm[0].received.clear()
        yield gateway


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","Model":"secret"}',
        b'{"model":"m","model":"secret"}',
        rb'{"model":"m","mod\u0065l":"secret"}',
        rb'{"model":"m","MOD\u0065L":"secret"}',
        b'{"model":"m","stream":false,"Stream":true}',
        b'{"model":"m","x":' + NESTED + b"}",
    ],
    ids=["another case", "twice", "an escape", "both", "stream", "nested"],
)
async def test_a_body_that_could_be_read_in_two_ways_goes_nowhere(gateway, body):
    for _ in range(2):
        reply = await gateway.infer(body, CHAT)
        assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_request")
    assert gateway.warm[0].received == []


@pytest.mark.parametrize(
    "headers",
    [{"content-encoding": "gzip"}, {"content-type": "application/json; charset=utf-7"}],
    ids=["compressed", "in UTF-7"],
)
async def test_a_body_that_only_a_server_would_understand_is_refused(gateway, headers):
    body = gzip.compress(b'{"model":"m"}') if "content-encoding" in headers else b'{"model":"m"}'
    reply = await gateway.request("POST", CHAT, body, headers)
    assert (reply.status, reply.json()["error"]["code"]) == (415, "unsupported_media")
    assert gateway.warm[0].received == []


async def test_nested_parameters_are_refused(tmp_path):
    async with Harness(tmp_path, warm=[ok()], model={"read_parameters": True}) as gateway:
        reply = await gateway.infer(b'{"parameters":{"x":' + NESTED + b"}}")
        assert reply.status == 400
        assert "nested" in reply.json()["error"]


@asynccontextmanager
async def watched() -> AsyncIterator[list[float]]:
    """The CPU seconds that each of the loop's turns takes meanwhile."""
    turns: list[float] = []

    async def watch() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            turns.append(time.thread_time() - began)

    watching = asyncio.create_task(watch())
    try:
        yield turns
    finally:
        watching.cancel()


async def post(gateway: Harness, path: str, body: bytes, *lines: str) -> bytes:
    """Send as a client of another process would: nothing of it costs the loop a long turn."""
    reader, writer = await gateway.connect()
    head = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *lines, "", ""]
    writer.write("\r\n".join(head).encode())
    view = memoryview(body)
    for start in range(0, len(body), 64 * 1024):
        writer.write(view[start : start + 64 * 1024])
        await writer.drain()
    status = await reader.readline()
    writer.transport.abort()
    return status


async def test_a_long_body_stalls_nobody(tmp_path):
    text = json.dumps({"messages": [{"role": "user", "content": "x" * 90}] * 100}).encode()
    body = b'{"a":[' + text + (b"," + text) * (BODY_BYTES // len(text)) + b'],"model":"other"}'
    async with Harness(tmp_path, warm=[ok()], server={"max_body": "64MiB"}) as gateway:
        async with watched() as turns:
            assert b" 404 " in await post(gateway, CHAT, body)
        *others, longest = sorted(turns)
        assert others[-1] < STALL_S
        assert longest < 3 * STALL_S, "in one of them the system takes the 50 MB back at once"


async def test_a_bomb_stalls_nobody(tmp_path):
    bomb = gzip.compress(b'{"x":[' + b"0," * 8_000_000 + b"0]}")
    assert len(bomb) < 17_000
    async with Harness(tmp_path, warm=[ok()], model={"read_parameters": True}) as gateway:
        async with watched() as turns:
            line = "content-encoding: gzip"
            assert b" 400 " in await post(gateway, "/v2/models/m/infer", bomb, line)
        assert max(turns) < STALL_S


async def test_a_long_body_is_renamed_in_its_place(tmp_path):
    seen: list[Received] = []

    async def keeps(received: Received):
        seen.append(received)
        return await ok()(received)

    body = b'{"a":"%b","model": "m","b":"%b" }' % (b"x" * 400_000, b"y" * 400_000)
    async with Harness(tmp_path, warm=[keeps], model={"served_as": "n"}) as gateway:
        assert (await gateway.infer(body, CHAT)).status == 200
    assert seen[-1].body == body.replace(b'"m"', b'"n"')
