"""Which connection a call gets, how long one is kept, and what happens when it went stale."""

import asyncio
import os
import socket

import pytest

from router.domain.errors import (
    AttemptError,
    ConnectFailedError,
    ResponseLostError,
    UpstreamBrokenError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)
from router.upstream.address import parse_address
from router.upstream.client import Call
from router.upstream.connection import Connection
from tests.fakes.scripted_server import (
    ScriptedServer,
    ServerConnection,
    close,
    half_close,
    read_request,
    reset,
    scripted_server,
    send,
    until_peer_closes,
    wait_for,
)
from tests.integration.upstream.conftest import GET, OK, POST, closed, stats_of, until

SERVE = [step for _ in range(20) for step in (read_request(), send(OK))]


async def test_one_connection_serves_call_after_call(client):
    async with scripted_server(SERVE) as server:
        for _ in range(10):
            await client.send(parse_address(server.url), POST, timeout_s=10)
            assert stats_of(client, server) == (1, 1)
        assert len(server.connections) == 1


async def test_the_most_recently_used_connection_is_taken_first(client):
    gates = [asyncio.Event() for _ in range(3)]
    scripts = [[read_request(), wait_for(gate), send(OK), *SERVE] for gate in gates]
    async with scripted_server(*scripts) as server:
        address = parse_address(server.url)
        sending = []
        for index in range(3):
            sending.append(asyncio.create_task(client.send(address, POST, timeout_s=10)))
            await requested(server, index)
        for index in (2, 0, 1):
            gates[index].set()
            await sending[index]
        await client.send(address, POST, timeout_s=10)
        await client.send(address, POST, timeout_s=10)
        assert [len(connection.requests) for connection in server.connections] == [1, 3, 1]
        assert stats_of(client, server) == (3, 3)


class Waits:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.errors: list[AttemptError] = []

    def on_connected(self, connection: Connection) -> None:
        self.connections.append(connection)

    def on_not_connected(self, error: AttemptError) -> None:
        self.errors.append(error)


async def test_whoever_finds_no_idle_connection_gets_one_that_is_opened(client):
    async with scripted_server([until_peer_closes()], [until_peer_closes()]) as server:
        address, waits = parse_address(server.url), [Waits(), Waits()]
        for waiter in waits:
            assert client.connection(address, waiter) is None
        await until(lambda: all(waiter.connections for waiter in waits))
        (one,), (other,) = (waiter.connections for waiter in waits)
        assert one is not other
        assert one.is_open
        assert stats_of(client, server) == (2, 0)


async def test_or_the_first_that_comes_free(make_client):
    """However long the one that is opened takes; that one is then there for the next."""
    client = make_client()
    gate = asyncio.Event()
    waits = [read_request(), wait_for(gate), send(OK), until_peer_closes()]
    async with scripted_server(waits, [until_peer_closes()]) as server:
        address, waiter = parse_address(server.url), Waits()
        busy = asyncio.create_task(client.send(address, POST, timeout_s=10))
        await requested(server, 0)
        (pool,) = client._pools.values()
        (first,) = pool._open
        dial, opened = type(pool)._open_transport, asyncio.Event()

        async def slow(*facts: object) -> None:
            await opened.wait()
            await dial(*facts)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(pool), "_open_transport", slow)
            assert client.connection(address, waiter) is None
            gate.set()
            await busy
            await until(lambda: waiter.connections == [first])
            opened.set()
            await until(lambda: stats_of(client, server) == (2, 1))
        assert waiter.errors == []


async def test_it_learns_why_there_is_none(client, tmp_path):
    address, waiter = parse_address(f"unix:{tmp_path}/nobody"), Waits()
    assert client.connection(address, waiter) is None
    await until(lambda: waiter.errors)
    assert isinstance(waiter.errors[0], ConnectFailedError)
    await until(lambda: client.stats() == {})  # an address without connections is forgotten


