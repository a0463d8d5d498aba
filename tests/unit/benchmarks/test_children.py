import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.benchmarks.children import (
    SYSTEM_CORE,
    BenchmarkError,
    free_port,
    running,
    wait_until_listening,
)
from tests.benchmarks.machine import processor
from tests.benchmarks.run import Absent
from tests.benchmarks.tools import MissingToolError, Tools, first_line

_STUBBORN = (
    "import signal, subprocess, sys\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print(child.pid, flush=True)\n"
    "child.wait()"
)


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_block_ends_a_program_that_ignores_sigterm_and_its_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tests.benchmarks.children._STOP_S", 0.3)
    log = tmp_path / "log"
    with ExitStack() as watching:
        with running([sys.executable, "-c", _STUBBORN], SYSTEM_CORE, log) as process:
            while not log.read_text().endswith("\n"):
                assert process.poll() is None
            child = int(log.read_text())
            ended = watching.enter_context(_ending(child))
            assert not ended(0.0)
        assert process.returncode == -signal.SIGKILL
        assert ended(10.0)


def test_children_die_with_a_killed_benchmark(tmp_path: Path):
    log = tmp_path / "log"
    code = (
        "import sys; from pathlib import Path; from tests.benchmarks.children import running\n"
        "sleeper = 'import time; print(1, flush=True); time.sleep(60)'\n"
        f"with running([sys.executable, '-c', sleeper], 0, Path({str(log)!r})) as process:\n"
        "    print(process.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as benchmark:
        assert benchmark.stdout is not None
        child = int(benchmark.stdout.readline())
        while not log.read_text():
            assert _alive(child)
        with _ending(child) as ended:
            benchmark.kill()
            assert ended(10.0)


@contextmanager
def _ending(pid: int) -> Iterator[Callable[[float], bool]]:
    """A way to wait for a process that is nobody's child here: did it end within the seconds?"""
    descriptor = os.pidfd_open(pid)
    try:
        yield lambda seconds: bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def test_a_program_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path):
    log = tmp_path / "log"
    with (
        running([sys.executable, "-c", "raise SystemExit('no licence')"], SYSTEM_CORE, log) as it,
        pytest.raises(BenchmarkError, match="exited with 1: no licence"),
    ):
        wait_until_listening(it, free_port(), log)


def test_a_tool_that_cannot_be_installed_is_named_once_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    tools = Tools(tmp_path)
    for _ in range(2):
        with pytest.raises(MissingToolError, match="apt-get install no-such-package"):
            tools.debian("no-such-program", "no-such-package")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([sys.executable, "-c", "print('\\n  v1.2\\nmore')"], "v1.2"),
        (["no-such-program"], ""),
        ([sys.executable, "-c", ""], ""),
    ],
    ids=["after blank lines", "not there", "silent"],
)
def test_first_line(argv: list[str], expected: str):
    assert first_line(argv) == expected


def test_only_a_missing_tool_is_no_failure():
    absent = Absent({}, {})
    absent.note("envoy", MissingToolError("no wheel"))
    absent.note("gateway", BenchmarkError("exited with 1"))
    assert absent == Absent({"envoy": "no wheel"}, {"gateway": "exited with 1"})


def test_the_processor_is_named():
    assert processor("processor\t: 0\nmodel name\t: Test 9000: fast\n") == "Test 9000: fast"
