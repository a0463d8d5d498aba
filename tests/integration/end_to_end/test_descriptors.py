"""A process with few open files: clients cannot take those that the gateway itself needs."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from router.gateway.http.client_limits import connections_of
from tests.integration.end_to_end.gateway import GatewayProcess, eventually
from tests.integration.end_to_end.models import model, settings

DESCRIPTORS = 256
CLIENTS = 600
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def gateway(repository: Path, tmp_path: Path) -> Iterator[GatewayProcess]:
    config = settings(repository, model("mlp", serverless=None))
    started = GatewayProcess(tmp_path / "gateway", config, descriptors=DESCRIPTORS)
    try:
        yield started.start()
    finally:
        started.ensure_gone()


def address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


def status(url: str, path: str) -> int:
    connection = http.client.HTTPConnection(*address(url), timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_admin_port_and_replicas_are_reached_beside_too_many_clients(gateway: GatewayProcess):
    at = address(gateway.url)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(at, timeout=5)) for _ in range(CLIENTS)
        ]
        eventually(lambda: status(gateway.url, "/v2/health/live") == 503, "a new client is refused")
        assert status(gateway.admin, "/healthz") == 200
        clients[0].sendall(LIVE + LIVE.replace(b"health/live", b"models/mlp"))
        answer = b""
        while answer.count(b"HTTP/1.1 200") < 2:
            answer += (received := clients[0].recv(65536))
            assert received, answer
        for _ in range(100):
            assert status(gateway.admin, "/readyz") == 200
    eventually(lambda: status(gateway.url, "/v2/health/live") == 200, "there is room again")
    assert f"allows {connections_of(DESCRIPTORS)}" in gateway.log
    assert "no client can be accepted" not in gateway.log
    assert gateway.stop() == 0