async def test_no_more_connections_are_opened_than_allowed(make_client):
    client = make_client(max_connections_per_address=2)
    async with scripted_server([until_peer_closes()], [until_peer_closes()]) as server:
        address, waits = parse_address(server.url), [Waits() for _ in range(3)]
        for waiter in waits:
            assert client.connection(address, waiter) is None
        await until(lambda: sum(len(w.connections) + len(w.errors) for w in waits) == 3)
        (error,) = [error for waiter in waits for error in waiter.errors]
        assert isinstance(error, UpstreamRejectedError)
        assert stats_of(client, server) == (2, 0)


async def test_whoever_waits_no_more_gets_none(client):
    async with scripted_server([until_peer_closes()]) as server:
        address, waiter = parse_address(server.url), Waits()
        assert client.connection(address, waiter) is None
        client.forget(address, waiter)
        await until(lambda: stats_of(client, server) == (1, 1))
        assert (waiter.connections, waiter.errors) == ([], [])


async def test_who_waits_while_the_client_closes_is_told(client):
    async with scripted_server([until_peer_closes()]) as server:
        waits = [Waits(), Waits()]
        assert client.connection(parse_address(server.url), waits[0]) is None
        await client.close()
        assert client.connection(parse_address(server.url), waits[1]) is None
        await until(lambda: all(waiter.errors for waiter in waits))
        assert [waiter.connections for waiter in waits] == [[], []]


async def test_more_idle_connections_than_allowed_are_closed(make_client):
    client = make_client(max_idle=2)
    async with scripted_server(SERVE) as server:
        calls = [client.send(parse_address(server.url), POST, timeout_s=10) for _ in range(5)]
        await asyncio.gather(*calls)
        await until(lambda: stats_of(client, server) == (2, 2))


async def test_connections_idle_for_too_long_are_closed_and_used_ones_are_kept(make_client):
    client = make_client(idle_s=0.3)
    async with scripted_server(SERVE * 20) as server:
        address = parse_address(server.url)
        await asyncio.gather(*(client.send(address, POST, timeout_s=10) for _ in range(2)))
        assert stats_of(client, server) == (2, 2)
        async with asyncio.timeout(5):
            while stats_of(client, server) == (2, 2):
                await client.send(address, POST, timeout_s=10)
                await asyncio.sleep(0.02)
        await until(lambda: stats_of(client, server) == (1, 1))  # the other one is gone
        await until(lambda: stats_of(client, server) == (0, 0))
        assert client.stats() == {}


async def test_over_the_maximum_a_call_is_rejected_at_once(make_client):
    client = make_client(max_connections_per_address=2)
    gate = asyncio.Event()
    async with scripted_server([read_request(), wait_for(gate), send(OK), *SERVE]) as server:
        address = parse_address(server.url)
        busy = [asyncio.create_task(client.send(address, POST, timeout_s=10)) for _ in range(2)]
        await server.connection(1)
        with pytest.raises(UpstreamRejectedError) as caught:
            await client.send(address, POST, timeout_s=10)
        assert not caught.value.was_sent
        gate.set()
        await asyncio.gather(*busy)
        assert (await client.send(address, POST, timeout_s=10)).body == b"ok"
        assert len(server.connections) == 2


async def test_a_failed_dial_gives_its_place_back(make_client):
    client = make_client(max_connections_per_address=1)
    async with scripted_server([]) as server:
        address = parse_address(server.url)
    for _ in range(3):
        with pytest.raises(ConnectFailedError):
            await client.send(address, POST, timeout_s=10)


@pytest.mark.parametrize("ending", [close, reset, half_close])
async def test_a_connection_closed_while_idle_is_noticed(client, ending):
    go = asyncio.Event()
    async with scripted_server([read_request(), send(OK), wait_for(go), ending()], SERVE) as server:
        address = parse_address(server.url)
        await client.send(address, POST, timeout_s=10)
        go.set()
        await until(lambda: stats_of(client, server) == (0, 0))
        assert (await client.send(address, POST, timeout_s=10)).body == b"ok"


