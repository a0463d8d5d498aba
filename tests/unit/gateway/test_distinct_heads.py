"""Heads that never repeat: what the fast path remembers of them does not grow."""

import asyncio
import gc
import tracemalloc

from tests.fakes.client_wire import Gateway

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nx-trace: %d\r\ncontent-length: 2\r\n\r\n{}"
FIRST, THEN = 1000, 2000
MOST_GROWTH_BYTES = 64 << 10


def test_memory_stays_with_ever_new_heads():
    async def run() -> tuple[int, int, int]:
        gateway = Gateway()
        wire = gateway.wire(fast=True)
        wire.release()

        async def send(numbers: range) -> int:
            for number in numbers:
                wire.connection.data_received(HEAD % number)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await wire.settle()
            await asyncio.sleep(0.5)  # what has been answered is counted by and by
            wire.log.understood.clear()
            wire.transport.written.clear()
            gc.collect()  # a route and its ways know each other
            return wire.log.fast

        await wire.settle()
        await send(range(FIRST))
        before = tracemalloc.get_traced_memory()[0]
        fast = await send(range(FIRST, FIRST + THEN))
        growth = tracemalloc.get_traced_memory()[0] - before
        known = len(gateway.fast._known._heads)
        await wire.end()
        return growth, fast, known

    tracemalloc.start()
    try:
        growth, fast, known = asyncio.run(run())
    finally:
        tracemalloc.stop()
    assert fast == FIRST + THEN, "all of them were understood by the fast path"
    assert known == 1, "what differs decides nothing"
    assert growth < MOST_GROWTH_BYTES
