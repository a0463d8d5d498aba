"""Moments of a connection's life that a real socket does not reach on demand."""

import asyncio
import time
from collections.abc import Callable

import pytest

from router.domain.errors import AttemptError, ConnectFailedError
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient
from router.upstream.connection import Connection
from router.upstream.connection_pool import ConnectionPool
from router.upstream.deadlines import DeadlineWheel
from router.upstream.response import STREAM_HIGH_WATER_BYTES, BodyStream
from router.upstream.response_head import ResponseHead

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


class MemoryTransport(asyncio.Transport):
    """Records what a connection asks of its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unflushed = 0
        self.is_aborted = False
        self.reads = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unflushed

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class RecordingOwner:
    def __init__(self) -> None:
        self.idle: list[Connection] = []
        self.closed: list[Connection] = []

    def connection_idle(self, connection: Connection) -> None:
        self.idle.append(connection)

    def connection_closed(self, connection: Connection) -> None:
        self.closed.append(connection)


class RecordingSink:
    """Records callbacks; `on_call` may act in the middle of one."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.act_on_head: Callable[[], object] = lambda: None

    def on_answer(self, head: ResponseHead, body: bytes) -> None:
        self.events += [head.status, body, "done"]
        self.act_on_head()

    def on_head(self, head: ResponseHead) -> None:
        self.events.append(head.status)
        self.act_on_head()

    def on_data(self, data: bytes) -> None:
        self.events.append(data)

    def on_done(self, error: AttemptError | None) -> None:
        self.events.append("done" if error is None else type(error).__name__)


@pytest.fixture
async def wheel():
    wheel = DeadlineWheel(time.monotonic)
    yield wheel
    wheel.close()


@pytest.fixture
def transport():
    return MemoryTransport()


@pytest.fixture
def owner():
    return RecordingOwner()


@pytest.fixture
async def connection(owner, wheel, transport):
    connection = Connection(owner, wheel, asyncio.get_running_loop(), 4096)
    connection.connection_made(transport)
    return connection


def start(connection: Connection, body: bytes = b"") -> RecordingSink:
    sink = RecordingSink()
    connection.start(REQUEST, body, sink, time.monotonic() + 60)
    return sink


async def test_an_exchange_by_callbacks(connection, owner, wheel, transport):
    sink = start(connection, b"body")
    assert transport.written == [REQUEST + b"body"]
    connection.data_received(OK[:-1])
    assert (sink.events, owner.idle) == ([200, b"o"], [])
    connection.data_received(OK[-1:])
    assert sink.events == [200, b"o", b"k", "done"]
    assert (owner.idle, transport.is_aborted) == ([connection], False)
    connection.connection_lost(None)
    assert wheel.pending == 0


async def test_an_answer_in_one_piece_comes_as_one(connection, owner):
    sink = start(connection)
    connection.data_received(OK)
    assert (sink.events, owner.idle) == ([200, b"ok", "done"], [connection])


@pytest.mark.parametrize(
    ("first_s", "second_s", "asleep_s"),
    [pytest.param(60.0, 5.0, 6.0, id="an earlier one"), pytest.param(5.0, 60.0, 61.0, id="later")],
)
async def test_each_exchange_has_its_own_deadline(owner, transport, first_s, second_s, asleep_s):
    now = 1000.0
    wheel = DeadlineWheel(lambda: now)
    connection = Connection(owner, wheel, asyncio.get_running_loop(), 4096)
    connection.connection_made(transport)
    first, second = RecordingSink(), RecordingSink()
    connection.start(REQUEST, b"", first, now + first_s)
    connection.data_received(OK)
    connection.start(REQUEST, b"", second, now + second_s)
    now += min(first_s, second_s) - 1
    wheel.expire_due()
    assert second.events == []
    now = 1000.0 + max(5.5, second_s - 1)
    wheel.expire_due()
    assert second.events == (["UpstreamTimeoutError"] if second_s < first_s else [])
    now = 1000.0 + asleep_s
    wheel.expire_due()
    assert second.events == ["UpstreamTimeoutError"]
    assert first.events == [200, b"ok", "done"]
    wheel.close()


