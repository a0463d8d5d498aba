"""One call, one answer: over real sockets, in every framing, and when it goes wrong."""

import asyncio
import re
import socket

import pytest

from router.domain.errors import (
    AttemptError,
    ConnectFailedError,
    InvalidRequestError,
    ResponseLostError,
    UpstreamBrokenError,
    UpstreamTimeoutError,
)
from router.upstream.address import Address, parse_address
from router.upstream.client import Call
from tests.fakes.scripted_server import (
    ServerConnection,
    close,
    half_close,
    read_head,
    read_request,
    reset,
    scripted_server,
    send,
    send_in_pieces,
    stop_reading,
    until_peer_closes,
)
from tests.integration.upstream.conftest import GET, OK, POST, closed, stats_of, until
from tests.unit.upstream.answers import ANSWERS, BROKEN


@pytest.mark.parametrize("sizes", [[10**6], [1], [40, 1, 3]], ids=["whole", "bytes", "mixed"])
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
async def test_every_framing_arrives_whole(client, answer, sizes):
    ending = [close()] if answer.until_close else []
    async with scripted_server(
        [read_request(), send_in_pieces(answer.data, sizes), *ending]
    ) as server:
        response = await client.send(parse_address(server.url), POST, timeout_s=10)
        assert (response.status, response.body, response.rest) == (
            answer.status,
            answer.body,
            None,
        )
        assert response.headers == answer.headers
        assert stats_of(client, server)[1] == (1 if answer.keep_alive else 0)


async def test_the_request_arrives_byte_for_byte(client):
    async with scripted_server([read_request(), send(OK)]) as server:
        call = Call("POST", "/a%2Fb?c=d%20e", [("X-A", "b")], b"\x00\r\n\xff")
        await client.send(parse_address(server.url), call, timeout_s=10)
        assert server.connections[0].received == (
            b"POST /a%%2Fb?c=d%%20e HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-A: b\r\n"
            b"Content-Length: 4\r\n\r\n\x00\r\n\xff" % server.port
        )


