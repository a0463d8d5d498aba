"""Clients that behave badly, each kind for a while; none may cost the others a thing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import aiohttp

from tests.soak.replicas import HASTY
from tests.soak.stage import GUEST, Stage, mlp_body

_HEADS = 100
_IDLE = 500
_DRIPPING = 8
_HASTY = 5
_DRIP_S = 0.1
_TAKES_A_SLOT_BYTES = 300_000
_POST = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n" % GUEST.encode()
_BROKEN_CHUNKS = (
    b"zz\r\n{}\r\n0\r\n\r\n",
    b"-5\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}0\r\n\r\n",
    b"ffffffffffffffffff\r\n{}",
    b"5;" + b"x" * 20_000,
    b"0\r\n" + b"x-trailer: y\r\n" * 2000,
    b"2\r\n{",
)
"""Lengths that are none, or too long, ends that are missing, and extensions without an end."""


@asynccontextmanager
async def unfinished_heads(stage: Stage, rng: Random) -> AsyncIterator[None]:
    """Heads that end nowhere: some within the bound, some far beyond it."""
    head = _POST + b"x-long: " + b"y" * rng.choice((100, 6_000, 60_000))
    async with _connections(stage, _HEADS, head):
        yield


@asynccontextmanager
async def idle_connections(stage: Stage, _: Random) -> AsyncIterator[None]:
    """Many that say nothing."""
    async with _connections(stage, _IDLE, b""):
        yield


@asynccontextmanager
async def slow_uploads(stage: Stage, rng: Random) -> AsyncIterator[None]:
    """Long bodies bit by bit; two of them have sent enough to be given a slot."""
    head = _POST + b"content-length: 67108864\r\n\r\n"
    first = rng.choice((0, 1000, 200_000))
    async with (
        _connections(stage, _DRIPPING - 2, head + b"x" * first) as slow,
        _connections(stage, 2, head + b"x" * _TAKES_A_SLOT_BYTES) as started,
    ):
        dripping = asyncio.create_task(_drip(slow + started))
        try:
            yield
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)


@asynccontextmanager
async def broken_chunks(stage: Stage, rng: Random) -> AsyncIterator[None]:
    """Chunked bodies that are none."""
    head = _POST + b"transfer-encoding: chunked\r\n\r\n"
    async with (
        _connections(stage, 5, head + rng.choice(_BROKEN_CHUNKS)),
        _connections(stage, 5, head + rng.choice(_BROKEN_CHUNKS)),
    ):
        yield


@asynccontextmanager
async def hasty_clients(stage: Stage, _: Random) -> AsyncIterator[None]:
    """Requests that give their model a microsecond: their own fault, not that of a replica."""
    body = mlp_body()[:-1] + b', "parameters": {%b}}' % HASTY
    headers = {"content-type": "application/json", "x-api-key": GUEST}
    async with aiohttp.ClientSession(stage.gateway.url, headers=headers) as session:
        for name in ("m", "mlp") * _HASTY:
            async with session.post(f"/v2/models/{name}/infer", data=body) as response:
                await response.read()
                stage.statuses[f"hasty {name} {response.status}"] += 1
    yield


@asynccontextmanager
async def _connections(
    stage: Stage, count: int, begin: bytes
) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """So many that send this; the gateway may have ended them before the block does."""
    writers = [(await asyncio.open_connection(*stage.address))[1] for _ in range(count)]
    try:
        for writer in writers:
            writer.write(begin)
        yield writers
    finally:
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()


async def _drip(writers: list[asyncio.StreamWriter]) -> None:
    while True:
        await asyncio.sleep(_DRIP_S)
        for writer in writers:
            if not writer.is_closing():
                writer.write(b"x" * 240)
