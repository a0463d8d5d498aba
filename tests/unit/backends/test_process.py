"""Real worker processes within their bounds."""

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from router.backends.child_process import kill, socket_folder
from router.backends.pool.confinement import Cores
from router.backends.pool.process import LogSpec, ProcessLauncher, ProcessSpec
from router.signals.records import Publication, decode, encode
from router.signals.snapshot import SharedEndpoint

SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
GROWS = "import time; kept = bytearray(80 << 20); time.sleep(60)"
CHATTERS = "import time\nwhile True: print('x' * 999, flush=True); time.sleep(0.001)"
TELLS = "import os; print(sorted(os.sched_getaffinity(0))); print('{model}', '{port}')"


def spec(code, **bounds) -> ProcessSpec:
    return ProcessSpec("known-as", (sys.executable, "-c", code), {}, **bounds)


@pytest.fixture
def make_launcher(tmp_path):
    def make(code, logs=None, cores=(0, 1), **bounds) -> Any:
        logs = logs or LogSpec(None, tmp_path / "logs", 64 * 1024)
        return ProcessLauncher("m", spec(code, **bounds), logs, Cores(cores), tmp_path)

    return make


@pytest.fixture
async def launched():
    """Instances to be ended at the end."""
    instances: list[Any] = []
    yield instances
    for instance in instances:
        kill(instance._process)
        await instance._process.wait()


async def read(file: Path) -> str:
    return await asyncio.to_thread(file.read_text)


async def within(awaitable, seconds=15) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


async def test_each_replica_has_a_log_of_its_own_that_the_next_one_uses_again(
    make_launcher, tmp_path
):
    launcher = make_launcher(TELLS)
    first, second = await launcher.launch("1.1"), await launcher.launch("2.1")
    for instance in (first, second):
        assert await within(instance.ended()) == "exited with status 0"
    await first.end(0.0)
    third = await launcher.launch("3.1")
    await within(third.ended())
    for instance in (second, third):
        await instance.end(0.0)
    folder = tmp_path / "logs"
    assert sorted(file.name for file in folder.iterdir()) == ["m-1.log", "m-2.log"]
    lines = (await read(folder / "m-1.log")).splitlines()
    assert len(lines) == 4, "of two processes"
    assert lines[1].split() == ["known-as", str(first.address.port)]


async def test_without_a_folder_all_write_to_one_file(make_launcher, tmp_path):
    log = tmp_path / "workers.log"
    launcher = make_launcher(TELLS, logs=LogSpec(log))
    for number in ("1.1", "2.1"):
        await within((await launcher.launch(number)).ended())
    assert (await read(log)).count("known-as") == 2


async def test_a_worker_is_kept_on_its_cores(make_launcher, launched):
    core = min(os.sched_getaffinity(0))
    launcher = make_launcher(SLEEPS, cores=[core], cpus=1)
    launched.append(await launcher.launch("1.1"))
    assert os.sched_getaffinity(launched[0]._process.pid) == {core}


async def test_who_has_too_much_memory_is_told_of(make_launcher, launched):
    launcher = make_launcher(GROWS, memory_bytes=40 << 20)
    launched.append(await launcher.launch("1.1"))
    told = await within(launched[0].ended())
    assert "over its 40" in told
    await launched[0].end(0.0)


async def test_a_log_stays_short_while_its_worker_writes(make_launcher, launched, tmp_path):
    launcher = make_launcher(CHATTERS)
    launched.append(await launcher.launch("1.1"))
    ended = asyncio.ensure_future(launched[0].ended())
    log, kept = tmp_path / "logs" / "m-1.log", tmp_path / "logs" / "m-1.log.1"
    try:
        async with asyncio.timeout(15):
            while not await asyncio.to_thread(kept.exists):
                await asyncio.sleep(0.02)
            first = await asyncio.to_thread(kept.stat)
            while True:  # until a second one is complete
                now = await asyncio.to_thread(kept.stat)
                if now.st_mtime != first.st_mtime and now.st_size == 64 * 1024:
                    break
                await asyncio.sleep(0.02)
    finally:
        ended.cancel()
    assert (await asyncio.to_thread(log.stat)).st_size < 4 << 20


