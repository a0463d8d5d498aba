"""Several gateways on one real server: what they see of each other, and who leads."""

import logging

import pytest

from router.signals.redis import MAX_PEERS
from router.signals.snapshot import ModelTotals, SharedEndpoint
from tests.fakes.valkey import ValkeyProcess
from tests.integration.signals.gateways import Gateway, eventually, running

VALID = {"totals": "{}", "endpoints": "{}", "in_flight": "{}"}


def put_member(server: ValkeyProcess, member: str | bytes, fields: dict[str, str]) -> None:
    """Write a peer by hand, dated by the server's clock."""
    with server.client() as client:
        seconds, microseconds = client.time()
        client.zadd("test:gateways", {member: seconds * 1000 + microseconds // 1000})
        if fields:
            client.hset(f"test:gateway:{member!s}", mapping=dict(fields))


async def next_flush(gateway: Gateway) -> None:
    """Wait until a flush that began after this call has ended."""
    before = gateway.state.flushes_ok
    await eventually(lambda: gateway.state.flushes_ok >= before + 2)


async def test_gateways_see_the_others_and_not_themselves(valkey_server: ValkeyProcess) -> None:
    url = valkey_server.url
    async with running(url, "a") as a, running(url, "b") as b, running(url, "c") as c:
        a.book.model("m").arrived(2.0, 0.5, is_captive=True)
        a.endpoints = {"m": [SharedEndpoint("a-1", "http://127.0.0.1:9001", 4, "a")]}
        c.endpoints = {"m": [SharedEndpoint("c-1", "http://127.0.0.1:9003", 2, "c")]}
        a.in_flight, c.in_flight = {"c-1": 1, "a-1": 2}, {"a-1": 3}
        await eventually(lambda: len(b.state.snapshot.endpoints.get("m", ())) == 2)
        await eventually(lambda: b.state.snapshot.peers["a"] == a.book.totals())

        assert b.peers == {"a", "c"}
        assert b.state.snapshot.peers["a"] == {"m": ModelTotals(1, 2.0, 0.5, 1, 2.0)}
        assert b.state.snapshot.endpoints["m"] == (
            SharedEndpoint("a-1", "http://127.0.0.1:9001", 4, "a"),
            SharedEndpoint("c-1", "http://127.0.0.1:9003", 2, "c"),
        )
        await eventually(lambda: b.state.snapshot.peer_in_flight == {"a-1": 5, "c-1": 1})
        await eventually(lambda: a.state.snapshot.peer_in_flight == {"a-1": 3})
        assert [found.id for found in a.state.snapshot.endpoints["m"]] == ["c-1"]
        assert not b.is_stale


async def test_new_arrivals_and_removed_models_reach_the_others(
    valkey_server: ValkeyProcess,
) -> None:
    async with running(valkey_server.url, "a") as a, running(valkey_server.url, "b") as b:
        a.book.model("old").arrived(1.0, 0.1, is_captive=False)
        await eventually(lambda: "old" in b.state.snapshot.peers.get("a", {}))

        a.book.model("new").arrived(1.0, 0.1, is_captive=False)
        a.book.retain(["new"])

        await eventually(lambda: set(b.state.snapshot.peers["a"]) == {"new"})


async def test_namespaces_do_not_mix(valkey_server: ValkeyProcess) -> None:
    put_member(valkey_server, "stranger", VALID)
    with valkey_server.client() as client:
        client.rename("test:gateways", "other:gateways")

    async with running(valkey_server.url, "a") as a:
        await next_flush(a)
        assert a.peers == set()


async def test_exactly_one_leads_and_a_clean_stop_hands_over_at_once(
    valkey_server: ValkeyProcess,
) -> None:
    url = valkey_server.url
    async with running(url, "b") as b:
        await eventually(lambda: b.leads)
        async with running(url, "a") as a:
            await eventually(lambda: b.peers == {"a"})
            await next_flush(a)
            assert b.leads
            assert not a.leads
        await eventually(lambda: b.peers == set())

        async with running(url, "c") as c:
            await next_flush(c)
            async with running(url, "d") as d:
                await next_flush(d)
                assert [g.id for g in (b, c, d) if g.leads] == ["b"]

    # All left in good order: nothing of them is on the server.
    with valkey_server.client() as client:
        assert client.keys("test:*") == []


async def test_the_next_takes_over_when_the_leader_leaves(valkey_server: ValkeyProcess) -> None:
    async with running(valkey_server.url, "a") as a:
        await eventually(lambda: a.leads)
        successor = running(valkey_server.url, "b")
        b = await successor.__aenter__()
        await next_flush(b)
        assert not b.leads
    # By release: the lease would have lasted for 30 s.
    took_s = await eventually(lambda: b.leads)
    await successor.__aexit__(None, None, None)

    assert took_s < 5


async def test_the_next_takes_over_when_the_leader_has_vanished(
    valkey_server: ValkeyProcess,
) -> None:
    put_member(valkey_server, "ghost", VALID)
    with valkey_server.client() as client:
        client.set("test:leader", "ghost", px=700)

    async with running(valkey_server.url, "a") as a:
        await eventually(lambda: a.peers == {"ghost"})
        assert not a.leads
        # Flushing goes on meanwhile: a follower must not extend the leader's lease.
        took_s = await eventually(lambda: a.leads)
        assert took_s < 5
        assert not a.is_stale


async def test_the_leader_extends_its_lease(valkey_server: ValkeyProcess) -> None:
    async with running(valkey_server.url, "a") as a:
        await eventually(lambda: a.leads)
        with valkey_server.client() as client:
            client.pexpire("test:leader", 5_000)
            await next_flush(a)
            assert client.get("test:leader") == b"a"
            assert client.pttl("test:leader") > 20_000


async def test_a_gateway_that_vanished_is_forgotten(valkey_server: ValkeyProcess) -> None:
    put_member(valkey_server, "ghost", VALID)

    async with running(valkey_server.url, "a", staleness_s=0.3) as a:
        await eventually(lambda: a.peers == {"ghost"})
        await eventually(lambda: a.peers == set())

        with valkey_server.client() as client:
            assert client.zrange("test:gateways", 0, -1) == [b"a"]
            assert 0 < client.pttl("test:gateway:a") <= 1300


async def test_a_member_whose_record_has_expired_is_neither_a_peer_nor_an_error(
    valkey_server: ValkeyProcess,
) -> None:
    put_member(valkey_server, "leaving", {})

    async with running(valkey_server.url, "a") as a:
        await next_flush(a)
        assert a.peers == set()
        assert a.state.dropped_records == 0


async def test_entries_from_the_future_are_removed(valkey_server: ValkeyProcess) -> None:
    with valkey_server.client() as client:
        client.zadd("test:gateways", {"future": 1e15})

        async with running(valkey_server.url, "a") as a:
            await next_flush(a)
            assert client.zrange("test:gateways", 0, -1) == [b"a"]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(VALID | {"totals": "{{{"}, id="bad JSON"),
        pytest.param(VALID | {"totals": '{"m": {"arrivals": 1e300}}'}, id="absurd numbers"),
        pytest.param(VALID | {"endpoints": '{"m": [1, 2]}'}, id="wrong types"),
        pytest.param({"totals": "{}"}, id="missing fields"),
        pytest.param({"garbage": "x" * 3_000_000}, id="megabytes of garbage"),
    ],
)
async def test_a_peer_that_writes_garbage_is_dropped_and_counted(
    valkey_server: ValkeyProcess, fields: dict[str, str]
) -> None:
    put_member(valkey_server, "evil", fields)

    async with running(valkey_server.url, "a") as a, running(valkey_server.url, "b") as b:
        await eventually(lambda: a.peers == {"b"} and a.state.dropped_records > 0)
        await next_flush(b)

        assert b.peers == {"a"}
        assert a.state.flushes_failed == 0


