"""Answers that are given out before they are complete."""

import asyncio
import gc

import pytest

from router.domain.errors import (
    AttemptError,
    ResponseLostError,
    UpstreamBrokenError,
    UpstreamTimeoutError,
)
from router.upstream.address import parse_address
from router.upstream.connection import Sink
from router.upstream.response import STREAM_HIGH_WATER_BYTES, UpstreamResponse
from router.upstream.response_head import ResponseHead
from tests.fakes.scripted_server import (
    close,
    read_request,
    reset,
    scripted_server,
    send,
    until_peer_closes,
    wait_for,
)
from tests.integration.upstream.conftest import GET, OK, closed, stats_of, until

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def read_rest(response: UpstreamResponse) -> bytes:
    assert response.rest is not None
    return b"".join([part async for part in response.rest])


async def test_events_are_given_out_one_by_one(client):
    gates = [asyncio.Event() for _ in range(2)]
    script = [
        read_request(), send(EVENTS), wait_for(gates[0]), send(chunk(b"data: 1\n\n")),
        wait_for(gates[1]), send(chunk(b"data: 2\n\n") + b"0\r\n\r\n"), read_request(), send(OK),
    ]  # fmt: skip
    async with scripted_server(script) as server:
        address = parse_address(server.url)
        response = await client.send(address, GET, timeout_s=10)
        assert (response.status, response.body) == (200, b"")
        gates[0].set()
        assert await anext(response.rest) == b"data: 1\n\n"
        gates[1].set()
        assert await anext(response.rest) == b"data: 2\n\n"
        with pytest.raises(StopAsyncIteration):
            await anext(response.rest)
        assert (await client.send(address, GET, timeout_s=10)).body == b"ok"
        assert len(server.connections) == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("size", [MIB, MIB + 1, 3 * MIB])
async def test_bodies_up_to_the_buffer_are_collected_and_larger_ones_streamed(
    client, framing, size
):
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    data = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, body),
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(chunk(body[start : start + 50_000]) for start in range(0, size, 50_000))
        + b"0\r\n\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\n" + body,
    }[framing]
    async with scripted_server(
        [read_request(), send(data), *([close()] if framing == "close" else [])]
    ) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        assert (response.rest is None) is (size <= MIB)
        rest = b"" if response.rest is None else await read_rest(response)
        assert response.body + rest == body
        await until(lambda: stats_of(client, server)[1] == (0 if framing == "close" else 1))


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_slow_reader_holds_the_upstream_back(client, framing):
    size, part = 64 * MIB, b"x" * 65536
    sent = 0

    async def send_everything(connection):
        nonlocal sent
        head = (
            b"Content-Length: %d" % size if framing == "length" else b"Transfer-Encoding: chunked"
        )
        connection.writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        while sent < size:
            connection.writer.write(part if framing == "length" else chunk(part))
            await connection.writer.drain()
            sent += len(part)
        if framing == "chunked":
            connection.writer.write(b"0\r\n\r\n")

    async with scripted_server([read_request(), send_everything]) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        before = -1
        async with asyncio.timeout(10):
            while sent != before:  # until the upstream has come to a stand
                before = sent
                await asyncio.sleep(0.1)
        assert sent < size // 2
        most, received = 0, len(response.body)
        async for data in response.rest:
            received += len(data)
            most = max(most, response.rest.buffered_bytes)
            await asyncio.sleep(0)
        assert received == size
        assert most <= STREAM_HIGH_WATER_BYTES + 512 * 1024  # the mark and one segment
        await until(lambda: stats_of(client, server) == (1, 1))


async def test_a_complete_stream_may_be_read_after_its_connection_went_to_another_call(client):
    size = STREAM_HIGH_WATER_BYTES - 1000
    data = EVENTS + chunk(b"x" * size) + b"0\r\n\r\n"
    go = asyncio.Event()
    script = [read_request(), send(data), read_request(), wait_for(go), send(OK)]
    async with scripted_server(script) as server:
        address = parse_address(server.url)
        response = await client.send(address, GET, timeout_s=10)
        await until(lambda: stats_of(client, server) == (1, 1))
        other = asyncio.create_task(client.send(address, GET, timeout_s=60))
        await until(lambda: len(server.connections[0].requests) == 2)
        assert len(await read_rest(response)) == size
        await response.aclose()
        go.set()
        assert (await other).body == b"ok"  # unharmed


@pytest.mark.parametrize("size", [10, 2 * MIB])
async def test_abandoning_a_stream_closes_the_connection(client, size):
    async with scripted_server(
        [read_request(), send(EVENTS + chunk(b"x" * size)), until_peer_closes()]
    ) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        await anext(response.rest)
        await response.aclose()
        await closed(server)
        with pytest.raises(StopAsyncIteration):
            await anext(response.rest)
        await response.aclose()


