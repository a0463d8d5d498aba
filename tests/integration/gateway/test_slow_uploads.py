"""Clients that send slowly: they hold no slot, and nobody waits for them longer than the rule says.

On the ordinary path, and on the fast path with heads that it knows.
"""

import asyncio
import time

import pytest

from router.gateway.body import PACE_BYTES, WINDOW_BYTES, allowed_s
from tests.fakes.upstreams import ok
from tests.integration.harness import INFER, Harness

SLOTS = 8
SIZE = 64 << 20
BYTES_PER_S = 2400
RATE_PER_S = 20
PATIENT_BYTES = WINDOW_BYTES + 70_000
HEAD = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


@pytest.fixture(params=["ordinary", "fast"])
def make(request, tmp_path):
    """A gateway with one replica of eight slots."""

    def harness(**server: str) -> Harness:
        settings = {"fast_path": request.param == "fast", **server}
        pool = {"concurrency": SLOTS, "queue": {"max_wait": "1s"}}
        return Harness(tmp_path, warm=[ok()], server=settings, pool=pool)

    return harness


class Slow:
    """A client that sends a long body bit by bit, after `first` bytes of it at once."""

    def __init__(self, gateway: Harness, first: int = 0) -> None:
        self._gateway = gateway
        self._first = first
        self.status = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        reader, writer = await self._gateway.connect()
        writer.write((HEAD % SIZE).encode() + b"x" * self._first)
        sending = asyncio.create_task(self._drip(writer))
        try:
            line = await reader.readline()
        finally:
            sending.cancel()
        self.status.set_result(int(line.split()[1]) if line else 0)

    @staticmethod
    async def _drip(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"x" * (BYTES_PER_S // 10))
            await asyncio.sleep(0.1)


async def known(gateway: Harness) -> None:
    """Teach the fast path the head of the long body and that of the short ones."""
    for size in (300_000, 2):
        assert (await gateway.raw((HEAD % size).encode() + b"x" * size)).split()[1] == b"200"


async def test_slow_uploads_take_no_slot_from_others(make):
    async with make() as gateway:
        await known(gateway)
        slow = [asyncio.create_task(Slow(gateway, 1000).run()) for _ in range(SLOTS)]
        await gateway.until(lambda: gateway.gateway._data.limits.open >= SLOTS)
        others = []
        for _ in range(2 * RATE_PER_S):
            others.append(asyncio.create_task(gateway.infer()))
            await asyncio.sleep(1 / RATE_PER_S)
        assert [(await task).status for task in others] == [200] * len(others)
        assert gateway.pool.in_flight == 0
        for task in slow:
            task.cancel()


async def test_patient_uploads_leave_half_of_the_slots_to_others(make):
    """Each has sent enough for a slot, and then keeps within what the rule allows."""
    async with make() as gateway:
        await known(gateway)
        slow = [asyncio.create_task(Slow(gateway, PATIENT_BYTES).run()) for _ in range(SLOTS)]
        held = gateway.gateway._data.bodies
        await gateway.until(lambda: held.held_bytes >= SLOTS * WINDOW_BYTES)
        others = []
        for _ in range(2 * RATE_PER_S):
            others.append(asyncio.create_task(gateway.infer()))
            await asyncio.sleep(1 / RATE_PER_S)
        assert [(await task).status for task in others] == [200] * len(others)
        assert gateway.pool.in_flight == SLOTS // 2
        for task in slow:
            task.cancel()


async def test_an_upload_without_a_place_is_served_when_it_is_complete(make):
    async with make() as gateway:
        await known(gateway)
        slow = [asyncio.create_task(Slow(gateway, PATIENT_BYTES).run()) for _ in range(SLOTS)]
        await gateway.until(lambda: gateway.pool.in_flight == SLOTS // 2)
        body = b"x" * PATIENT_BYTES
        assert (await gateway.infer(body)).status == 200
        assert gateway.warm[0].received[-1].body == body
        for task in slow:
            task.cancel()


async def test_what_clients_only_announce_keeps_no_body_out(tmp_path):
    """They announce all the memory that there is, for a function that gets bodies whole."""
    server = {"max_body": "1MiB", "max_buffered": "1MiB"}
    async with Harness(tmp_path, function=ok(), server=server) as gateway:
        _, writer = await gateway.connect()
        writer.write((HEAD % (1 << 20)).encode())
        await gateway.until(lambda: gateway.in_flight == 1)
        assert (await gateway.infer(b"x" * 60_000)).status == 200
        writer.close()


@pytest.mark.parametrize("first", [0, 1000, WINDOW_BYTES - 1, WINDOW_BYTES, WINDOW_BYTES + 70_000])
async def test_they_are_told_in_time_and_leave_nothing(make, first):
    timeout_s = 0.4
    async with make(body_timeout="400ms") as gateway:
        await known(gateway)
        started = time.monotonic()
        slow = [Slow(gateway, first) for _ in range(SLOTS)]
        tasks = [asyncio.create_task(client.run()) for client in slow]
        async with asyncio.timeout(10):
            assert [await client.status for client in slow] == [408] * SLOTS
        assert time.monotonic() - started >= allowed_s(timeout_s, first) - 0.1
        await gateway.until(lambda: gateway.in_flight == 0)
        assert (gateway.pool.in_flight, gateway.gateway._data.bodies.held_bytes) == (0, 0)
        assert (await gateway.infer()).status == 200
        await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("received", "times"), [(0, 1.0), (PACE_BYTES, 2.0), (64 * PACE_BYTES, 65.0)]
)
def test_the_time_grows_with_what_has_come(received, times):
    assert allowed_s(30.0, received) == 30.0 * times
