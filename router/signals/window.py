"""A model's running totals over the last seconds, turned into rates.

Totals are kept per gateway, so that gateways may come, go and restart. Decides nothing.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from router.policy.demand import Rates
from router.signals.snapshot import ModelTotals


class _Sample(NamedTuple):
    """The fleet's cumulative counters of one model at one time, by gateway."""

    at: float
    totals: Mapping[str, ModelTotals]


class Window:
    """A model's counters over the last seconds, per gateway, so that peers may come and go."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._samples: deque[_Sample] = deque()

    def add(self, now: float, totals: Mapping[str, ModelTotals]) -> None:
        """Add the current counters and forget what is older than the window."""
        self._samples.append(_Sample(now, totals))
        while len(self._samples) > 2 and self._samples[1].at <= now - self.window_s:
            self._samples.popleft()

    def rested_until(self, then: float) -> None:
        """The counters have not grown from the last ones noted until then."""
        if self._samples and self._samples[-1].at < then:
            self.add(then, self._samples[-1].totals)

    def rates(self) -> Rates:
        """Every counter's increase per second over the window."""
        first, last = self._samples[0], self._samples[-1]
        begins_at = first.at
        if len(self._samples) > 1 and self._samples[1].totals == first.totals:
            # Nothing came until the next one, which may have been noted long after.
            begins_at = max(begins_at, last.at - self.window_s)
        elapsed_s = last.at - begins_at
        if elapsed_s <= 0:
            return Rates(0.0, 0.0, 0.0, 0.0, 0.0)
        if last.totals == first.totals:  # at rest, as most models are
            return Rates(0.0, 0.0, 0.0, 0.0, 0.0)
        grown = [0.0] * len(ModelTotals())
        for gateway, totals in last.totals.items():
            before = self._first_seen(gateway, totals)
            for index, (now, then) in enumerate(zip(totals, before, strict=True)):
                # A peer that restarted begins again from zero.
                grown[index] += max(now - then, 0.0) / elapsed_s
        return Rates(*grown)

    def _first_seen(self, gateway: str, default: ModelTotals) -> ModelTotals:
        """A peer's counters when it was first seen in the window: what came before is unknown."""
        seen = (sample.totals[gateway] for sample in self._samples if gateway in sample.totals)
        return next(seen, default)