@pytest.mark.parametrize("size", [65_000, 70_000, 300_000, 8_000_000])
async def test_a_large_body_arrives_byte_for_byte(client, size):
    body = bytes(range(256)) * (size // 256 + 1)
    async with scripted_server([read_request(), send(OK)]) as server:
        response = await client.send(
            parse_address(server.url), Call("POST", "/", (), body), timeout_s=20
        )
        assert response.body == b"ok"
        assert server.connections[0].requests[0].partition(b"\r\n\r\n")[2] == body
        assert stats_of(client, server) == (1, 1)


async def test_the_answer_to_head_has_no_body(client):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    async with scripted_server([read_request(), send(answer)]) as server:
        response = await client.send(parse_address(server.url), Call("HEAD", "/"), timeout_s=10)
        assert (response.body, response.headers) == (b"", (("Content-Length", "99"),))
        assert stats_of(client, server) == (1, 1)


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_answer_is_an_error_and_closes(client, data):
    async with scripted_server([read_request(), send(data), until_peer_closes()]) as server:
        with pytest.raises(UpstreamBrokenError):
            await client.send(parse_address(server.url), GET, timeout_s=10)
        await closed(server)
        assert len(server.connections) == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


@pytest.mark.parametrize("ending", [close, reset, half_close])
@pytest.mark.parametrize(
    "sent",
    [b"", b"HTTP/1.1 2", HEAD, HEAD + b"half", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["nothing", "part of the head", "the head", "half a body", "an interim answer"],
)
async def test_a_connection_that_breaks_loses_the_response(client, sent, ending):
    async with scripted_server([read_request(), send(sent), ending()]) as server:
        with pytest.raises(ResponseLostError) as caught:
            await client.send(parse_address(server.url), GET, timeout_s=10)
        assert caught.value.was_sent
        assert len(server.connections) == 1  # a fresh connection is never stale: no replay


async def test_a_reset_is_not_the_end_of_a_body_that_ends_with_the_connection(client):
    answer = b"HTTP/1.1 200 OK\r\n\r\nhalf"
    async with scripted_server([read_request(), send(answer), reset()]) as server:
        with pytest.raises(ResponseLostError):
            await client.send(parse_address(server.url), GET, timeout_s=10)


async def test_an_endless_head_is_cut_off(make_client):
    client = make_client(max_head_bytes=1000)
    answer = b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyyyyyy\r\n" * 80
    async with scripted_server([read_request(), send(answer), until_peer_closes()]) as server:
        with pytest.raises(UpstreamBrokenError, match="longer than 1000 bytes"):
            await client.send(parse_address(server.url), GET, timeout_s=10)
        await closed(server)


async def test_a_refused_connection_sent_nothing_and_names_no_address(client):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(ConnectFailedError, match="refused") as caught:
        await client.send(parse_address(f"http://127.0.0.1:{port}"), POST, timeout_s=10)
    assert not caught.value.was_sent
    assert not re.search(r"127|\d{4}", str(caught.value))
    assert client.stats() == {}


async def test_an_unknown_name_is_a_failed_connect(client):
    address = parse_address("http://no-such-host.invalid:80")
    with pytest.raises(ConnectFailedError, match=r"resolved|in time"):
        await client.send(address, POST, timeout_s=5)


@pytest.mark.parametrize("set_on", ["client", "call", "timeout"])
async def test_connecting_has_its_own_deadline(make_client, set_on):
    client = make_client(connect_timeout_s=0.1 if set_on == "client" else 5.0)
    call = Call("GET", "/", connect_timeout_s=0.1 if set_on == "call" else None)
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # room for one connection that nobody accepts, and then for none
        filler.connect(listener.getsockname())
        address = address_of(listener)
        with pytest.raises(ConnectFailedError, match="in time") as caught:
            async with asyncio.timeout(4.5):
                await client.send(address, call, timeout_s=0.1 if set_on == "timeout" else 10)
    assert not caught.value.was_sent


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_silent_upstream_times_out_and_is_closed(client, sent):
    async with scripted_server([read_request(), send(sent), until_peer_closes()]) as server:
        started = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamTimeoutError):
            await client.send(parse_address(server.url), GET, timeout_s=0.1)
        assert 0.1 <= asyncio.get_running_loop().time() - started < 10
        await closed(server)


async def test_an_upstream_that_does_not_read_a_big_body_times_out(client):
    held: list[int] = []

    async def watch(_: ServerConnection) -> None:
        (pool,) = client._pools.values()
        (sending,) = pool._open
        while sending._transport is not None:
            held.append(sending._transport.get_write_buffer_size())
            await asyncio.sleep(0.01)

    call = Call("POST", "/", (), b"x" * (64 * 1024 * 1024))
    async with scripted_server([stop_reading(), watch]) as server:
        with pytest.raises(UpstreamTimeoutError):
            await client.send(parse_address(server.url), call, timeout_s=0.3)
    assert held
    assert max(held) <= 512 * 1024, "the transport holds far more than a slice"


async def test_an_answer_that_overtakes_the_body_is_taken_and_the_connection_closed(client):
    too_large = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
    call = Call("POST", "/", (), b"x" * (32 * 1024 * 1024))
    async with scripted_server([read_head(), stop_reading(), send(too_large)]) as server:
        response = await client.send(parse_address(server.url), call, timeout_s=10)
        assert (response.status, response.body) == (413, b"big")
        await until(lambda: stats_of(client, server) == (0, 0))


async def test_an_answer_followed_by_a_reset_of_the_unread_body_is_taken(client):
    too_large = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
    call = Call("POST", "/", (), b"x" * (32 * 1024 * 1024))
    async with scripted_server([read_head(), send(too_large), close()]) as server:
        response = await client.send(parse_address(server.url), call, timeout_s=10)
        assert (response.status, response.body) == (413, b"big")


async def test_a_request_that_could_smuggle_opens_no_connection(client):
    async with scripted_server([]) as server:
        for call in (
            Call("GET", "/ HTTP/1.1\r\nX: y"),
            Call("GET", "/", [("X", "y\r\nZ: z")]),
            Call("GET\n", "/"),
        ):
            with pytest.raises(InvalidRequestError):
                await client.send(parse_address(server.url), call, timeout_s=10)
        assert server.connections == []


async def test_redirects_are_answers(client):
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with scripted_server([read_request(), send(moved)]) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        assert (response.status, response.headers[0]) == (
            302,
            ("Location", "http://127.0.0.1:1/"),
        )


async def test_proxies_of_the_environment_are_not_used(client, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with scripted_server([read_request(), send(OK)]) as server:
        response = await client.send(parse_address(server.url), GET, timeout_s=10)
        assert response.status == 200


async def test_cancelling_closes_the_connection(client):
    async with scripted_server([read_request(), until_peer_closes()]) as server:
        sending = asyncio.create_task(client.send(parse_address(server.url), POST, timeout_s=60))
        connection = await server.connection(0)
        await until(lambda: connection.requests)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await closed(server)


async def test_cancelling_while_connecting_leaves_nothing(client):
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        address = address_of(listener)
        sending = asyncio.create_task(
            client.send(address, Call("GET", "/", connect_timeout_s=60), timeout_s=60)
        )
        await until(client.stats)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert client.stats() == {}


async def test_close_fails_what_is_in_flight_and_refuses_what_comes(client):
    async with scripted_server([read_request(), until_peer_closes()]) as server:
        sending = asyncio.create_task(client.send(parse_address(server.url), GET, timeout_s=60))
        await until(lambda: server.connections and server.connections[0].requests)
        await client.close()
        with pytest.raises(AttemptError):
            await sending
        with pytest.raises(ConnectFailedError, match="closed"):
            await client.send(parse_address(server.url), GET, timeout_s=60)
        await closed(server)
        assert len(server.connections) == 1


async def test_close_does_not_wait_for_a_dial(client):
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        address = address_of(listener)
        call = Call("GET", "/", connect_timeout_s=60)
        sending = asyncio.create_task(client.send(address, call, timeout_s=60))
        await until(client.stats)
        async with asyncio.timeout(5):
            await client.close()
        with pytest.raises(ConnectFailedError, match="closed"):
            await sending


def address_of(listener: socket.socket) -> Address:
    return parse_address(f"http://127.0.0.1:{listener.getsockname()[1]}")
