"""Ten thousand idle clients: kept, cheap, and no hindrance to the others."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import model, settings

WANTED = 10_000
SPARE = 500
REQUEST = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
MOST_BYTES_EACH = 20_000


@pytest.fixture
def descriptors() -> Iterator[int]:
    """As many as this process may have at most, for the time of the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def gateway(start_gateway: StartGateway, repository: Path) -> GatewayProcess:
    return start_gateway(settings(repository, model("mlp", serverless=None)))


def asks(client: socket.socket) -> bytes:
    client.sendall(REQUEST)
    return client.recv(4096)


def test_they_are_kept_cheaply_and_all_are_still_served(gateway: GatewayProcess, descriptors: int):
    count = min(WANTED, descriptors - SPARE)
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    host, port = gateway.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            for _ in range(count)
        ]
        assert {asks(client)[:12] for client in clients} == {b"HTTP/1.1 200"}
        assert (process.memory_info().rss - before) / count < MOST_BYTES_EACH
        cpu = sum(process.cpu_times()[:2])
        time.sleep(3)
        assert sum(process.cpu_times()[:2]) - cpu < 0.5, "idle connections cost next to nothing"
        started = time.monotonic()
        with socket.create_connection((host, int(port)), timeout=10) as another:
            assert asks(another).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - started < 1
        assert {asks(client)[:12] for client in clients} == {b"HTTP/1.1 200"}
    assert gateway.stop() == 0
