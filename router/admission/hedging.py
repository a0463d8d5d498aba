"""When a slow attempt is worth a second one beside it, and how many of those there may be.

Pure bookkeeping of one model: recent times by backend and payload bucket, and a budget. Chooses no
endpoint and sends nothing.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from math import ceil

from router.admission.retries import RetryBudget
from router.domain.decision import Backend
from router.policy.estimates import payload_bucket

_KEPT = 512
_FEWEST = 20
_BURST = 10.0
"""Hedges that a quiet time may save up."""


@dataclass(frozen=True, slots=True)
class HedgeParams:
    """Hedge what takes longer than `percentile` of its like, `share` of all requests at most.

    `floor_per_s` hedges a second are allowed however few requests there are.
    """

    percentile: float
    share: float
    floor_per_s: float = 0.0


class RecentTimes:
    """The last durations of one kind of request, in seconds, for their exact percentiles."""

    __slots__ = ("_came", "_sorted")

    def __init__(self) -> None:
        self._came: deque[float] = deque()
        self._sorted: list[float] = []

    def observe(self, seconds: float) -> None:
        """Learn one duration; the oldest is forgotten."""
        if len(self._came) == _KEPT:
            del self._sorted[bisect_left(self._sorted, self._came.popleft())]
        self._came.append(seconds)
        insort(self._sorted, seconds)

    def percentile(self, percent: float) -> float | None:
        """The duration that so many percent do not exceed; None while too few are known."""
        count = len(self._sorted)
        if count < max(_FEWEST, 100 / (100 - percent)):
            return None
        return self._sorted[ceil(count * percent / 100) - 1]


class Hedging:
    """What one model knows about hedging; outlives a reload of its parameters."""

    def __init__(self, params: HedgeParams) -> None:
        self.params = params
        self.budget = _budget(params, 0.0)
        self._times: dict[tuple[Backend, int], RecentTimes] = {}

    def reconfigure(self, params: HedgeParams) -> None:
        """Take new parameters; measured times stay, and so does what is left of the budget."""
        if params != self.params:
            self.params = params
            self.budget = _budget(params, self.budget.tokens)

    def observe(self, backend: Backend, payload_bytes: int, seconds: float) -> None:
        """Learn how long an attempt took. One that lost counts with the time it had.

        Left out, the slow ones would be missing and the percentile would sink with every hedge.
        """
        key = backend, payload_bucket(payload_bytes)
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = RecentTimes()
        times.observe(seconds)

    def delay_s(self, backend: Backend, payload_bytes: int) -> float | None:
        """How long an attempt is given before it is slow; None while that is not known."""
        times = self._times.get((backend, payload_bucket(payload_bytes)))
        return times.percentile(self.params.percentile) if times is not None else None


def _budget(params: HedgeParams, tokens: float) -> RetryBudget:
    return RetryBudget(params.share, params.floor_per_s, _BURST, tokens=tokens)
