import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.benchmarks.processes import (
    Stat,
    cpu_s,
    descendants,
    parse_core_busy_ticks,
    parse_kilobytes,
    parse_stat,
    peak_rss_bytes,
    reset_peak,
    rss_bytes,
)

_TAIL = "S 7 10 10 0 -1 4194304 100 200 0 0 31 11 5 6 20 0 1 0 100 1000 50"


@pytest.mark.parametrize(
    "name", ["nginx", "two words", "a) S 1 (b", ""], ids=["plain", "blank", "brackets", "empty"]
)
def test_stat_is_read_after_any_command_name(name: str):
    assert parse_stat(f"42 ({name}) {_TAIL}") == Stat(parent=7, ticks=31 + 11)


@pytest.mark.parametrize(
    ("field", "expected"),
    [("VmRSS", 2048 * 1024), ("VmHWM", 4096 * 1024), ("VmRS", 0)],
    ids=["now", "peak", "a prefix is another field"],
)
def test_memory_fields_are_bytes(field: str, expected: int):
    assert parse_kilobytes("Name:\tx\nVmHWM:\t 4096 kB\nVmRSS:\t 2048 kB\n", field) == expected


_CORES = """cpu  90 9 9 9 9 9 9 9 9 0
cpu0 1 2 4 1000 500 8 16 32 5 6
cpu10 7 0 0 0 0 0 0 0 0 0
cpu1 3 0 0 9 9 0 0 0 0 0
intr 5
"""


@pytest.mark.parametrize(("core", "expected"), [(0, 63), (1, 3), (10, 7)])
def test_a_core_is_busy_with_all_but_idling_and_guests_count_once(core: int, expected: int):
    assert parse_core_busy_ticks(_CORES, core) == expected


def test_a_core_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="no core 2"):
        parse_core_busy_ticks(_CORES, 2)


def test_descendants_are_found_over_generations_and_strangers_are_not():
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1, 21: 20}
    assert descendants(10, parents) == {10, 11, 12}


@pytest.fixture
def family() -> Iterator[subprocess.Popen[str]]:
    """A process that waits for a child which burns CPU and holds 50 MB; its first line: done."""
    child = (
        "import time; held = b'x' * 50_000_000\n"
        "while time.process_time() < 0.3: pass\n"
        "print('done', flush=True); time.sleep(30)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, 9)
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_a_tree_is_measured_with_its_children(family: subprocess.Popen[str]):
    assert family.stdout is not None
    assert family.stdout.readline() == "done\n"
    assert cpu_s(family.pid) >= 0.2  # the kernel counts whole ticks
    assert rss_bytes(family.pid) > 50_000_000


def test_the_peak_can_be_started_anew():
    held = b"x" * 80_000_000
    high = peak_rss_bytes(os.getpid())
    del held
    reset_peak(os.getpid())
    assert peak_rss_bytes(os.getpid()) < high - 40_000_000
