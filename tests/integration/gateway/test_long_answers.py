"""Answers of every length and framing, on both paths: the same bytes, at the client's pace."""

import asyncio
import hashlib
import socket
from typing import Any

import pytest

from tests.fakes.upload_server import Arrival, upload_server
from tests.fakes.upstreams import ok
from tests.integration.harness import INFER, Harness

MIB = 1 << 20
CONTENT = hashlib.shake_128(b"answer").digest(8 * MIB)


@pytest.fixture(params=[False, True], ids=["ordinary", "fast"])
async def serving(request, tmp_path):
    """A gateway before one replica of which every byte is the test's own."""
    async with upload_server() as server:
        settings: dict[str, Any] = {
            "server": {"fast_path": request.param, "send_timeout": "500ms"},
            "pool": {"urls": [server.url], "health": {"interval": "60s"}},
        }
        async with Harness(tmp_path, warm=[ok()], **settings) as gateway:
            yield gateway, server


def says(data: bytes, *, then_closes: bool = False) -> Any:
    async def behave(arrival: Arrival) -> None:
        await arrival.read()
        arrival.writer.write(data)
        await arrival.writer.drain()
        if then_closes:
            arrival.writer.close()

    return behave


def with_length(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + CONTENT[:size]


def in_chunks(*sizes: int) -> bytes:
    start, data = 0, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    for size in sizes:
        data += b"%x\r\n%b\r\n" % (size, CONTENT[start : start + size])
        start += size
    return data + b"0\r\n\r\n"


ANSWERS = {
    "nothing": (with_length(0), 0),
    "just short enough to be collected": (with_length(65536), 65536),
    "just too long for that": (with_length(65537), 65537),
    "megabytes": (with_length(8 * MIB), 8 * MIB),
    "a few chunks": (in_chunks(5, 1, 300), 306),
    "long chunks": (in_chunks(3 * MIB, 100, MIB), 4 * MIB + 100),
    "up to the close": (b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT[: 2 * MIB], 2 * MIB),
}


@pytest.mark.parametrize(("answer", "size"), ANSWERS.values(), ids=ANSWERS)
async def test_the_same_bytes_arrive_and_the_connection_goes_on(serving, answer, size):
    gateway, server = serving
    server.behave = says(answer, then_closes="length" not in str(answer[:60]))
    for number in range(2):
        reply = await gateway.infer(x_request_id=f"a{number}")
        line = await gateway.logged(f"a{number}")
        assert (reply.status, len(reply.body)) == (200, size)
        assert reply.body == CONTENT[:size]
        assert (line["outcome"], line["status"]) == ("ok", 200)
    assert (gateway.in_flight, gateway.pool.in_flight) == (0, 0)


async def test_an_answer_without_content_has_no_length(serving):
    gateway, server = serving
    server.behave = says(b"HTTP/1.1 204 No Content\r\n\r\n")
    reply = await gateway.infer()
    assert reply.status == 204
    assert "content-length" not in reply.headers


async def test_a_refusal_of_unknown_length_is_still_one(serving):
    gateway, server = serving
    server.behave = says(in_chunks(100).replace(b"200 OK", b"503 Busy"))
    reply = await gateway.infer()
    assert (reply.status, "retry-after" in reply.headers) == (503, True)
    assert "is busy" in reply.json()["error"]


@pytest.mark.parametrize("frame", ["length", "chunks"])
async def test_an_answer_that_breaks_off_is_not_made_to_look_complete(serving, frame):
    gateway, server = serving
    whole = with_length(8 * MIB) if frame == "length" else in_chunks(4 * MIB, 4 * MIB)
    server.behave = says(whole[: 6 * MIB], then_closes=True)  # more than is ever collected
    reader, writer = await gateway.connect()
    writer.write(f"POST {INFER} HTTP/1.1\r\nhost: x\r\nx-request-id: cut\r\n".encode())
    writer.write(b"content-length: 2\r\n\r\n{}")
    got = b""
    try:
        while part := await asyncio.wait_for(reader.read(1 << 20), 10):
            got += part
    except ConnectionResetError:
        pass
    line = await gateway.logged("cut")
    assert not got.endswith(b"0\r\n\r\n")
    assert line["outcome"] == "upstream_failed"
    assert gateway.pool.in_flight == 0


def a_client_that_does_not_read(gateway: Harness) -> socket.socket:
    host, port = gateway.url.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect((host, int(port)))
    sock.setblocking(False)
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nx-request-id: mute\r\ncontent-length: 2\r\n\r\n"
    sock.send(head.encode() + b"{}")
    return sock


async def test_a_client_that_never_reads_stops_the_upstream_and_is_given_up(serving):
    gateway, server = serving
    sent = 0

    async def endless(arrival: Arrival) -> None:
        nonlocal sent
        await arrival.read()
        arrival.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            arrival.writer.write(b"x" * 65536)
            await arrival.writer.drain()
            sent += 65536

    server.behave = endless
    with a_client_that_does_not_read(gateway):
        arrival = await server.arrival(0)
        line = await gateway.logged("mute")
        await gateway.until(lambda: gateway.pool.in_flight == 0)
        assert arrival.writer.transport.is_closing() or sent < 32 * MIB
    assert sent < 32 * MIB, "what nobody reads is not taken from the upstream"
    assert line["outcome"] == "client_closed"


async def test_a_slow_reader_gets_it_all(serving):
    gateway, server = serving
    server.behave = says(with_length(8 * MIB))
    reader, writer = await gateway.connect()
    writer.write(f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}".encode())
    await reader.readuntil(b"\r\n\r\n")
    got = hashlib.sha256()
    left = 8 * MIB
    while left:
        part = await reader.read(min(left, MIB))
        got.update(part)
        left -= len(part)
        await asyncio.sleep(0.005)
    assert got.hexdigest() == hashlib.sha256(CONTENT).hexdigest()