async def test_only_the_connection_that_was_closed_leaves_the_idle_ones(client):
    gate, go = asyncio.Event(), asyncio.Event()
    closing = [read_request(), wait_for(gate), send(OK), wait_for(go), close()]
    async with scripted_server(closing, [read_request(), wait_for(gate), send(OK)]) as server:
        address = parse_address(server.url)
        calls = [asyncio.create_task(client.send(address, POST, timeout_s=10)) for _ in range(2)]
        await server.connection(1)
        gate.set()
        await asyncio.gather(*calls)
        assert stats_of(client, server) == (2, 2)
        go.set()
        await until(lambda: stats_of(client, server)[0] == 1)
        assert stats_of(client, server) == (1, 1)


async def test_a_connection_that_is_closing_is_not_taken(client):
    async with scripted_server(SERVE) as server:
        address = parse_address(server.url)
        await client.send(address, POST, timeout_s=10)
        (pool,) = client._pools.values()
        (connection,) = pool._open
        connection.abort()  # the loop will tell in its next turn, after the next line
        assert (await client.send(address, POST, timeout_s=10)).body == b"ok"
        assert len(server.connections) == 2


async def test_bytes_on_an_idle_connection_close_it(client):
    go = asyncio.Event()
    async with scripted_server([read_request(), send(OK), wait_for(go), send(OK)], SERVE) as server:
        address = parse_address(server.url)
        await client.send(address, POST, timeout_s=10)
        go.set()
        await until(lambda: stats_of(client, server) == (0, 0))
        await closed(server)
        assert (await client.send(address, POST, timeout_s=10)).body == b"ok"


async def test_bytes_after_an_answer_do_not_answer_the_next_call(client):
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    for extra in (smuggled, smuggled[:1], smuggled[:20]):
        async with scripted_server([read_request(), send(OK + extra)], SERVE) as server:
            address = parse_address(server.url)
            with pytest.raises(UpstreamBrokenError):
                await client.send(address, POST, timeout_s=10)
            assert (await client.send(address, POST, timeout_s=10)).body == b"ok"


@pytest.mark.parametrize("ending", [close, reset, half_close])
async def test_an_idempotent_call_on_a_stale_connection_is_replayed_on_a_fresh_one(client, ending):
    scripts = [[read_request(), send(OK), read_request(), ending()], SERVE]
    async with scripted_server(*scripts) as server:
        address = parse_address(server.url)
        await client.send(address, GET, timeout_s=10)
        assert (await client.send(address, GET, timeout_s=10)).body == b"ok"
        assert [len(connection.requests) for connection in server.connections] == [2, 1]


async def test_a_replay_dials_even_when_other_connections_are_idle(client):
    gate = asyncio.Event()
    stale = [read_request(), wait_for(gate), send(OK), read_request(), close()]
    async with scripted_server(stale, stale, SERVE) as server:
        address = parse_address(server.url)
        calls = [asyncio.create_task(client.send(address, GET, timeout_s=10)) for _ in range(2)]
        await server.connection(1)
        gate.set()
        await asyncio.gather(*calls)
        assert (await client.send(address, GET, timeout_s=10)).body == b"ok"
        assert len(server.connections) == 3


async def test_an_idempotent_call_is_not_replayed_once_the_server_may_have_worked(client):
    async def works(_: ServerConnection) -> None:
        await asyncio.sleep(0.15)

    scripts = [[read_request(), send(OK), read_request(), works, close()], SERVE]
    async with scripted_server(*scripts) as server:
        address = parse_address(server.url)
        await client.send(address, GET, timeout_s=10)
        with pytest.raises(ResponseLostError):
            await client.send(address, GET, timeout_s=10)
        assert len(server.connections) == 1


@pytest.mark.parametrize("call", [POST, GET], ids=["must not run twice", "idempotent"])
async def test_a_call_that_the_server_had_closed_before_is_replayed(client, call):
    async with scripted_server([read_request(), send(OK), until_peer_closes()], SERVE) as server:
        address = parse_address(server.url)
        await client.send(address, call, timeout_s=10)
        (closing,) = server.connections
        # The loop hears of it in its next turn, after the next call has been written.
        fileno = closing.writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(fileno)) as same:
            same.shutdown(socket.SHUT_RDWR)
        assert (await client.send(address, call, timeout_s=10)).body == b"ok"
        assert [len(connection.requests) for connection in server.connections] == [1, 1]


