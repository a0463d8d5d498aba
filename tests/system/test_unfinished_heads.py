"""Two thousand clients whose heads never end: they cost next to nothing, and nobody else suffers.

Lines of 8 kB, which a parser that took each for itself would keep until the last one.
"""

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import model, settings

CLIENTS = 2000
MOST_GROWTH_BYTES = 60 << 20
REQUEST = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
ASKED = 400
PAUSE_S = 0.005
NOISE_S = 0.1
"""What the attacker itself takes from a machine of two cores, and others who use it."""

ATTACK = """
import resource, socket, sys
host, port, count, line_bytes = sys.argv[1], *map(int, sys.argv[2:])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
kept = []
for number in range(count):
    client = socket.create_connection((host, port), timeout=10)
    kept.append(client)
    try:
        client.sendall(b"GET / HTTP/1.1\\r\\nhost: x\\r\\n")
        for line in range(126):
            client.sendall(b"x-%d: " % line + b"a" * line_bytes + b"\\r\\n")
    except OSError:
        pass
print("sent", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def gateway(start_gateway: StartGateway, repository: Path) -> GatewayProcess:
    return start_gateway(settings(repository, model("mlp", serverless=None)))


def address(gateway: GatewayProcess) -> tuple[str, int]:
    host, port = gateway.url.removeprefix("http://").split(":")
    return host, int(port)


@contextmanager
def attack(gateway: GatewayProcess, line_bytes: int) -> Iterator[subprocess.Popen[bytes]]:
    host, port = address(gateway)
    sizes = (str(CLIENTS), str(line_bytes))
    command = [sys.executable, "-c", ATTACK, host, str(port), *sizes]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def p99_s(client: socket.socket) -> float:
    """Of requests on one connection, which was there before."""
    took = []
    for _ in range(ASKED):
        started = time.monotonic()
        client.sendall(REQUEST)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        took.append(time.monotonic() - started)
        time.sleep(PAUSE_S)
    return statistics.quantiles(took, n=100)[98]


@pytest.mark.parametrize("line_bytes", [8000, 50], ids=["too long", "just below the limit"])
def test_others_are_served_as_before_and_memory_stays(gateway: GatewayProcess, line_bytes: int):
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    with closing(socket.create_connection(address(gateway), timeout=10)) as client:
        usual_s = p99_s(client)
        before = process.memory_info().rss
        with attack(gateway, line_bytes) as attacker:
            during_s = p99_s(client)
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == b"sent\n"
            growth = process.memory_info().rss - before
        figures = f"p99 {usual_s * 1e3:.1f} -> {during_s * 1e3:.1f} ms, {growth >> 20} MiB more"
        assert growth < MOST_GROWTH_BYTES, figures
        assert during_s < 2 * usual_s + NOISE_S, figures
        if line_bytes == 8000:  # of connections that were kept, the allocator keeps some memory
            assert process.memory_info().rss < 1.1 * before, figures
    assert gateway.stop() == 0
