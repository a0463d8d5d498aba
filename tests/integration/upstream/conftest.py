import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from router.upstream.address import parse_address
from router.upstream.client import Call, UpstreamClient
from router.upstream.connection_pool import UpstreamLimits
from tests.fakes.scripted_server import ScriptedServer


def pytest_asyncio_loop_factories():
    """Run each test on both event loops: the gateway uses uvloop where there is one."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = Call("POST", "/v2/models/m/infer", [("content-type", "application/json")], b"{}")
GET = Call("GET", "/v2", is_idempotent=True)


@pytest.fixture
async def make_client():
    """Make clients with given limits; all are closed at the end, and leave nothing behind."""
    clients: list[UpstreamClient] = []
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def make(**limits):
        client = UpstreamClient(clock=time.monotonic, limits=UpstreamLimits(**limits))
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()
        assert client.stats() == {}
    assert complaints == [], "the event loop had to report an error"


@pytest.fixture
def client(make_client):
    return make_client()


def stats_of(client: UpstreamClient, server: ScriptedServer) -> tuple[int, int]:
    """Return (open, idle) of a server's address; (0, 0) when it has no connection."""
    return client.stats().get(parse_address(server.url), (0, 0))


def open_sockets() -> set[str]:
    """The sockets that this process holds, by the kernel's names for them."""
    names = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor that lists the folder
            names.add(str(link.readlink()))
    return {name for name in names if name.startswith("socket:")}


async def closed(server: ScriptedServer) -> None:
    """Wait until the client has closed its first connection."""
    connection = await server.connection(0)
    async with asyncio.timeout(10):
        await connection.closed_by_peer.wait()


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, for a bounded time."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)
