"""Nothing outlives its parent: real processes, and what a test of them cannot reach."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from router.processes import lifetime

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Record kills instead of suffering them."""
    kills: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: kills.append(call))
    return kills


@linux
def test_a_foreign_program_ends_with_the_killed_process_that_started_it() -> None:
    parent = (
        "import os, subprocess, shutil\n"
        "from router.processes.lifetime import tied\n"
        "p = subprocess.Popen(tied([shutil.which('sleep'), '60'], os.getpid()))\n"
        "print(p.pid, flush=True)\n"
        "p.wait()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    try:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        _until_named(child, "sleep")
    finally:
        process.kill()
        process.communicate()
    assert psutil.wait_procs([child], timeout=5)[1] == []


def _until_named(process: psutil.Process, name: str) -> None:
    for _ in range(500):
        if process.name() == name:
            return
        psutil.wait_procs([process], timeout=0.01)
    pytest.fail(f"the process did not become {name}")


@linux
def test_a_parent_that_is_gone_already_is_noticed() -> None:
    code = "from router.processes.lifetime import die_with_parent as d; d(1 << 22); print('lives')"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")


def test_where_the_kernel_cannot_a_watch_ends_the_process(
    kills: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([10, 10, 1])
    waits: list[float] = []
    monkeypatch.setattr(os, "getppid", lambda: next(looks))
    monkeypatch.setattr(lifetime, "sleep", waits.append)
    lifetime._watch(10)
    assert kills == [(os.getpid(), signal.SIGKILL)]
    assert len(waits) == 2
