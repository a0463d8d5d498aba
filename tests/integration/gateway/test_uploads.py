"""Large bodies: passed on as they come, at the pace of the slower side, and never twice.

Every test runs on the ordinary path, and on the fast path with a head that it knows.
"""

import asyncio
import hashlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router.gateway.body import WINDOW_BYTES
from tests.fakes.upload_server import Arrival, UploadServer, upload_server
from tests.fakes.upstreams import ok
from tests.integration.harness import INFER, Harness

MIB = 1 << 20
SIZE = 4 * MIB
BODY = hashlib.shake_128(b"body").digest(SIZE)
DIGEST = hashlib.sha256(BODY).hexdigest()
SOON_S = 10.0
"""Ample on a busy machine, and less than the time-outs that would end anything else."""


def head(size: int = SIZE, *lines: str) -> bytes:
    first = f"POST {INFER} HTTP/1.1"
    type_line = "content-type: application/octet-stream"
    every = [first, "host: x", type_line, *lines, f"content-length: {size}"]
    return ("\r\n".join(every) + "\r\n\r\n").encode()


class Client:
    """One connection of a client that sends as a test tells it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(10):
            start = await self.reader.readuntil(b"\r\n\r\n")
            lines = start.decode().lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1]), headers, body

    async def is_closed(self) -> bool:
        try:
            async with asyncio.timeout(5):
                return await self.reader.read() == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@pytest.fixture(params=["ordinary", "fast"])
def path(request) -> str:
    return str(request.param)


@pytest.fixture
def replica(path, tmp_path):
    """Set up a gateway in front of one upload server: (gateway, server, a client's connection)."""

    @asynccontextmanager
    async def set_up(**settings: Any) -> AsyncIterator[tuple[Harness, UploadServer, Client]]:
        server_settings = {"fast_path": path == "fast", **settings.pop("server", {})}
        extra = settings.pop("extra_urls", [])
        pool = settings.pop("pool", {})
        async with upload_server() as server:
            pool = {"urls": [*extra, server.url], **pool}
            function = settings.pop("function", None)
            async with Harness(
                tmp_path, warm=[ok()], function=function, server=server_settings, pool=pool,
                **settings,
            ) as gateway:  # fmt: skip
                client = Client(*await gateway.connect())
                if path == "fast" and not extra:
                    await client.send(head() + BODY)  # the head is known from now on
                    assert (await client.answer())[0] == 200
                    server.arrivals.clear()
                yield gateway, server, client

    return set_up


@pytest.mark.parametrize("line", ["x-known: 1", "x-request-id: new"])
async def test_the_body_arrives_before_it_has_all_been_sent(replica, path, line):
    async with replica() as (gateway, server, client):
        await client.send(head(SIZE, line) + BODY[:MIB])
        arrival = await server.arrival(0)
        await arrival.received(MIB)
        assert gateway.pool.in_flight == 1
        fast = gateway.gateway._data.fast_path
        assert (fast.in_flight if fast is not None else 0) == (path == "fast")
        await client.send(BODY[MIB:])
        status, headers, answer = await client.answer()
        assert (status, headers["x-router-backend"]) == (200, "pool")
        assert DIGEST in answer.decode()
        assert arrival.length == SIZE
        assert gateway.pool.in_flight == 0
        assert gateway.gateway._data.bodies.held_bytes == 0


@pytest.mark.parametrize("size", [65_536, 65_537, 100_000, SIZE])
@pytest.mark.parametrize("first", [0, 1, 60_000, 65_537])
async def test_any_beginning_may_come_with_the_head(replica, first, size):
    body = BODY[:size]
    first = min(first, size)
    async with replica() as (gateway, server, client):
        for number in range(3):
            await client.send(head(size) + body[:first])
            await asyncio.sleep(0.01)  # so that it stands alone
            await client.send(body[first:])
            status, _, answer = await client.answer()
            assert (status, hashlib.sha256(body).hexdigest() in answer.decode()) == (200, True)
            assert server.arrivals[number].head.count(b"\r\n\r\n") == 1
        assert gateway.gateway._data.bodies.held_bytes == 0


async def test_a_slow_upstream_slows_the_client(replica):
    go_on = asyncio.Event()

    async def waits(arrival: Arrival) -> None:
        await arrival.read(MIB)
        await go_on.wait()
        await arrival.read()
        await arrival.answer()

    async with replica() as (gateway, server, _):
        server.behave = waits
        whole = 48 * MIB
        # What the kernel takes for the gateway is not the gateway's: up to 32 MiB, unless told.
        for listening in gateway.gateway._listener._sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        client = Client(*await gateway.connect())
        sock: socket.socket = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        await client.send(head(whole))
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            while sent < whole:
                await client.send(b"x" * 65536)
                sent += 65536

        sending = asyncio.create_task(send_all())
        await (await server.arrival(0)).received(MIB)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 24 * MIB, "what is not passed on is not taken"
        assert gateway.gateway._data.bodies.held_bytes <= WINDOW_BYTES
        go_on.set()
        await sending
        assert (await client.answer())[0] == 200


async def test_an_answer_that_comes_first_is_relayed_and_both_sides_close(replica):
    async def refuses(arrival: Arrival) -> None:
        await arrival.read(100_000)
        await arrival.answer(413, b'{"error": "too large"}')

    async with replica() as (gateway, server, client):
        server.behave = refuses
        await client.send(head() + BODY[:MIB])
        status, headers, answer = await client.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert b"too large" in answer
        await (await server.arrival(0)).until_closed()
        assert gateway.pool.in_flight == 0
        assert await client.is_closed()


async def test_a_client_that_goes_on_sending_after_such_an_answer_can_read_it(replica):
    async def refuses(arrival: Arrival) -> None:
        await arrival.answer(413, b"{}")

    async with replica() as (_, server, client):
        server.behave = refuses
        with_rest = asyncio.create_task(client.send(head(32 * MIB) + b"x" * (32 * MIB)))
        assert (await client.answer())[0] == 413
        await asyncio.wait({with_rest}, timeout=5)
        with_rest.cancel()
        await asyncio.gather(with_rest, return_exceptions=True)


async def test_the_rest_of_a_refused_body_is_taken_for_a_while_only(replica):
    async def refuses(arrival: Arrival) -> None:
        await arrival.answer(413, b"{}")

    async with replica() as (_, server, client):
        server.behave = refuses
        await client.send(head() + BODY[:MIB])
        assert (await client.answer())[0] == 413
        started = time.monotonic()
        while not client.writer.is_closing() and time.monotonic() - started < SOON_S:
            client.writer.write(b"x")
            await asyncio.sleep(0.05)
        assert 1 < time.monotonic() - started < SOON_S


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_takes_its_upstream_work_with_it(replica, how):
    async with replica() as (gateway, server, client):
        line_id = f"x-request-id: left-{how}"
        await client.send(head(SIZE, line_id) + BODY[:MIB])
        arrival = await server.arrival(0)
        await arrival.received(MIB)
        started = time.monotonic()
        if how == "reset":
            client.reset()
        else:
            client.writer.close()
        await arrival.until_closed()
        await gateway.until(lambda: gateway.pool.in_flight == 0)
        took_s = time.monotonic() - started
        line = await gateway.logged(f"left-{how}")
        (endpoint,) = (await gateway.status())["endpoints"]
    assert took_s < SOON_S
    assert (line["status"], line["outcome"]) == (499, "client_closed")
    assert endpoint["state"] == "ready", "the replica is not to blame"


async def test_a_replica_that_cannot_be_reached_costs_nothing_of_the_body(replica):
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        # Nobody listens there: its probe fails, and it is marked ready by hand.
        url = f"http://127.0.0.1:{dead.getsockname()[1]}"
        async with replica(extra_urls=[url], pool={"health": {"interval": "60s"}}) as (
            gateway, server, client,
        ):  # fmt: skip
            for endpoint in gateway.pool.endpoints.values():
                gateway.pool.mark_ready(endpoint.id, is_ready=True)
            attempts = set()
            for _ in range(8):
                await client.send(head() + BODY)
                status, headers, answer = await client.answer()
                assert (status, DIGEST in answer.decode()) == (200, True)
                attempts.add(headers["x-router-attempts"])
            assert len(server.arrivals) == 8
    assert "2" in attempts, "the dead one was tried"


async def test_what_was_passed_on_is_not_sent_again(replica):
    async def breaks(arrival: Arrival) -> None:
        await arrival.read(2 * MIB)
        arrival.writer.transport.abort()

    async with replica() as (gateway, server, client):
        server.behave = breaks
        await client.send(head(SIZE, "x-request-id: broke") + BODY[: 3 * MIB])
        status, headers, _ = await client.answer()
        line = await gateway.logged("broke")
        assert (status, headers["connection"]) == (502, "close")
        assert len(server.arrivals) == 1
        assert (line["outcome"], line["attempts"]) == ("upstream_failed", 1)
        assert gateway.pool.in_flight == 0


async def test_a_busy_replica_is_told_as_our_lack_of_capacity(replica):
    async def busy(arrival: Arrival) -> None:
        await arrival.read()
        await arrival.answer(503, b"{}")

    async with replica() as (gateway, server, client):
        server.behave = busy
        await client.send(head(SIZE, "x-request-id: busy") + BODY)
        status, headers, _ = await client.answer()
        line = await gateway.logged("busy")
    assert (status, "retry-after" in headers) == (503, True)
    assert line["outcome"] == "shed"


async def test_a_function_gets_the_body_whole(tmp_path):
    async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
        reply = await gateway.infer(BODY[:300_000], x_router_backend="serverless")
        (received,) = gateway.function.received
        spilled = None
        gateway.warm[0].behave = ok(status=503)
        spilled = await gateway.infer(BODY[:60_000], x_router_backend="pool")
    assert (reply.status, reply.decision[0]) == (200, "serverless")
    assert received.body == BODY[:300_000]
    assert spilled.decision == ("serverless", "spillover"), "a small body can be sent again"


async def test_a_body_that_drips_is_given_up(replica):
    async with replica(server={"body_timeout": "200ms"}) as (gateway, server, client):
        await client.send(head() + BODY[:MIB])
        arrival = await server.arrival(0)

        async def drip() -> None:
            while not client.writer.is_closing():
                client.writer.write(b"x")
                await asyncio.sleep(0.02)

        started = time.monotonic()
        dripping = asyncio.create_task(drip())
        try:
            status, headers, answer = await client.answer()
        finally:
            dripping.cancel()
        assert (status, headers["connection"]) == (408, "close")
        assert b"1048576 bytes in 0.2 s" in answer
        assert time.monotonic() - started < SOON_S
        await arrival.until_closed()
        assert gateway.pool.in_flight == 0


async def test_a_long_body_may_take_longer_than_the_timeout_as_long_as_it_moves(replica):
    async with replica(server={"body_timeout": "1s"}) as (_, _, client):
        await client.send(head())
        for start in range(0, SIZE, SIZE // 8):
            await client.send(BODY[start : start + SIZE // 8])
            await asyncio.sleep(0.15)
        status, _, answer = await client.answer()
    assert (status, DIGEST in answer.decode()) == (200, True)


async def test_a_slow_client_says_nothing_about_the_replica(replica):
    async with replica() as (gateway, _, client):
        times = gateway.pool.service_times
        await client.send(head() + BODY[:MIB])
        await asyncio.sleep(1.0)
        await client.send(BODY[MIB:])
        assert (await client.answer())[0] == 200
        assert times.estimate(SIZE).mean_s < 0.5


async def test_the_clients_deadline_holds_while_it_sends(replica):
    async with replica() as (gateway, server, client):
        started = time.monotonic()
        await client.send(head(SIZE, "x-router-deadline-ms: 200") + BODY[:MIB])
        status, _, _ = await client.answer()
        assert status == 504
        assert time.monotonic() - started < SOON_S
        await (await server.arrival(0)).until_closed()
        assert gateway.pool.in_flight == 0


async def test_an_upstream_that_stops_reading_is_given_up(replica):
    async def stops(arrival: Arrival) -> None:
        await arrival.read(MIB)
        await arrival.closed.wait()

    async with replica(pool={"timeouts": {"response": "300ms"}}) as (gateway, server, client):
        server.behave = stops
        sending = asyncio.create_task(client.send(head(32 * MIB) + b"x" * (32 * MIB)))
        status, _, _ = await client.answer()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert status == 504
        assert gateway.pool.in_flight == 0


async def test_an_answer_may_stream_while_the_body_is_sent(replica):
    """As a server does that answers line by line."""

    async def echoes(arrival: Arrival) -> None:
        start = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        arrival.writer.write(start.encode())
        while arrival.size < arrival.length:
            await arrival.read(min(arrival.length, arrival.size + MIB))
            arrival.writer.write(f"data: {arrival.size}\n\n".encode())
            await arrival.writer.drain()
        arrival.writer.close()

    async with replica() as (gateway, server, client):
        server.behave = echoes
        await client.send(head() + BODY[:MIB])
        start = await client.reader.readuntil(f"data: {MIB}\n\n".encode())
        assert start.startswith(b"HTTP/1.1 200")
        await client.send(BODY[MIB:])
        await client.reader.readuntil(f"data: {SIZE}\n\n".encode())
        await gateway.until(lambda: gateway.pool.in_flight == 0)


async def test_held_requests_leave_their_bodies_with_the_client(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        gateway.warm[0].is_ready = False
        await gateway.until(lambda: gateway.pool.ready == 0)
        body = BODY[:900_000]
        held = [asyncio.create_task(gateway.infer(body)) for _ in range(4)]
        await gateway.until(lambda: len(gateway.pool.queue) == 4)
        assert gateway.gateway._data.bodies.held_bytes == 4 * WINDOW_BYTES
        gateway.warm[0].is_ready = True
        assert [(await task).status for task in held] == [200] * 4
        assert {received.body for received in gateway.warm[0].received} == {body}
        assert gateway.gateway._data.bodies.held_bytes == 0
