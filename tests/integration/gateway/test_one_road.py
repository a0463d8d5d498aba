"""However a request comes, it has one life: counted once, answered once, its connection kept."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.fakes.upstreams import hangs_up, ok
from tests.integration.gateway.test_shortcuts import Roads, with_key
from tests.integration.harness import INFER, Harness

LONG = json.dumps({"x": "y" * 100_000}).encode()
SMALL = b'{"inputs": []}'


def post(body: bytes, *lines: str, version: str = "1.1") -> bytes:
    every = [f"POST {INFER} HTTP/{version}", "host: x", *lines, f"content-length: {len(body)}"]
    return ("\r\n".join(every) + "\r\n\r\n").encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(10):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split()[1]), headers, body


async def test_a_long_body_that_is_sent_again_is_still_the_same_request(tmp_path: Path):
    """Its caller's rate is taken once, and log and headers know of both attempts."""
    async with with_key(tmp_path, rate_per_s=0.001, burst=4) as gateway:
        for _ in range(2):
            assert (await gateway.infer(LONG, x_api_key="key")).status == 200
        answers = iter([hangs_up(), ok()])

        async def behave(received):
            return await next(answers)(received)

        gateway.warm[0].behave = behave
        reply = await gateway.infer(LONG, x_api_key="key", x_request_id="again")
        line = await gateway.logged("again")
        gateway.warm[0].behave = ok()
        last = await gateway.infer(LONG, x_api_key="key")
        over = await gateway.infer(LONG, x_api_key="key")
    assert (reply.status, reply.headers["x-router-attempts"]) == (200, str(line["attempts"]))
    assert line["payload_bytes"] == len(LONG)
    assert (last.status, over.status) == (200, 429)


async def test_what_is_pipelined_takes_the_shortcut_too(tmp_path, monkeypatch):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reader, writer = await gateway.connect()
        writer.write(post(SMALL))
        await answer(reader)
        roads = Roads(gateway, monkeypatch)
        writer.write(post(SMALL) * 10)
        assert [(await answer(reader))[0] for _ in range(10)] == [200] * 10
        writer.close()
    assert roads.taken == {"pool": 10}


async def test_a_head_that_came_without_its_body_is_known_the_next_time(tmp_path, monkeypatch):
    """As python's own client sends it: in two segments."""
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reader, writer = await gateway.connect()
        roads = Roads(gateway, monkeypatch)
        size = len(SMALL)
        for _ in range(3):
            data = post(SMALL)
            writer.write(data[:-size])
            await gateway.until(lambda: gateway.gateway._data.bodies.held_bytes > 0)
            writer.write(data[-size:])
            assert (await answer(reader))[0] == 200
        writer.close()
    assert roads.taken == {"pool": 3}


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_client_of_http_1_0_is_told_whether_its_connection_goes_on(tmp_path, is_kept):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reader, writer = await gateway.connect()
        lines = ["connection: keep-alive"] if is_kept else []
        for _ in range(2 if is_kept else 1):
            writer.write(post(SMALL, *lines, version="1.0"))
            status, headers, _ = await answer(reader)
            assert (status, headers["connection"]) == (200, "keep-alive" if is_kept else "close")
        if not is_kept:
            assert await reader.read() == b""
        writer.close()


async def test_a_head_request_has_the_length_and_no_body(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reader, writer = await gateway.connect()
        for path in ("/v2", "/v2/models/m", "/nowhere"):
            for method in ("HEAD", "GET"):
                writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            async with asyncio.timeout(10):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            status, headers, body = await answer(reader)
            assert f" {status} " in head
            assert f"content-length: {len(body)}\r\n" in head
            assert int(headers["content-length"]) == len(body) > 0
        writer.close()


async def test_a_short_body_that_was_refused_does_not_cost_the_connection(tmp_path):
    """Its rest is read and thrown away."""
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reader, writer = await gateway.connect()
        refused = post(SMALL).replace(b"/m/", b"/unknown/")
        writer.write(refused[:-5])
        assert (await answer(reader))[0] == 404
        writer.write(refused[-5:] + post(SMALL))
        assert (await answer(reader))[0] == 200
        writer.close()
