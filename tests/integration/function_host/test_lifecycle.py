"""The process: arguments, readiness, drain, and that nothing survives it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.function_host.host_process import (
    REPOSITORY,
    HostClient,
    HostProcess,
    Reply,
    eventually,
    function,
    is_alive,
)

StartHost = Callable[..., HostProcess]


@pytest.fixture
def start_host(tmp_path: Path) -> Iterator[StartHost]:
    """Start hosts with one function `f`, declared by --config."""
    hosts: list[HostProcess] = []

    def start(*arguments: str, **settings: object) -> HostProcess:
        config = tmp_path / "functions.json"
        config.write_text(json.dumps({"functions": [function("f", **settings)]}))
        hosts.append(HostProcess(tmp_path, "--config", str(config), *arguments))
        return hosts[-1]

    yield start
    for host in hosts:
        host.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def _exit_code(host: HostProcess) -> int:
    return await asyncio.to_thread(host.process.wait, 15)


async def _blocked_call(
    client: HostClient, directory: Path
) -> tuple["asyncio.Task[Reply]", Path, int]:
    running, gate = directory / "running", directory / "gate"
    call = asyncio.create_task(client.invoke("f", {"touch": str(running)}, {"wait_for": str(gate)}))
    await eventually(lambda: running.exists() and running.read_text() != "", "the call runs")
    return call, gate, int(running.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_stop_finishes_running_calls_refuses_new_ones_and_leaves_nothing(
    number: signal.Signals, start_host: StartHost, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    host = start_host()
    client = HostClient(host, session)
    idle_pid = (await client.invoke("f")).json["pid"]
    call, gate, busy_pid = await _blocked_call(client, tmp_path)
    assert idle_pid == busy_pid
    host.process.send_signal(number)

    async def is_draining() -> bool:
        return (await client.request("GET", "/host/health")).status == 503

    await eventually(is_draining, "health says draining")
    refused = await client.invoke("f")
    assert refused.status == 503
    assert refused.headers["x-amzn-ErrorType"] == "ServiceException"
    assert refused.json["Type"] == "Service"
    assert (await client.declare()).status == 503
    gate.touch()
    assert (await call).json["pid"] == busy_pid
    assert await _exit_code(host) == 0
    assert not is_alive(busy_pid)


async def test_a_drain_is_bounded(
    start_host: StartHost, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    host = start_host("--drain-s", "0.3")
    call, _, pid = await _blocked_call(HostClient(host, session), tmp_path)
    host.process.terminate()
    reply = await call
    assert reply.status == 503
    assert reply.headers["x-amzn-ErrorType"] == "ServiceException"
    assert await _exit_code(host) == 0
    assert not is_alive(pid)
    assert host.log("invocation")[-1]["status"] == "aborted"
    assert host.log("invocation")[-1]["billed_ms"] == 0


async def test_no_sandbox_survives_a_killed_host(
    start_host: StartHost, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    host = start_host(max_concurrency=2)
    client = HostClient(host, session)
    call, _, busy_pid = await _blocked_call(client, tmp_path)
    idle_pid = (await client.invoke("f", {"ignore_sigterm": None})).json["pid"]
    assert is_alive(busy_pid)
    assert is_alive(idle_pid)
    assert idle_pid != busy_pid
    host.process.kill()
    await eventually(lambda: not is_alive(busy_pid), "the busy sandbox dies")
    await eventually(lambda: not is_alive(idle_pid), "the idle sandbox dies")
    with pytest.raises(aiohttp.ClientError):
        await call


def test_the_host_dies_with_its_parent() -> None:
    """A parent that is killed takes a host started with --exit-with-parent along."""
    code = (
        "import subprocess, sys\n"
        "host = subprocess.Popen([sys.executable, '-m', 'workers.function_host', '--listen',"
        " '127.0.0.1:0', '--exit-with-parent'], stdout=subprocess.PIPE)\n"
        "host.stdout.readline()\n"
        "print(host.pid, flush=True)\n"
        "host.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    try:
        assert parent.stdout is not None
        host_pid = int(parent.stdout.readline())
        assert is_alive(host_pid)
    finally:
        parent.kill()
        parent.communicate()
    asyncio.run(eventually(lambda: not is_alive(host_pid), "the host dies"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(["--listen", "0.0.0.0:0"], 2, "not a loopback address", id="open to others"),
        pytest.param(["--listen", "127.0.0.1"], 2, "is not HOST:PORT", id="no port"),
        pytest.param(["--listen", "127.0.0.1:99999"], 2, "0..65535", id="port out of range"),
        pytest.param(
            ["--listen", "127.0.0.1:0", "--drain-s", "-1"], 2, "0..900", id="negative drain"
        ),
        pytest.param(
            ["--listen", "127.0.0.1:0", "--config", "/nonexistent"], 2, "No such file", id="no file"
        ),
        pytest.param(
            ["--listen", "127.0.0.1:0", "--config", "pyproject.toml"], 2, "not JSON", id="no JSON"
        ),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], code: int, message: str) -> None:
    done = _run(arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_every_error_of_the_configuration_is_named(tmp_path: Path) -> None:
    config = tmp_path / "functions.json"
    config.write_text('{"functions": [{"name": "f", "handler": "h", "timeout_s": 0}]}')
    done = _run(["--listen", "127.0.0.1:0", "--config", str(config)])
    assert done.returncode == 2
    assert "functions[0].handler = 'h', must be module.function" in done.stderr
    assert "functions[0].timeout_s = 0, must be a number in 0.05..900" in done.stderr


def test_a_taken_port_is_an_error(start_host: StartHost) -> None:
    host = start_host()
    done = _run(["--listen", f"127.0.0.1:{host.port}"])
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{host.port}" in done.stderr


def test_a_reader_that_stops_reading_stderr_does_not_stop_the_host(tmp_path: Path) -> None:
    """The host's stderr is a full pipe; invocations, and the stop, go on."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    try:
        while True:
            os.write(write_fd, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write_fd, True)
    config = tmp_path / "functions.json"
    config.write_text(json.dumps({"functions": [function("f")]}))
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", "workers.function_host", "--listen", "127.0.0.1:0", "--exit-with-parent"),
            *("--config", str(config)),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=write_fd,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        assert asyncio.run(_statuses(url, 30)) == {200}
        process.terminate()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.communicate()
        os.close(read_fd)
        os.close(write_fd)


async def _statuses(url: str, calls: int) -> set[int]:
    path = f"{url}/2015-03-31/functions/f/invocations"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        body = {"steps": [{"print_lines": 20}]}
        return {(await session.post(path, json=body)).status for _ in range(calls)}


def _run(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "workers.function_host", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