async def test_a_deadline_ends_with_its_exchange(owner, transport):
    now = 1000.0
    wheel = DeadlineWheel(lambda: now)
    connection = Connection(owner, wheel, asyncio.get_running_loop(), 4096)
    connection.connection_made(transport)
    start(connection)
    connection.data_received(OK)
    now += 1e6
    wheel.expire_due()
    assert (owner.idle, transport.is_aborted, wheel.pending) == ([connection], False, 0)
    wheel.close()


async def test_a_connection_carries_one_exchange_at_a_time(connection):
    start(connection)
    with pytest.raises(RuntimeError):
        start(connection)


async def test_a_sink_that_cancels_in_a_callback_gets_no_more(connection, owner, transport):
    sink = start(connection)
    sink.act_on_head = connection.cancel
    connection.data_received(OK[:-1])
    assert (sink.events, owner.idle, transport.is_aborted) == ([200], [], True)


async def test_a_connection_is_not_kept_while_part_of_the_body_is_unflushed(
    connection, owner, transport
):
    sink = start(connection, b"x" * 70_000)
    transport.unflushed = 1
    connection.data_received(OK)
    assert sink.events[-1] == "done"
    assert (owner.idle, transport.is_aborted) == ([], True)


async def test_a_body_is_handed_over_in_slices_as_the_transport_asks(connection, transport):
    start(connection, b"x" * 600_000)
    connection.pause_writing()
    sent = sum(map(len, transport.written))
    assert sent == 600_000 + len(REQUEST)  # nothing told it to stop before
    transport.written.clear()
    connection.data_received(OK)
    start(connection, b"x" * 600_000)  # still paused: one slice and no more
    assert sum(map(len, transport.written)) < 300_000
    connection.resume_writing()
    assert sum(map(len, transport.written)) == 600_000 + len(REQUEST)


async def test_a_connection_reads_again_once_it_is_idle(connection, owner, transport):
    start(connection)
    connection.data_received(OK[:-1])
    connection.pause_reading()
    assert not transport.reads
    connection.data_received(OK[-1:])
    assert (owner.idle, transport.reads) == ([connection], True)


async def test_a_connection_given_up_while_it_was_opened_closes_when_it_is(owner, wheel):
    connection = Connection(owner, wheel, asyncio.get_running_loop(), 4096)
    connection.abort()
    transport = MemoryTransport()
    connection.connection_made(transport)
    assert transport.is_aborted


@pytest.mark.parametrize("failure", [asyncio.CancelledError, ConnectionResetError])
async def test_a_dial_that_fails_after_the_socket_opened_leaves_no_socket(transport, failure):
    class FailsLate(ConnectionPool):
        async def _open_transport(
            self, loop: asyncio.AbstractEventLoop, connection: Connection
        ) -> None:
            connection.connection_made(transport)
            raise failure

    client = UpstreamClient(clock=time.monotonic)
    emptied: list[ConnectionPool] = []
    pool = FailsLate(parse_address("http://127.0.0.1:1"), client._shared, emptied.append)
    with pytest.raises((asyncio.CancelledError, ConnectFailedError)):
        await pool.connect(1.0)
    assert (transport.is_aborted, pool.stats.open, emptied) == (True, 0, [pool])


async def test_a_complete_stream_leaves_the_connection_alone(connection, wheel, transport):
    stream = BodyStream(connection, wheel, time.monotonic, idle_s=60)
    stream.push(b"x" * (STREAM_HIGH_WATER_BYTES + 1))
    stream.push(b"y")
    connection.resume_reading()
    stream.finish(None)
    assert wheel.pending == 0
    start(connection)  # the connection is another call's now,
    connection.pause_reading()  # which holds it back
    assert [len(part) async for part in stream] == [STREAM_HIGH_WATER_BYTES + 1, 1]
    await stream.aclose()
    assert (transport.reads, transport.is_aborted) == (False, False)
    connection.cancel()
