"""The facts of the machine that a figure cannot be read without."""

import os
import platform
from pathlib import Path
from timeit import repeat

_CALLS = 50_000


def facts() -> dict[str, str]:
    """Processor, cores, memory, kernel, Python."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "processor": processor(Path("/proc/cpuinfo").read_text()),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gb:.0f} GB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python call making an object": f"{call_ns():.0f} ns",
    }


def call_ns() -> float:
    """Nanoseconds for a function call that makes an object.

    Builds of one CPython version differ by half (profile-guided or not, shared or not), and none
    of them says so reliably; a figure of a Python system cannot be compared without knowing it.
    """
    return min(repeat(lambda: _called(1), number=_CALLS, repeat=5)) / _CALLS * 1e9


class _Made:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


def _called(value: int) -> int:
    return _Made(value).value + 1


def processor(cpuinfo: str) -> str:
    """The model's name in /proc/cpuinfo; the architecture where there is none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
