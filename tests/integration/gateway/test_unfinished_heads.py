"""What comes beside bodies is bounded while it comes, and counted, and refused in plain words."""

import asyncio
import json
import logging

import pytest

from tests.fakes.upstreams import ok
from tests.integration.harness import INFER, Harness

BODY = b"{}"
PLAIN = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n".encode() + BODY
START = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n"
CHUNKED = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
LINE = b"x-%d: " + b"a" * 1000 + b"\r\n"
MOST = 8192


@pytest.fixture(params=["fast", "ordinary"])
async def gateway(request, tmp_path):
    server = {"fast_path": request.param == "fast"}
    async with Harness(tmp_path, warm=[ok()], server=server) as gateway:
        yield gateway
        await gateway.until(lambda: gateway.gateway._data.bodies.held_bytes == 0)
        assert (await gateway.infer()).status == 200


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(5):
        start = await reader.readuntil(b"\r\n\r\n")
        version, status, _ = start.decode().split(" ", 2)
        lines = start.decode().lower().split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(headers["content-length"]))
    assert version == "HTTP/1.1"
    return int(status), headers, body


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(5):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


MANY = b"".join(LINE % number for number in range(9))
TOO_LARGE = {
    "a head without an end": START + MANY,
    "a line without an end": START + b"x: " + b"a" * MOST,
    "a target without an end": b"GET /" + b"a" * MOST,
    "a head with an end, too late": START + MANY + b"\r\n",
    # No more than what is too much: what would come behind it can reset the connection.
    "a chunk extension without an end": CHUNKED + b"2;" + b"a" * (MOST + 17),
    "many chunk extensions": CHUNKED + b"2;" + b"a" * 4093 + b"\r\n{}\r\n2;" + b"a" * 4135,
    "trailers without an end": CHUNKED + b"2\r\n{}\r\n0\r\n" + MANY[: MOST + 1],
}  # fmt: skip


@pytest.mark.parametrize("after", [b"", PLAIN], ids=["first", "after a request"])
@pytest.mark.parametrize("step", [100, 1 << 20], ids=["bit by bit", "at once"])
@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_too_large_is_told_and_ends_the_connection(gateway, data, step, after):
    reader, writer = await gateway.connect()
    if after:
        writer.write(after)
        assert (await answer(reader))[0] == 200
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
        await writer.drain()
    status, headers, body = await answer(reader)
    assert (status, headers["x-router-error"]) == (431, "head_too_large")
    assert (headers["connection"], list(json.loads(body))) == ("close", ["error"])
    line = await gateway.logged(headers["x-request-id"])
    assert (line["status"], line["outcome"]) == (431, "client_error")
    assert await is_closed(reader)


async def test_a_head_of_just_the_limit_is_served(gateway):
    filler = b"x: " + b"a" * (MOST - len(START) - len(b"x: \r\n\r\n")) + b"\r\n\r\n"
    assert len(START + filler) == MOST
    assert (await gateway.raw(START + filler)).startswith(b"HTTP/1.1 200")


async def test_requests_before_it_are_answered(gateway):
    reader, writer = await gateway.connect()
    writer.write(PLAIN + START + b"\r\n")
    writer.write(TOO_LARGE["a line without an end"])
    assert [(await answer(reader))[0] for _ in range(3)] == [200, 200, 431]


async def test_unfinished_heads_count_into_the_budget(gateway):
    bodies = gateway.gateway._data.bodies
    part = START + LINE % 1
    clients = [await gateway.connect() for _ in range(10)]
    for _, writer in clients:
        writer.write(part)
    await gateway.until(lambda: bodies.held_bytes == 10 * len(part))
    reader, writer = clients[0]
    writer.write(b"\r\n")
    assert (await answer(reader))[0] == 200
    await gateway.until(lambda: bodies.held_bytes == 9 * len(part))
    for _, writer in clients:
        writer.close()


async def test_what_is_pipelined_counts_too(gateway):
    bodies = gateway.gateway._data.bodies
    gateway.warm[0].is_ready = False
    await gateway.until(lambda: gateway.pool.ready == 0)
    reader, writer = await gateway.connect()
    writer.write(PLAIN)
    await gateway.until(lambda: gateway.in_flight == 1)
    writer.write(PLAIN * 100)
    await gateway.until(lambda: bodies.held_bytes > 50 * len(PLAIN))
    gateway.warm[0].is_ready = True
    assert [(await answer(reader))[0] for _ in range(101)] == [200] * 101
    writer.close()


@pytest.mark.parametrize("fast_path", [True, False])
async def test_beyond_the_budget_nobody_new_is_let_in(tmp_path, fast_path):
    server = {"max_body": "16KiB", "max_buffered": "16KiB", "fast_path": fast_path}
    async with Harness(tmp_path, warm=[ok()], server=server) as gateway:
        bodies = gateway.gateway._data.bodies
        clients = [await gateway.connect() for _ in range(3)]
        part = START + b"x: " + b"a" * 7000
        for _, writer in clients[:2]:
            writer.write(part)
        await gateway.until(lambda: bodies.held_bytes == 2 * len(part))
        clients[2][1].write(part)
        status, headers, _ = await answer(clients[2][0])
        assert (status, headers["x-router-error"]) == (503, "shed")
        reader, _ = await gateway.connect()
        status, headers, _ = await answer(reader)
        assert (status, headers["retry-after"]) == (503, "1")
        for _, writer in clients:
            writer.close()
        await gateway.until(lambda: bodies.held_bytes == 0)
        assert (await gateway.infer()).status == 200


@pytest.mark.parametrize("broken", [b"zz\r\n", b"2\r\n{}x\r\n", b"2\r\n{}\r\n0\r\nx\r\n\r\n"])
async def test_a_broken_body_is_no_error_of_ours(gateway, broken, caplog):
    caplog.set_level(logging.INFO)
    assert (await gateway.raw(CHUNKED, broken)).startswith(b"HTTP/1.1 400")
    await gateway.until(lambda: gateway.in_flight == 0)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert not [record for record in caplog.records if record.exc_info]