async def test_a_log_that_cannot_be_kept_short_ends_no_worker(
    make_launcher, launched, tmp_path, caplog
):
    (tmp_path / "logs" / "m-1.log.1").mkdir(parents=True)
    launcher = make_launcher(CHATTERS)
    launched.append(await launcher.launch("1.1"))
    ended = asyncio.ensure_future(launched[0].ended())
    try:
        async with asyncio.timeout(15):
            while "cannot be kept short" not in caplog.text:
                await asyncio.sleep(0.02)
        assert not ended.done()
        kill(launched[0]._process)
        assert "exited" in await within(ended)
    finally:
        ended.cancel()
    assert caplog.text.count("cannot be kept short") == 1


async def test_what_it_took_is_given_back_once(make_launcher):
    launcher = make_launcher(SLEEPS, cpus=1)
    instance = await launcher.launch("1.1")
    await instance.end(0.0)
    instance.abandon()
    assert launcher._taken == set()
    assert set(launcher._cores._used.values()) == {0}


async def test_a_command_that_does_not_exist_takes_nothing(make_launcher):
    launcher = make_launcher(SLEEPS, cpus=1)
    launcher.configured = ProcessSpec("m", ("/nowhere/at-all",), {})
    with pytest.raises(OSError, match="nowhere"):
        await launcher.launch("1.1")
    assert launcher._taken == set()


def test_other_bounds_are_another_spec_but_another_log_is_not(make_launcher, tmp_path):
    launcher = make_launcher(SLEEPS)
    before = launcher.spec
    launcher.logs = LogSpec(tmp_path / "elsewhere.log")
    assert launcher.spec == before
    launcher.configured = spec(SLEEPS, memory_bytes=1 << 30)
    assert launcher.spec != before


LISTENS = """
import pathlib, socket, time
listener = socket.socket(socket.AF_UNIX)
listener.bind("{socket}")
listener.listen()
time.sleep(60)
"""


@pytest.fixture
def sockets():
    with socket_folder() as folder:
        yield Path(folder)


async def test_a_replica_listens_where_no_other_user_gets(launched, sockets):
    assert stat.S_IMODE((await asyncio.to_thread(sockets.stat)).st_mode) == 0o700
    launcher = ProcessLauncher("m", spec(LISTENS), LogSpec(None), Cores(()), sockets)
    launched.append(await launcher.launch("1.1"))
    path = Path(launched[0].address.unix_path)
    assert path.parent == sockets
    while not await asyncio.to_thread(path.exists):
        await asyncio.sleep(0.02)
    await launched[0].end(0.0)
    assert not await asyncio.to_thread(path.exists)


async def test_other_gateways_take_the_address_of_a_replica(launched, sockets):
    launcher = ProcessLauncher("m", spec(LISTENS), LogSpec(None), Cores(()), sockets)
    launched.append(await launcher.launch("1.1"))
    url = launched[0].address.url
    fields = encode(Publication({}, {"m": [SharedEndpoint("m-1", url, 1, "gw")]}, {}))
    told = decode("gw", {name.encode(): value for name, value in fields.items()})
    assert [found.url for found in told.endpoints["m"]] == [url]


@pytest.mark.parametrize(
    "place", ["/x" * 40, "/tmp/über", "/tmp/a b"], ids=["long", "not ASCII", "blank"]
)
def test_a_folder_for_sockets_is_on_a_path_that_all_can_use(place, monkeypatch):
    monkeypatch.setattr("router.backends.child_process.gettempdir", lambda: place)
    with socket_folder() as folder:
        assert folder.startswith("/tmp/hybrid-router-")
