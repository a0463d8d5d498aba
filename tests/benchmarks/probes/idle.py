"""Many idle keep-alive clients: what each costs, and whether others are still served well."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.load import Bodies
from tests.benchmarks.processes import cpu_s, rss_bytes
from tests.benchmarks.results import Finding
from tests.benchmarks.rounds import Bench, measure
from tests.benchmarks.scenarios import BY_NAME
from tests.benchmarks.systems.system import Running

_REQUEST = b"GET /v2/health/live HTTP/1.1\r\nHost: bench\r\n\r\n"
_OK = b"HTTP/1.1 200"
_TIMEOUT_S = 10.0
_REST_S = 2.0


def idle_connections(
    bench: Bench, live: Running, connections: int, seconds: float
) -> list[Finding]:
    """Memory and CPU of idle connections, and the p99 of 32 busy ones beside them."""
    scenario = BY_NAME["infer-32"]
    bodies = Bodies.write(bench.folder / "idle.body", scenario.bodies)
    before = rss_bytes(live.pid)
    with _opened(live.port, connections) as clients:
        grown_kb = (rss_bytes(live.pid) - before) / 1000 / connections
        cpu = cpu_s(live.pid)
        time.sleep(_REST_S)
        busy = (cpu_s(live.pid) - cpu) / _REST_S * 100
        beside = measure(bench, scenario, live, bodies, seconds)
        if beside.errors:
            raise BenchmarkError(f"{beside.errors} errors beside {connections} idle connections")
        _ask_all(clients)
    what = f"{connections:,} idle connections"
    return [
        Finding(f"idle-{connections}-memory", f"{what}: RSS each", grown_kb, "kB"),
        Finding(f"idle-{connections}-cpu", f"{what}: CPU of one core", busy, "%"),
        Finding(
            f"idle-{connections}-p99",
            f"{what}: p99 of 32 busy ones beside them",
            beside.p99_ms,
            "ms",
        ),
    ]


@contextmanager
def _opened(port: int, count: int) -> Iterator[Sequence[socket.socket]]:
    """Clients that have been answered once and stay. Raises BenchmarkError if one is refused."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(
                socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
            )
            clients.append(client)
        _ask_all(clients)
        yield clients


def _ask_all(clients: Sequence[socket.socket]) -> None:
    for number, client in enumerate(clients):
        try:
            client.sendall(_REQUEST)
            answer = client.recv(4096)
        except OSError as error:
            raise BenchmarkError(f"idle connection {number} broke: {error}") from error
        if not answer.startswith(_OK):
            raise BenchmarkError(f"idle connection {number} was answered {answer[:60]!r}")
