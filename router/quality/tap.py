"""Which requests of a model are sampled: as many steps apart as independent draws would have it.

A request that is not sampled costs a subtraction.
"""

from math import log
from random import Random


class Tap:
    """Counts down to the next sample of one model; `left` is how many requests still pass."""

    __slots__ = ("_rng", "_share", "left")

    def __init__(self, share: float, rng: Random) -> None:
        self._rng = rng
        self._share = share
        self.left = 0
        self._draw()

    def set_share(self, share: float) -> None:
        """Sample that share (0..1) from now on."""
        if share != self._share:
            self._share = share
            self._draw()

    def takes(self) -> bool:
        """Whether this request is sampled."""
        if self.left > 0:
            self.left -= 1
            return False
        self._draw()
        return True

    def _draw(self) -> None:
        share = self._share
        self.left = 0 if share >= 1 else int(log(1 - self._rng.random()) / log(1 - share))
