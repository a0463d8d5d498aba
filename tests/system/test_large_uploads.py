"""64 clients send large bodies at once: the gateway holds a small part of each, at any moment.

The worst one is when the replica has stopped reading, and every buffer on the way is full.
"""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest

from tests.benchmarks.processes import peak_rss_bytes, reset_peak, rss_bytes
from tests.fakes.upload_server import Arrival, UploadServer, upload_server
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess

MB, MIB = 1e6, 1 << 20
CLIENTS = 64
CHUNK = hashlib.shake_128(b"body").digest(MIB)
QUIET_S = 0.3


@dataclass
class Growth:
    """What a process has had beyond what it had at the beginning."""

    bytes: int = 0


@contextmanager
def growth_of(gateway: GatewayProcess) -> Iterator[Growth]:
    """The growth at its peak, once the block has ended."""
    assert gateway.process is not None
    growth, idle = Growth(), rss_bytes(gateway.process.pid)
    reset_peak(gateway.process.pid)
    yield growth
    growth.bytes = peak_rss_bytes(gateway.process.pid) - idle


class Uploads:
    """Clients that each send one body of some chunks; `sent` is what has left them."""

    def __init__(self, gateway: GatewayProcess, chunks: int) -> None:
        lines = ["POST /v2/models/m/infer HTTP/1.1", "host: x", f"content-length: {chunks * MIB}"]
        self._head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self._port = int(gateway.url.rpartition(":")[2])
        self._chunks = chunks
        self._digest = hashlib.sha256(CHUNK * chunks).hexdigest().encode()
        self.sent = 0

    async def arrive(self) -> None:
        """All at once, and every byte of each."""
        answers = await asyncio.gather(*(self._send() for _ in range(CLIENTS)))
        assert all(self._digest in answer for answer in answers)

    async def _send(self) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", self._port))
            await loop.sock_sendall(client, self._head)
            for _ in range(self._chunks):
                await loop.sock_sendall(client, CHUNK)
                self.sent += MIB
            return await loop.sock_recv(client, 4096)

    async def until_stuck(self) -> None:
        """Until nobody could send any more for a while."""
        before = -1
        while before != self.sent:
            before = self.sent
            await asyncio.sleep(QUIET_S)


@asynccontextmanager
async def serving(
    start: StartGateway, fast: bool
) -> AsyncIterator[tuple[GatewayProcess, UploadServer]]:
    """A gateway whose connections to its replica are open, and warm."""
    async with upload_server() as server:
        # Unfinished bodies get half of the slots: here all of them may be under way at once.
        pool = {"kind": "static", "urls": [server.url], "concurrency": 2 * CLIENTS}
        model = {"name": "m", "slo": {"latency_ms": 60_000}, "pool": pool}
        config = {"server": {"fast_path": fast}, "models": [model]}
        gateway = await asyncio.to_thread(start, config)
        await Uploads(gateway, 1).arrive()
        yield gateway, server
        assert await asyncio.to_thread(gateway.stop) == 0


@pytest.mark.parametrize(
    ("fast", "chunks", "most"),
    [(True, 4, 20 * MB), (True, 32, 60 * MB), (False, 32, 60 * MB)],
    ids=["fast, 4 MiB each", "fast, 32 MiB each", "ordinary, 32 MiB each"],
)
async def test_bodies_that_flow(
    start_gateway: StartGateway, fast: bool, chunks: int, most: float
) -> None:
    async with serving(start_gateway, fast) as (gateway, _):
        with growth_of(gateway) as growth:
            await Uploads(gateway, chunks).arrive()
        assert growth.bytes < most


@pytest.mark.parametrize("fast", [False, True], ids=["ordinary", "fast"])
async def test_bodies_that_nobody_takes_for_a_while(
    start_gateway: StartGateway, fast: bool
) -> None:
    go_on = asyncio.Event()

    async def waits(arrival: Arrival) -> None:
        await arrival.read(MIB)
        await go_on.wait()
        await arrival.read()
        await arrival.answer()

    async with serving(start_gateway, fast) as (gateway, server):
        server.behave = waits
        uploads = Uploads(gateway, 32)
        with growth_of(gateway) as growth:
            arriving = asyncio.create_task(uploads.arrive())
            await server.arrival(2 * CLIENTS - 1)
            await uploads.until_stuck()
            assert uploads.sent < CLIENTS * 32 * MIB, "what is not passed on is not taken"
            go_on.set()
            await arriving
        assert growth.bytes < 60 * MB
