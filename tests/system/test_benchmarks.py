"""The benchmark itself, in its smoke setting, and the upstream that everything is measured with."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.benchmarks.children import exchange
from tests.benchmarks.tools import Tools
from tests.benchmarks.upstream import Upstream, upstream

_ROOT = Path(__file__).parents[2]


def test_a_smoke_run_measures_every_system_without_error_and_writes_its_files(tmp_path: Path):
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=_ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    [scenario] = results["scenarios"]
    rows = {row["system"]: row["samples"] for row in scenario["rows"]}
    assert set(rows) == {"nginx", "gateway", "plain-aiohttp"}
    for [sample] in rows.values():
        assert sample["errors"] == 0
        assert sample["rps"] > 50
        assert 1 < sample["cpu_us"] < 20_000
        assert sample["rss_mb"] > 1
    assert "CPU us/req" in (tmp_path / "table.md").read_text()
    assert "</svg>" in (tmp_path / "plot.svg").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    folder = tmp_path_factory.mktemp("upstream")
    with upstream(Tools(folder), folder) as running:
        yield running


@pytest.mark.parametrize("size", [1, 300, 5_000_000], ids=["1 B", "300 B", "5 MB"])
def test_the_upstream_counts_a_body_and_answers_300_bytes(server: Upstream, size: int):
    before = server.posts()
    status, body = exchange(server.port, "POST", "/v2/models/m/infer", b"x" * size)
    assert (status, len(body)) == (200, 300)
    assert json.loads(body)["received"] == size
    assert server.posts() == before + 1


def test_the_upstream_answers_an_invocation_with_the_envelope_of_300_bytes(server: Upstream):
    path = "/2015-03-31/functions/bench/invocations"
    status, body = exchange(server.port, "POST", path, b"{}")
    envelope = json.loads(body)
    assert (status, envelope["statusCode"], envelope["isBase64Encoded"]) == (200, 200, False)
    assert len(envelope["body"]) == 300
    assert json.loads(envelope["body"])["received"] == 2


def test_the_upstream_sends_as_many_events_as_are_asked_for(server: Upstream):
    before = server.events()
    _, body = exchange(server.port, "POST", "/x", b"{}", lines=["x-events: 3"])
    events = [json.loads(line.removeprefix("data: ")) for line in body.decode().split("\n\n")[:-1]]
    assert [event["number"] for event in events] == [0, 1, 2]
    times = [event["sent_ns"] for event in events]
    assert times == sorted(times)
    assert server.events() == before + 3


def test_the_upstream_outlives_clients_that_leave_in_the_middle_of_a_stream(server: Upstream):
    head = b"POST /x HTTP/1.1\r\nx-events: 100\r\nContent-Length: 0\r\n\r\n"
    for _ in range(3):
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as client:
            client.sendall(head)
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")
    assert exchange(server.port, "POST", "/x", b"{}", lines=["x-events: 5"])[1].count(b"data:") == 5


def test_the_upstream_goes_on_after_it_was_stopped(server: Upstream):
    before = server.posts()
    with server.stopped():
        pass
    assert server.posts() == before


_POST = b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
_GET = b"GET /x HTTP/1.1\r\n\r\n"
_EXPECTING = (
    b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
_CLOSE = b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (_POST + _GET + _POST + _CLOSE, [b"200"] * 4),
        (b"GET /x HTTP/1.0\r\n\r\n", [b"200"]),
        (b"HEAD /x HTTP/1.1\r\nConnection: close\r\n\r\n", [b"200"]),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [b"411"]),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", [b"431"]),
        (_EXPECTING, [b"100", b"200"]),
    ],
    ids=["pipelined", "HTTP/1.0", "HEAD", "chunked is refused", "head too large", "continue"],
)
def test_the_upstream_speaks_http(server: Upstream, sent: bytes, statuses: list[bytes]):
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as client:
        client.sendall(sent)
        with client.makefile("rb") as stream:
            answer = stream.read()
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == statuses


def test_the_upstream_takes_a_head_byte_by_byte(server: Upstream):
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in _POST:
            client.sendall(bytes([byte]))
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")
