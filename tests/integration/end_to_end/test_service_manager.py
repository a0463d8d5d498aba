"""A gateway under a service manager, of one process and of two: systemd's protocol, as it ends."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.models import model, settings


class Manager:
    """What systemd has: a datagram socket on which units tell how they are."""

    def __init__(self, there: socket.socket) -> None:
        self._there = there

    def is_silent(self, for_s: float) -> bool:
        """Whether nothing comes for so long, once what had come before is read."""
        self._there.settimeout(for_s)
        try:
            while self._there.recv(4096):
                pass
        except TimeoutError:
            return True
        finally:
            self._there.settimeout(60)
        return False

    def hear(self, wanted: str, unless: str = "nothing") -> dict[str, str]:
        """The next message that says `wanted`; fails at one that says `unless`."""
        while True:
            lines = self._there.recv(4096).decode().split("\n")
            assert unless not in lines
            if wanted in lines:
                return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(address)
        there.settimeout(60)
        yield Manager(there), address


@pytest.mark.parametrize("processes", [1, 2])
def test_it_tells_its_manager_how_it_does(
    processes: int,
    manager: tuple[Manager, str],
    start_gateway: StartGateway,
    repository: Path,
):
    heard, address = manager
    config = settings(repository, model("echo"))
    config["server"]["processes"] = processes
    gateway = start_gateway(config, NOTIFY_SOCKET=address, WATCHDOG_USEC="400000")
    assert gateway.url in heard.hear("READY=1")["STATUS"]
    heard.hear("WATCHDOG=1")
    assert gateway.process is not None

    gateway.process.send_signal(signal.SIGHUP)
    heard.hear("RELOADING=1", unless="READY=1")
    assert "was read again" in heard.hear("READY=1")["STATUS"]

    gateway.config["models"][0]["slo"]["latency_ms"] = -1
    gateway.write_config()
    gateway.process.send_signal(signal.SIGHUP)
    heard.hear("RELOADING=1", unless="READY=1")
    assert "mistakes" in heard.hear("READY=1")["STATUS"]

    gateway.process.send_signal(signal.SIGTERM)
    heard.hear("STOPPING=1", unless="READY=1")
    assert gateway.wait() == 0


def test_a_loop_that_stands_still_is_silent(
    manager: tuple[Manager, str], start_gateway: StartGateway, repository: Path
):
    heard, address = manager
    gateway = start_gateway(
        settings(repository, model("echo")), NOTIFY_SOCKET=address, WATCHDOG_USEC="200000"
    )
    heard.hear("WATCHDOG=1")
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGSTOP)
    assert heard.is_silent(for_s=1.0)
    gateway.process.send_signal(signal.SIGCONT)
    heard.hear("WATCHDOG=1")
    assert gateway.stop() == 0


def test_without_a_manager_a_closed_terminal_ends_it(start_gateway: StartGateway, repository: Path):
    gateway = start_gateway(settings(repository, model("echo")))
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGHUP)
    assert gateway.wait() == -signal.SIGHUP
