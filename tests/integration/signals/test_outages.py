"""Gateways whose server hangs, dies, is absent at first, or refuses them."""

import asyncio
import time

import pytest

from router.signals.redis_client import CLIENT_NAME
from router.signals.snapshot import SharedEndpoint
from tests.fakes.valkey import ValkeyProcess
from tests.integration.signals.gateways import Gateway, eventually, running

STALENESS_S = 0.8
TIMEOUT_S = 0.1
# What a flush in progress and a loaded machine may add to the bound.
SLACK_S = 8.0


async def connected(a: Gateway, b: Gateway) -> None:
    a.endpoints = {"m": [SharedEndpoint("a-1", "http://127.0.0.1:9001", 4, "a")]}
    await eventually(lambda: a.peers == {"b"} and "m" in b.state.snapshot.endpoints)
    await eventually(lambda: a.leads != b.leads)


async def recovered(a: Gateway, b: Gateway) -> None:
    await eventually(
        lambda: a.peers == {"b"} and b.peers == {"a"} and not a.is_stale and not b.is_stale
    )
    await eventually(lambda: a.leads != b.leads)


async def test_a_hung_server_makes_gateways_act_alone_until_it_answers_again(
    valkey_server: ValkeyProcess,
) -> None:
    url = valkey_server.url
    async with (
        running(url, "a", STALENESS_S, TIMEOUT_S) as a,
        running(url, "b", STALENESS_S, TIMEOUT_S) as b,
    ):
        await connected(a, b)

        valkey_server.pause()
        took_s = await eventually(lambda: all(g.leads and g.is_stale for g in (a, b)))

        assert STALENESS_S / 2 < took_s < STALENESS_S + SLACK_S
        assert [found.id for found in b.state.snapshot.endpoints["m"]] == ["a-1"]
        failed = b.state.flushes_failed
        await eventually(lambda: b.state.flushes_failed >= failed + 2)  # it keeps trying

        valkey_server.resume()
        await recovered(a, b)
        with valkey_server.client() as client:
            ours = [found for found in client.client_list() if found["name"] == CLIENT_NAME]
        assert 2 <= len(ours) <= 4  # at most two for each gateway


async def test_a_hung_server_does_not_hold_up_the_event_loop(valkey_server: ValkeyProcess) -> None:
    async with running(valkey_server.url, "a", operation_timeout_s=1.0) as a:
        await eventually(lambda: a.state.flushes_ok > 0)
        valkey_server.pause()
        turns = 0
        while a.state.flushes_failed < 1:
            await asyncio.sleep(0.005)
            turns += 1
        failed_at = time.monotonic()
    valkey_server.resume()

    assert turns > 10, "held up by the time-out, the loop would have turned once or twice"
    # Leaving is bounded too, although the server does not answer.
    assert time.monotonic() - failed_at < SLACK_S


async def test_an_operation_is_given_up_at_its_timeout(valkey_server: ValkeyProcess) -> None:
    async with running(valkey_server.url, "a", operation_timeout_s=1.0) as a:
        await eventually(lambda: a.state.flushes_ok > 0)
        valkey_server.pause()
        took_s = await eventually(lambda: a.state.flushes_failed > 0)
        valkey_server.resume()

    assert 0.5 < took_s < 4.5  # the whole exchange might have taken 5 s


class Slow(asyncio.Protocol):
    """Says OK again and again, each time just before anyone would call it late."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._answer()

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"+OK\r\n")
            asyncio.get_running_loop().call_later(0.25, self._answer)


async def test_slow_answers_may_not_add_up(caplog: pytest.LogCaptureFixture) -> None:
    server = await asyncio.get_running_loop().create_server(Slow, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        url = f"redis://{host}:{port}?protocol=2"
        async with running(url, "a", operation_timeout_s=0.35) as a:
            await eventually(lambda: a.state.flushes_failed > 0)

    # Given up on the whole exchange; read to its end, it would have failed for its content.
    assert "not reached, TimeoutError" in caplog.text


async def test_gateways_meet_again_when_the_server_was_killed_and_restarted(
    valkey_server: ValkeyProcess,
) -> None:
    url = valkey_server.url
    async with (
        running(url, "a", STALENESS_S, TIMEOUT_S) as a,
        running(url, "b", STALENESS_S, TIMEOUT_S) as b,
    ):
        await connected(a, b)

        valkey_server.kill()
        await eventually(lambda: a.leads and b.leads and a.is_stale and b.is_stale)
        assert "m" in b.state.snapshot.endpoints

        await asyncio.to_thread(valkey_server.start)
        await recovered(a, b)
        await eventually(lambda: "m" in b.state.snapshot.endpoints)


async def test_a_gateway_that_starts_before_its_server_acts_alone_and_joins_later(
    valkey_server: ValkeyProcess,
) -> None:
    valkey_server.stop()
    async with running(valkey_server.url, "a", STALENESS_S, TIMEOUT_S) as a:
        assert not a.leads  # not yet: another may be leading
        took_s = await eventually(lambda: a.leads)
        assert took_s < STALENESS_S + SLACK_S
        assert a.is_stale

        await asyncio.to_thread(valkey_server.start)
        await eventually(lambda: not a.is_stale and a.state.flushes_ok > 0)


async def test_a_refused_password_is_reported_without_being_told(
    valkey_server: ValkeyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    url = valkey_server.url.replace("redis://", "redis://user:s3cret@")
    async with running(url, "a") as a:
        await eventually(lambda: a.state.flushes_failed > 0)

    assert "shared state: not reached" in caplog.text
    assert "s3cret" not in caplog.text
