"""Which requests of a model are sampled: as many steps apart as independent draws would have it.

A request that is not sampled costs a subtraction. Reading a sample costs CPU that requests want, so
there are at most so many a second, however busy the model is.
"""

from math import inf, log
from random import Random

BURST_S = 10.0
"""Samples of so many seconds may be taken at once, after as long without."""


class Tap:
    """Counts down to the next sample of one model; `left` is how many requests still pass.

    `share` (0..1) of the requests are drawn, of which `max_per_s` are sampled.
    """

    __slots__ = ("_credit", "_max_per_s", "_rng", "_share", "_since", "left")

    def __init__(self, share: float, max_per_s: float, rng: Random) -> None:
        self._rng = rng
        self._share = share
        self._max_per_s = max_per_s
        self._credit = 0.0
        self._since = -inf
        self.left = 0
        self._draw()

    def configure(self, share: float, max_per_s: float) -> None:
        """Sample that share, and at most so many a second, from now on."""
        self._max_per_s = max_per_s
        if share != self._share:
            self._share = share
            self._draw()

    def takes(self) -> bool:
        """Whether this request is drawn."""
        if self.left > 0:
            self.left -= 1
            return False
        self._draw()
        return True

    def has_rate(self, now: float) -> bool:
        """Whether one that is drawn may be sampled now; takes it from the rate if so."""
        most, per_s = self._max_per_s * BURST_S, self._max_per_s
        self._credit = min(most, self._credit + (now - self._since) * per_s)
        self._since = now
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _draw(self) -> None:
        share = self._share
        self.left = 0 if share >= 1 else int(log(1 - self._rng.random()) / log(1 - share))
