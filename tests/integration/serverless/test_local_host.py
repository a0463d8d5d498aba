"""The function host on this machine, when it hangs."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from router.assembly.runtime import host_command
from router.backends.serverless.local_host import LocalFunctionHost, LocalFunctionSpec
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient

_FUNCTION = LocalFunctionSpec(
    name="f", handler="workers.lambda_handler.handler", environment={}, memory_mb=512,
    timeout_s=5.0, max_concurrency=1, idle_s=5.0, init_timeout_s=5.0,
)  # fmt: skip


class Clock:
    """Goes as time does, and on by what a test adds."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def host(clock: Clock, tmp_path: Path) -> AsyncIterator[LocalFunctionHost]:
    address = parse_address(f"unix:{tmp_path}/functions.sock")
    client = UpstreamClient(clock=time.monotonic)
    host = LocalFunctionHost(address, host_command(address, 1.0), client, clock, drain_s=1.0)
    host.declare([_FUNCTION], tmp_path / "host.log")
    running = asyncio.create_task(host.run())
    try:
        async with asyncio.timeout(60):
            await host.is_up.wait()
        yield host
    finally:
        running.cancel()
        await asyncio.wait([running])
        await client.close()


def _hosts() -> list[psutil.Process]:
    mine = psutil.Process().children()
    return [child for child in mine if "workers.function_host" in child.cmdline()]


async def test_a_host_that_hangs_is_replaced(
    host: LocalFunctionHost, clock: Clock, caplog: pytest.LogCaptureFixture
):
    (old,) = _hosts()
    old.send_signal(signal.SIGSTOP)
    clock.ahead_s = 10.0
    async with asyncio.timeout(60):
        while not caplog.records:
            await asyncio.sleep(0.05)
        assert not old.is_running() or old.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED}
        while not (host.is_up.is_set() and _hosts() and old not in _hosts()):
            await asyncio.sleep(0.05)
    assert "has not answered for" in caplog.text


async def test_a_host_that_is_slow_for_a_moment_is_kept(host: LocalFunctionHost, clock: Clock):
    (old,) = _hosts()
    old.send_signal(signal.SIGSTOP)
    clock.ahead_s = 5.0
    await asyncio.sleep(1.5)  # long enough for a question without an answer
    old.send_signal(signal.SIGCONT)
    await asyncio.sleep(0.5)
    assert _hosts() == [old]
    assert host.is_up.is_set()
