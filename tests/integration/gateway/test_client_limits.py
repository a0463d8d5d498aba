"""How many clients may connect, and how long each may keep the gateway waiting: real sockets."""

import asyncio
import json
import socket
import time
from contextlib import suppress
from itertools import chain, repeat
from typing import Any

import pytest

from router.gateway.http.client_limits import Wait
from tests.fakes.upstreams import Answer, Gate, ok
from tests.integration.harness import INFER, Harness

BODY = b'{"id": "1"}'
HEAD = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
CLOSED_WITHIN_S = 10.0
"""Ample on a busy machine, and far less than the time-outs that a test does not set."""


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the gateway closes the connection."""
    try:
        async with asyncio.timeout(CLOSED_WITHIN_S):
            return await reader.read()
    except ConnectionResetError:
        return b""


async def answer(reader: asyncio.StreamReader) -> int:
    """Read one whole answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1])


async def counted(gateway: Harness, series: str) -> float:
    lines = (await gateway.ask("GET", "/metrics")).body.decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(series + " ")))


def limited(tmp_path, *behaviours, **server: Any) -> Harness:
    return Harness(tmp_path, warm=list(behaviours or [ok()]), server=server)


class TestTheMostConnections:
    async def test_one_too_many_is_told_so_and_closed(self, tmp_path):
        async with limited(tmp_path, max_connections=2) as gateway:
            kept = [await gateway.connect() for _ in range(2)]
            await gateway.until(lambda: gateway.gateway._data.limits.open == 2)
            reader, writer = await gateway.connect()
            writer.write(HEAD + BODY)
            head, _, body = (await closed(reader)).partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            assert lines[0] == b"http/1.1 503 service unavailable"
            assert b"connection: close" in lines
            assert b"retry-after: 1" in lines
            assert b"content-length: %d" % len(body) in lines
            assert "client connections" in json.loads(body)["error"]
            kept[0][1].write(HEAD + BODY)
            assert await answer(kept[0][0]) == 200
            assert not gateway.warm[0].received[1:]

    async def test_a_place_is_free_again_when_a_client_has_gone(self, tmp_path):
        async with limited(tmp_path, max_connections=1) as gateway:
            _, writer = await gateway.connect()
            limits = gateway.gateway._data.limits
            await gateway.until(lambda: limits.open == 1)
            assert (await gateway.infer()).status == 503
            writer.close()
            await gateway.until(lambda: limits.open == 0)
            assert (await gateway.infer()).status == 200
            assert limits.accepted == 2

    async def test_refused_clients_that_stay_are_cut_off(self, tmp_path):
        async with limited(tmp_path, max_connections=1) as gateway:
            await gateway.connect()
            limits = gateway.gateway._data.limits
            await gateway.until(lambda: limits.open == 1)
            for _ in range(300):
                await gateway.connect()
            await gateway.until(lambda: limits.refused == 300)
            assert limits.lingering <= 256
            await gateway.until(lambda: limits.lingering == 0)

    async def test_they_are_counted(self, tmp_path):
        async with limited(tmp_path, max_connections=1) as gateway:
            await gateway.connect()
            await gateway.until(lambda: gateway.gateway._data.limits.open == 1)
            await gateway.infer()
            assert await counted(gateway, "router_client_connections_open") == 1
            series = 'router_client_connections_total{result="%s"}'
            assert await counted(gateway, series % "refused") == 1
            assert await counted(gateway, series % "accepted") == 1

    async def test_a_reload_changes_the_limit(self, tmp_path):
        async with limited(tmp_path, max_connections=1) as gateway:
            await gateway.connect()
            await gateway.until(lambda: gateway.gateway._data.limits.open == 1)
            config = gateway.changed()
            config["server"]["max_connections"] = 2
            await gateway.write(config)
            assert (await gateway.ask("POST", "/v1/reload")).status == 200
            assert (await gateway.infer()).status == 200


