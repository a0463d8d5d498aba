"""A Redis in which somebody else writes too: what that costs the gateways that read it."""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from router.signals.records import FIELDS, MAX_FIELD_BYTES
from router.signals.redis import MAX_PEERS, MAX_READ_BYTES
from tests.fakes.valkey import ValkeyProcess
from tests.integration.signals.gateways import Gateway, eventually, running
from tests.integration.signals.test_shared_state import VALID, next_flush, put_member

HUGE = 200 * 1000 * 1000
EXCHANGES = 30
PATIENT_S = 2.0
"""Of one operation, so that a busy machine is not taken for a failure."""


_HUGE_FIELD = "return redis.call('HSET', KEYS[1], ARGV[1], redis.call('GET', 'huge'))"
_HUGE_MEMBER = """local now = redis.call('TIME')[1] * 1000
return redis.call('ZADD', KEYS[1], now, redis.call('GET', 'huge'))"""


def prepare(server: ValkeyProcess, size: int, script: str, key: str, *arguments: str) -> None:
    """Let the server put something huge somewhere, before there is anybody whom that holds up."""
    with server.client() as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 60
        client.setrange("huge", size - 1, b"x")
        client.eval(script, 1, key, *arguments)
        client.delete("huge")


@contextmanager
def counting_received(server: ValkeyProcess) -> Iterator[list[int]]:
    """What the server sends meanwhile, in bytes."""
    with server.client() as client:
        sent: list[int] = []
        before = client.info("stats")["total_net_output_bytes"]
        yield sent
        sent.append(client.info("stats")["total_net_output_bytes"] - before)


async def exchange_cpu_s(gateway: Gateway) -> float:
    """The processor time of an exchange here, whatever else the machine does."""
    times = []
    for _ in range(EXCHANGES):
        started_at = time.process_time()
        await gateway.state._exchange(time.monotonic())
        times.append(time.process_time() - started_at)
    return statistics.median(times)


@pytest.mark.parametrize("field", [FIELDS[0], FIELDS[-1], "another"])
async def test_a_huge_field_costs_nothing(valkey_server: ValkeyProcess, field: str) -> None:
    prepare(valkey_server, HUGE, _HUGE_FIELD, "test:gateway:evil", field)
    async with (
        running(valkey_server.url, "a", operation_timeout_s=PATIENT_S) as a,
        running(valkey_server.url, "b", operation_timeout_s=PATIENT_S) as b,
    ):
        await eventually(lambda: a.peers == {"b"} and b.peers == {"a"})
        usual_s = await exchange_cpu_s(a)
        rss = psutil.Process().memory_info().rss
        others = {name: value for name, value in VALID.items() if name != field}
        put_member(valkey_server, "evil", others)
        with counting_received(valkey_server) as sent:
            poisoned_s = await exchange_cpu_s(a)
            await next_flush(a)
        assert sent[0] < 5_000_000
        assert psutil.Process().memory_info().rss - rss < 20e6
        assert poisoned_s < 2 * usual_s + 0.005
        assert ("b" in a.peers, b.state.flushes_failed, a.state.flushes_failed) == (True, 0, 0)
        assert ("evil" in a.peers) is (field == "another"), "unknown fields are not read at all"
        assert (a.state.dropped_records > 0) is (field != "another")


async def test_a_huge_name_of_a_member_costs_nothing(valkey_server: ValkeyProcess) -> None:
    prepare(valkey_server, HUGE // 100, _HUGE_MEMBER, "test:gateways")
    async with running(valkey_server.url, "a", operation_timeout_s=PATIENT_S) as a:
        with counting_received(valkey_server) as sent:
            await next_flush(a)
            await exchange_cpu_s(a)
        with valkey_server.client() as client:
            assert client.zcard("test:gateways") == 2, "it is still there"
        assert sent[0] < 1_000_000
        assert (a.state.flushes_failed, a.state.dropped_records > 0) == (0, True)


async def test_many_records_of_permitted_size_are_bounded_together(
    valkey_server: ValkeyProcess,
) -> None:
    padded = json.dumps({"e": 1}).ljust(MAX_FIELD_BYTES)
    for number in range(MAX_PEERS):
        put_member(valkey_server, f"evil-{number:02}", VALID | {"in_flight": padded})
    async with running(valkey_server.url, "a", operation_timeout_s=PATIENT_S) as a:
        with counting_received(valkey_server) as sent:
            await a.state._exchange(time.monotonic())
        assert sent[0] < 2 * (MAX_READ_BYTES + 1_000_000), "its own loop may have read once too"
        await eventually(lambda: len(a.peers) > 0)
        assert len(a.peers) < MAX_PEERS
        assert a.state.dropped_records > 0


async def test_ten_thousand_refreshed_peers_cost_no_more_than_the_most_that_are_read(
    valkey_server: ValkeyProcess,
) -> None:
    def refresh(count: int) -> None:
        with valkey_server.client() as client:
            seconds, _ = client.time()
            now = seconds * 1000
            client.zadd("test:gateways", {f"fake-{n:05}": now for n in range(count)})
            with client.pipeline(transaction=False) as pipe:
                for number in range(count):
                    pipe.hset(f"test:gateway:fake-{number:05}", mapping=dict(VALID))
                pipe.execute()

    async with running(valkey_server.url, "a", operation_timeout_s=PATIENT_S) as a:
        refresh(MAX_PEERS)
        await eventually(lambda: len(a.peers) == MAX_PEERS)
        few_s = await exchange_cpu_s(a)
        refresh(10_000)
        rss = psutil.Process().memory_info().rss
        times = []
        for _ in range(3):
            refresh(10_000)
            times.append(await exchange_cpu_s(a))
        await next_flush(a)
        assert len(a.peers) == MAX_PEERS
        assert statistics.median(times) < 2 * few_s + 0.005
        assert psutil.Process().memory_info().rss - rss < 20e6
        assert a.state.flushes_failed == 0
        assert a.leads, "who leads does not depend on who is there"
