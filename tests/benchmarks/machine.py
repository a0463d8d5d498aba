"""The facts of the machine that a figure cannot be read without."""

import os
import platform
from pathlib import Path


def facts() -> dict[str, str]:
    """Processor, cores, memory, kernel, Python."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "processor": processor(Path("/proc/cpuinfo").read_text()),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gb:.0f} GB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def processor(cpuinfo: str) -> str:
    """The model's name in /proc/cpuinfo; the architecture where there is none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
