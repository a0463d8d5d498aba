"""The paths of `die_with_parent` that a test of real processes cannot reach on this system."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers import lifetime


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Record kills instead of suffering them."""
    kills: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: kills.append(call))
    return kills


def _see_parents(monkeypatch: pytest.MonkeyPatch, *parents: int) -> None:
    looks = iter(parents)
    monkeypatch.setattr(os, "getppid", lambda: next(looks))


def test_the_watch_ends_the_process_when_its_parent_changes(
    kills: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    _see_parents(monkeypatch, 10, 10, 1)
    lifetime._watch(10)
    assert kills == [(os.getpid(), signal.SIGKILL)]
    assert len(waits) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
@pytest.mark.parametrize(("now", "deaths"), [(10, 0), (1, 1)], ids=["parent lives", "it died"])
def test_a_parent_that_dies_during_the_call_is_noticed(
    now: int, deaths: int, kills: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(lifetime, "_ask_kernel_for_death_signal", lambda: asked.append(True))
    _see_parents(monkeypatch, 10, now)
    lifetime.die_with_parent()
    assert asked == [True]
    assert kills == [(os.getpid(), signal.SIGKILL)] * deaths


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    child = "from workers.lifetime import die_with_parent as d; d(); print(1, flush=True); input()"
    parent = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE)\n"
        "p.stdout.readline()\n"
        "print(p.pid, flush=True)\n"
        "p.wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        child_pid = int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()
    end = time.monotonic() + 5
    while Path(f"/proc/{child_pid}/cmdline").exists():
        if not Path(f"/proc/{child_pid}/cmdline").read_bytes():
            break  # a zombie waiting for init
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.01)
