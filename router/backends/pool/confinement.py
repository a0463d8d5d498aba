"""What keeps a worker process within bounds: its cores, its memory, its log file.

Says when a bound is passed; ending the process is its owner's business. Linux only.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_COPY_BYTES = 1 << 20


class Cores:
    """Hands out cores to the workers of all pools, those first that fewest workers have."""

    def __init__(self, available: Iterable[int]) -> None:
        self._available = sorted(available)
        self._used: Counter[int] = Counter()

    def take(self, count: int) -> frozenset[int]:
        """Reserve `count` cores, or all if there are fewer; give them back exactly once."""
        order = sorted(self._available, key=lambda core: (self._used[core], core))
        taken = frozenset(order[:count])
        self._used.update(taken)
        return taken

    def give_back(self, cores: frozenset[int]) -> None:
        """The worker has ended."""
        self._used.subtract(cores)


def available_cores() -> frozenset[int]:
    """The cores that this process may use; empty where the platform cannot tell."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(os.sched_getaffinity(0))


def pin(pid: int, cores: frozenset[int]) -> None:
    """Keep a process, and what it starts from now on, on these cores. Raises OSError."""
    if cores:
        os.sched_setaffinity(pid, cores)


def resident_bytes(pid: int) -> int:
    """Memory that the process has now; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def rotate(log: Path, max_bytes: int) -> None:
    """If the file is too long, keep its end as `NAME.1` and begin anew; blocks.

    The process goes on writing to the same file (it appends), so it is emptied rather than renamed:
    what it writes between copying and emptying is lost.
    """
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return
    if size <= max_bytes:
        return
    with log.open("rb") as file, log.with_name(log.name + ".1").open("wb") as kept:
        file.seek(size - max_bytes)
        while chunk := file.read(_COPY_BYTES):
            kept.write(chunk)
    os.truncate(log, 0)
