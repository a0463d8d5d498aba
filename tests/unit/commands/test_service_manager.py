"""What is told to the service manager: sd_notify's datagrams, on a real socket."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.commands.service_manager import ServiceManager, Wanted, wanted_by

PATH = {"NOTIFY_SOCKET": "/run/notify"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": ""}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, None),
        (PATH, Wanted("/run/notify", None)),
        (PATH | {"WATCHDOG_USEC": "3000000"}, Wanted("/run/notify", 3.0)),
        (PATH | {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, Wanted("/run/notify", 3.0)),
        (PATH | {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, Wanted("/run/notify", None)),
        (PATH | {"WATCHDOG_USEC": "0"}, Wanted("/run/notify", None)),
        (PATH | {"WATCHDOG_USEC": "soon"}, Wanted("/run/notify", None)),
    ],
)
def test_what_the_manager_wants(environment: dict[str, str], wanted: Wanted | None):
    assert wanted_by(environment, pid=7) == wanted


@pytest.fixture(params=["path", "abstract"])
def listening(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        if request.param == "path":
            address = str(tmp_path / "notify")
            manager.bind(address)
        else:
            manager.bind("")  # the kernel chooses a name without a file
            address = "@" + manager.getsockname()[1:].decode()
        manager.settimeout(10)
        yield manager, address


def test_each_change_is_one_datagram(listening: tuple[socket.socket, str]):
    there, address = listening
    with ServiceManager(Wanted(address, None)) as manager:
        manager.ready("serving")
        assert there.recv(4096) == b"READY=1\nSTATUS=serving"
        manager.reloading()
        first, second, _ = there.recv(4096).split(b"\n")
        assert first == b"RELOADING=1"
        assert int(second.removeprefix(b"MONOTONIC_USEC=")) > 0
        manager.stopping()
        assert there.recv(4096).startswith(b"STOPPING=1\n")


async def test_the_watchdog_hears_twice_in_its_period(listening: tuple[socket.socket, str]):
    there, address = listening
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError

    with ServiceManager(Wanted(address, 8.0)) as manager:
        watching = asyncio.create_task(manager.keep_alive(sleep))
        await asyncio.sleep(0)
        assert slept == [], "while it starts there is another limit"
        manager.ready("serving")
        with pytest.raises(asyncio.CancelledError):
            await watching
    assert slept == [4.0, 4.0, 4.0]
    assert there.recv(100).startswith(b"READY=1")
    assert [there.recv(100) for _ in slept] == [b"WATCHDOG=1"] * 3


async def test_nobody_who_asks_ends_it_at_once():
    with ServiceManager(None) as manager:
        manager.ready("serving")
        await manager.keep_alive()
        assert not manager.is_there


async def test_a_manager_that_is_gone_or_reads_nothing_holds_nothing_up(tmp_path: Path):
    with ServiceManager(Wanted(str(tmp_path / "nobody"), None)) as manager:
        manager.ready("serving")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "slow"))
        with ServiceManager(Wanted(str(tmp_path / "slow"), None)) as manager:
            for _ in range(10_000):  # far more than the kernel keeps
                manager.ready("serving")


async def test_a_change_is_told_once_there_is_room(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "slow"))
        there.settimeout(10)
        filled = 0
        with ServiceManager(Wanted(str(tmp_path / "slow"), None)) as manager:
            while manager._send(b"WATCHDOG=1"):
                filled += 1
            manager.ready("serving")
            manager.stopping()
            for _ in range(filled):
                assert there.recv(4096) == b"WATCHDOG=1"
            said = [(await asyncio.to_thread(there.recv, 4096)).split(b"\n")[0] for _ in range(2)]
    assert said == [b"READY=1", b"STOPPING=1"]
