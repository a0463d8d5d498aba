"""What a model's traffic would have cost with places of one kind only, beside what it does cost.

Always serverless: each request at the price of a warm call when it came, which is what the sizing
counts as well; no cold start and no request that functions cannot carry. Always warm: all the time
as many replicas as carry the highest load of the last day with a tenth of room; the replay's
`peak_warm` is the same rule over the part of a trace that it may learn from.
"""

from collections import deque
from math import ceil

_ROOM = 1.1
_ROUNDING = 1e-9
"""Keeps a load of exactly n replicas at n."""
_HOUR_S = 3600.0
_HOURS = 24


def replicas_for_peak(peak_load: float, max_replicas: int) -> int:
    """Replicas of a pool of constant size that is to carry such a load, in replicas."""
    return min(max(ceil(_ROOM * peak_load - _ROUNDING), 1), max_replicas)


class DailyPeak:
    """The highest load of the last day, to an hour; a state machine over numbers."""

    __slots__ = ("_hour", "_peaks")

    def __init__(self) -> None:
        self._peaks: deque[float] = deque([0.0], _HOURS)
        self._hour: int | None = None

    def add(self, load: float, now: float) -> float:
        """Note the present load; returns the highest."""
        hour = int(now // _HOUR_S)
        passed = 0 if self._hour is None else hour - self._hour
        self._peaks.extend(0.0 for _ in range(min(passed, _HOURS)))
        self._hour = hour
        self._peaks[-1] = max(self._peaks[-1], load)
        return max(self._peaks)
