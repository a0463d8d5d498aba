"""What the kernel says of a process tree: CPU time, memory now, memory at its peak.

Reads /proc only. A process that ends while it is read counts as gone.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_RESET_PEAK = "5"
"""Written to clear_refs it sets VmHWM to the present VmRSS (proc(5))."""


_IDLE, _IOWAIT = 3, 4
_GUEST = 8
"""Fields from here on are contained in earlier ones (proc(5))."""


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that count here; `ticks` is user + system time."""

    parent: int
    ticks: int


def parse_stat(text: str) -> Stat:
    """Read one stat line. The command's name may hold blanks and brackets, so look after it."""
    fields = text[text.rindex(")") + 1 :].split()
    return Stat(parent=int(fields[1]), ticks=int(fields[11]) + int(fields[12]))


def parse_kilobytes(status: str, field: str) -> int:
    """Bytes of a field like `VmRSS` in /proc/PID/status; 0 where a process has none."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0


def parse_core_busy_ticks(text: str, core: int) -> int:
    """Ticks that one core has worked, for whomever, from /proc/stat."""
    for line in text.splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            ticks = [int(field) for field in fields[:_GUEST]]
            return sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]
    raise ValueError(f"there is no core {core}")


def descendants(root: int, parents: Mapping[int, int]) -> set[int]:
    """`root` and all that descend from it, given each process's parent."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found, pending = {root}, [root]
    while pending:
        for child in children.get(pending.pop(), ()):
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


def cpu_s(root: int) -> float:
    """User + system seconds of a process and its descendants so far."""
    stats = _all_stats()
    tree = descendants(root, {pid: stat.parent for pid, stat in stats.items()})
    return sum(stats[pid].ticks for pid in tree if pid in stats) / _TICKS_PER_S


def core_busy_s(core: int) -> float:
    """Seconds that a core has worked so far, for whomever."""
    return parse_core_busy_ticks((_PROC / "stat").read_text(), core) / _TICKS_PER_S


def rss_bytes(root: int) -> int:
    """Resident memory of a process and its descendants; pages they share count in each."""
    return _memory(root, "VmRSS")


def peak_rss_bytes(root: int) -> int:
    """The highest resident memory of each process since `reset_peak`, added up."""
    return _memory(root, "VmHWM")


def reset_peak(root: int) -> None:
    """Start a new measurement of the peak."""
    for pid in _tree(root):
        (_PROC / str(pid) / "clear_refs").write_text(_RESET_PEAK)


def _memory(root: int, field: str) -> int:
    return sum(parse_kilobytes(text, field) for _, text in _read_all(_tree(root), "status"))


def _tree(root: int) -> set[int]:
    return descendants(root, {pid: stat.parent for pid, stat in _all_stats().items()})


def _all_stats() -> dict[int, Stat]:
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return {pid: parse_stat(text) for pid, text in _read_all(pids, "stat")}


def _read_all(pids: Iterable[int], name: str) -> Iterable[tuple[int, str]]:
    for pid in pids:
        try:
            yield pid, (_PROC / str(pid) / name).read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
