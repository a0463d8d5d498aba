"""A stretch of time in which sizing need not be asked: fleets of quiet models cost no steps.

Remembers what came meanwhile, so that sizing can afterwards be as if it had been asked all along.
"""

from collections import deque
from math import floor

from router.replay.sizers import Sizer
from router.signals.snapshot import ModelTotals

_ROUNDING = 1e-6


class Nap:
    """The time since the last step of a sizer that is calm. `before` are the totals by then."""

    def __init__(self, sizer: Sizer, calm_usd: float, before: ModelTotals, now: float) -> None:
        self._sizer = sizer
        self._calm_usd = calm_usd
        self._began = now
        self._kept_s = sizer.window_s + 2 * sizer.interval_s
        self._history: deque[tuple[float, ModelTotals]] = deque()
        # What had been spent when the window began; at first all since long ago counts.
        self._spent_usd = before.serverless_usd

    def disturbs(self, at: float, totals: ModelTotals) -> bool:
        """A request came, which makes these totals: whether sizing has to be asked again."""
        history = self._history
        history.append((at, totals))
        # The first one is from before the window: what held when it began.
        while len(history) > 1 and history[1][0] < at - self._kept_s:
            history.popleft()
            self._spent_usd = history[0][1].serverless_usd
        return totals.serverless_usd - self._spent_usd > self._calm_usd

    def end(self, now: float) -> float:
        """Bring the sizer up to date; returns when its next step is."""
        interval_s = self._sizer.interval_s
        # A step at this very moment came before whatever ends the nap.
        steps = floor((now - self._began) / interval_s + _ROUNDING) + 1
        self._sizer.wake(self._began + (steps - 1) * interval_s, self._history)
        return self._began + steps * interval_s