async def test_cancelling_a_reader_and_closing_closes_the_connection(client):
    async with scripted_server([read_request(), send(EVENTS), until_peer_closes()]) as server:

        async def relay() -> None:
            response = await client.send(parse_address(server.url), GET, timeout_s=10)
            try:
                await anext(response.rest)
            finally:
                await response.aclose()

        relaying = asyncio.create_task(relay())
        await until(lambda: server.connections and server.connections[0].requests)
        await until(lambda: any(pool._open for pool in client._pools.values()))
        relaying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await relaying
        await closed(server)


@pytest.mark.parametrize("head", [EVENTS, OK, b"?"], ids=["stream", "whole", "broken"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_answer_that_comes_as_its_caller_is_cancelled_is_dropped(client, head, when):
    go = asyncio.Event()
    script = [read_request(), wait_for(go), send(head), until_peer_closes()]
    async with scripted_server(script) as server:
        sending = asyncio.create_task(client.send(parse_address(server.url), GET, timeout_s=10))
        await until(lambda: server.connections and server.connections[0].requests)
        (pool,) = client._pools.values()
        (connection,) = pool._open
        collector = connection._sink
        connection._sink = CancelsTheCaller(collector, sending, when)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await sending
        if head is OK:
            assert stats_of(client, server) == (1, 1)  # complete and unharmed
        else:
            await closed(server)
            assert client.wheel.pending == 0
        gc.collect()  # an exception that nobody has seen would be reported now


class CancelsTheCaller:
    """Cancels the caller in the very turn of the loop in which its answer comes."""

    def __init__(self, sink: Sink, task: asyncio.Task[UpstreamResponse], when: str) -> None:
        self._sink, self._task, self._when = sink, task, when

    def on_answer(self, head: ResponseHead, body: bytes) -> None:
        self._cancel()
        self._sink.on_answer(head, body)

    def on_head(self, head: ResponseHead) -> None:
        self._cancel()
        self._sink.on_head(head)

    def on_data(self, data: bytes) -> None:
        self._sink.on_data(data)

    def on_done(self, error: AttemptError | None) -> None:
        if error is not None:
            self._cancel()
        self._sink.on_done(error)

    def _cancel(self) -> None:
        if self._when == "before":
            self._task.cancel()
        else:  # after the result was set, but before the caller has seen it
            asyncio.get_running_loop().call_soon(self._task.cancel)


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        ([close()], ResponseLostError),
        ([reset()], ResponseLostError),
        ([send(b"zz\r\n"), until_peer_closes()], UpstreamBrokenError),
    ],
    ids=["close", "reset", "bad chunk"],
)
async def test_a_stream_that_breaks_ends_with_an_error_after_its_bytes(client, ending, error):
    go = asyncio.Event()
    script = [read_request(), send(EVENTS + chunk(b"data: 1\n\n")), wait_for(go), *ending]
    async with scripted_server(script) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        assert await anext(response.rest) == b"data: 1\n\n"
        go.set()
        for _ in range(2):
            with pytest.raises(error):
                await anext(response.rest)


async def test_bytes_that_came_before_a_break_are_still_given_out(client):
    async with scripted_server(
        [read_request(), send(EVENTS + chunk(b"data: 1\n\n")), close()]
    ) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        await until(lambda: client.stats() == {})
        assert await anext(response.rest) == b"data: 1\n\n"
        with pytest.raises(ResponseLostError):
            await anext(response.rest)


async def test_a_stream_outlives_the_timeout_of_its_call(client):
    go = asyncio.Event()
    script = [read_request(), send(EVENTS), wait_for(go), send(chunk(b"late") + b"0\r\n\r\n")]
    async with scripted_server(script) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=0.05)
        await asyncio.sleep(0.2)  # well past the timeout: nothing may have happened
        go.set()
        assert await read_rest(response) == b"late"


async def test_a_stream_that_stands_still_is_given_up(make_client):
    client = make_client(stream_idle_s=0.2)
    async with scripted_server([read_request(), send(EVENTS), until_peer_closes()]) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        with pytest.raises(UpstreamTimeoutError, match="stood still"):
            async with asyncio.timeout(5):
                await anext(response.rest)
        await closed(server)


async def test_a_stream_that_moves_is_not_given_up(make_client):
    client = make_client(stream_idle_s=0.3)

    async def trickle(connection):
        for _ in range(12):
            connection.writer.write(chunk(b"x"))
            await asyncio.sleep(0.05)
        connection.writer.write(b"0\r\n\r\n")

    async with scripted_server([read_request(), send(EVENTS), trickle]) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        assert await read_rest(response) == b"x" * 12


async def test_a_stream_has_one_reader(client):
    async with scripted_server([read_request(), send(EVENTS), until_peer_closes()]) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        first = asyncio.ensure_future(anext(response.rest))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(response.rest)
        first.cancel()
        await response.aclose()