async def test_a_call_is_replayed_once_at_most(client):
    stale = [read_request(), send(OK), read_request(), close()]
    async with scripted_server(stale, [read_request(), close()]) as server:
        address = parse_address(server.url)
        await client.send(address, GET, timeout_s=10)
        with pytest.raises(ResponseLostError):
            await client.send(address, GET, timeout_s=10)
        assert len(server.connections) == 2


async def test_a_call_that_may_have_run_is_not_replayed(client):
    async with scripted_server(
        [read_request(), send(OK), read_request(), close()], SERVE
    ) as server:
        address = parse_address(server.url)
        await client.send(address, POST, timeout_s=10)
        with pytest.raises(ResponseLostError) as caught:
            await client.send(address, POST, timeout_s=10)
        assert caught.value.was_sent
        assert len(server.connections) == 1


@pytest.mark.parametrize(
    "sent", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", b"HTTP/1.1 100 C\r\n\r\n"]
)
async def test_nothing_is_replayed_after_one_byte_of_an_answer(client, sent):
    scripts = [[read_request(), send(OK), read_request(), send(sent), close()], SERVE]
    async with scripted_server(*scripts) as server:
        address = parse_address(server.url)
        await client.send(address, GET, timeout_s=10)
        with pytest.raises(ResponseLostError):
            await client.send(address, GET, timeout_s=10)
        assert len(server.connections) == 1


async def test_a_timeout_on_a_reused_connection_is_not_replayed(client):
    scripts = [[read_request(), send(OK), read_request(), until_peer_closes()], SERVE]
    async with scripted_server(*scripts) as server:
        address = parse_address(server.url)
        await client.send(address, GET, timeout_s=10)
        with pytest.raises(UpstreamTimeoutError):
            await client.send(address, GET, timeout_s=0.1)
        assert len(server.connections) == 1


async def test_addresses_do_not_share_connections(client):
    async with scripted_server(SERVE) as one, scripted_server(SERVE) as two:
        for server in (one, two, one):
            await client.send(parse_address(server.url), Call("GET", "/"), timeout_s=10)
        assert [len(one.connections), len(two.connections)] == [1, 1]
        assert len(client.stats()) == 2


async def test_an_open_idle_connection_is_given_out_at_once(client):
    async with scripted_server(SERVE) as server:
        address, waiter = parse_address(server.url), Waits()
        await client.send(address, POST, timeout_s=10)
        connection = client.connection(address, waiter)
        assert connection is not None
        assert connection.is_open
        connection.cancel()


async def test_aborting_an_address_fails_its_exchanges_and_later_calls_connect_anew(client):
    gone = [read_request(), until_peer_closes()]
    async with scripted_server(gone, SERVE) as server, scripted_server(SERVE) as other:
        address = parse_address(server.url)
        await client.send(parse_address(other.url), POST, timeout_s=10)
        sending = asyncio.create_task(client.send(address, POST, timeout_s=60))
        await requested(server, 0)
        client.abort(address)
        assert (await client.send(address, POST, timeout_s=10)).body == b"ok"
        with pytest.raises(ResponseLostError):
            await sending
        await closed(server)
        assert stats_of(client, server) == (1, 1)
        assert stats_of(client, other) == (1, 1)


async def test_aborting_an_address_fails_a_dial_to_it(client):
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        address = parse_address(f"http://127.0.0.1:{listener.getsockname()[1]}")
        call = Call("GET", "/", connect_timeout_s=60)
        sending = asyncio.create_task(client.send(address, call, timeout_s=60))
        await until(client.stats)
        client.abort(address)
        with pytest.raises(ConnectFailedError):
            await sending
        client.abort(address)  # gone already


async def requested(server: ScriptedServer, index: int) -> None:
    """Wait until a server's connection has carried a request."""
    connection = await server.connection(index)
    await until(lambda: connection.requests)