class TestWaiting:
    @pytest.mark.parametrize(
        "sent",
        [b"", b"P", b"\r\n", HEAD[:-2], b"GET / HTTP/1.1\r\nx-long: " + b"y" * 4000],
        ids=["nothing", "one byte", "a blank line", "all but the end", "half a long head"],
    )
    async def test_a_client_without_a_whole_head_is_closed(self, tmp_path, sent):
        async with limited(tmp_path, header_timeout="100ms") as gateway:
            reader, writer = await gateway.connect()
            started = time.monotonic()
            writer.write(sent)
            assert await closed(reader) == b""
            assert time.monotonic() - started >= 0.1
            assert await counted(gateway, 'router_client_timeouts_total{wait="header"}') == 1

    async def test_a_head_by_the_byte_gains_no_time(self, tmp_path):
        async with limited(tmp_path, header_timeout="300ms") as gateway:
            reader, writer = await gateway.connect()

            async def trickle() -> None:
                for byte in chain(LIVE[:-2], repeat(ord("y"))):  # a further line, without end
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.05)

            sending = asyncio.create_task(trickle())
            assert await closed(reader) == b""
            sending.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await sending

    async def test_so_is_one_whose_second_head_does_not_end(self, tmp_path):
        async with limited(tmp_path, header_timeout="100ms") as gateway:
            reader, writer = await gateway.connect()
            for _ in range(2):  # the second one takes the fast path
                writer.write(HEAD + BODY)
                assert await answer(reader) == 200
            writer.write(HEAD[:-2])
            assert await closed(reader) == b""

    async def test_between_requests_a_client_may_rest_for_longer(self, tmp_path):
        server = {"header_timeout": "100ms", "keepalive_timeout": "2s"}
        async with limited(tmp_path, **server) as gateway:
            reader, writer = await gateway.connect()
            for _ in range(2):
                writer.write(HEAD + BODY)
                assert await answer(reader) == 200
                await asyncio.sleep(0.3)  # several times what a head may take
            assert await closed(reader) == b""
            assert await counted(gateway, 'router_client_timeouts_total{wait="idle"}') == 1

    async def test_a_slow_answer_is_nobodys_wait(self, tmp_path):
        gate = Gate(ok(b"late"))
        server = {"header_timeout": "100ms", "keepalive_timeout": "100ms", "send_timeout": "100ms"}
        async with limited(tmp_path, gate, **server) as gateway:
            reader, writer = await gateway.connect()
            writer.write(HEAD + BODY)
            await gateway.until(lambda: gate.waiting == 1)
            await asyncio.sleep(0.8)
            gate.opened.set()
            assert await answer(reader) == 200

    @pytest.mark.parametrize("fast_path", [True, False])
    async def test_a_client_that_does_not_read_is_cut_off(self, tmp_path, fast_path):
        big = Answer(body=bytes(8 << 20))

        async def large(*_: Any) -> Answer:
            return big

        server = {"send_timeout": "200ms", "fast_path": fast_path}
        async with limited(tmp_path, large, **server) as gateway:
            # A stream reader would read ahead; a bare socket takes what its buffer holds.
            host, port = gateway.url.removeprefix("http://").split(":")
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, (host, int(port)))
                await loop.sock_sendall(client, HEAD + BODY)
                limits = gateway.gateway._data.limits
                await gateway.until(lambda: limits.timed_out[Wait.SEND] == 1)
                await gateway.until(lambda: gateway.in_flight == 0 and limits.open == 0)
            assert gateway.pool.in_flight == 0

    async def test_connections_that_ended_are_forgotten(self, tmp_path):
        async with limited(tmp_path) as gateway:
            for _ in range(20):
                reader, writer = await gateway.connect()
                writer.write(LIVE)
                assert await answer(reader) == 200
                writer.close()
            limits = gateway.gateway._data.limits
            await gateway.until(lambda: limits.open == 0)
            assert limits.wheel.pending == 0