async def test_odd_members_and_keys_of_the_wrong_type_are_dropped(
    valkey_server: ValkeyProcess,
) -> None:
    put_member(valkey_server, b"\xff\r\n", {})
    put_member(valkey_server, "x" * 5000, {})
    put_member(valkey_server, "evil", {})
    with valkey_server.client() as client:
        client.set("test:gateway:evil", "not a hash")
        client.set("test:gateway:a", "not a hash either")

    async with running(valkey_server.url, "a") as a, running(valkey_server.url, "b") as b:
        await eventually(lambda: a.peers == {"b"} and b.peers == {"a"})
        dropped = a.state.dropped_records
        await next_flush(a)

        assert a.state.dropped_records >= dropped + 3
        assert a.state.flushes_failed == 0


async def test_a_crowd_of_peers_is_bounded(valkey_server: ValkeyProcess) -> None:
    for number in range(MAX_PEERS + 20):
        put_member(valkey_server, f"peer-{number:03}", VALID)

    async with running(valkey_server.url, "a") as a:
        await next_flush(a)
        assert len(a.peers) == MAX_PEERS


async def test_a_shared_key_of_the_wrong_type_is_a_failure_until_it_is_gone(
    valkey_server: ValkeyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with valkey_server.client() as client:
        client.set("test:gateways", "not a sorted set")
        async with running(valkey_server.url, "a") as a:
            await eventually(lambda: a.state.flushes_failed > 1)
            assert a.state.flushes_ok == 0
            client.delete("test:gateways")
            await next_flush(a)

            assert a.leads
    assert "WRONGTYPE" in caplog.text


async def test_a_publication_that_raises_does_not_end_the_loop(
    valkey_server: ValkeyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(valkey_server.url, "a") as a:
        await next_flush(a)
        broken: dict[str, int] = {"e": object()}  # type: ignore[dict-item]
        a.in_flight = broken
        await eventually(lambda: a.state.flushes_failed > 1)
        a.in_flight = {}
        await next_flush(a)

    logged = [line for line in caplog.records if line.levelno == logging.WARNING]
    assert len(logged) == 1
    assert logged[0].exc_info is not None
