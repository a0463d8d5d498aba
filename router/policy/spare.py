"""Slots that jobs may have: those that real-time most likely will not want meanwhile. Pure.

A job is never stopped in the middle, so before it begins the policy has to be sure enough that no
request will miss its slot. How sure is learned: each request that had to wait while jobs had slots
makes jobs stand further back, and they come closer again as many requests pass by unharmed.
"""

from math import ceil, sqrt
from typing import NamedTuple

_TURN_OVER = 0.63
"""Of the requests in flight, the share that ends while one more is served: 1 - 1/e."""
LEAST_SPREADS = 1.3
"""About one time in ten, real-time wants more than its mean and so many standard deviations."""
_MOST_SPREADS = 6.0
_STEP_BACK = 0.5
_PEAK_S = 30.0
"""A peak of requests in flight is remembered for so long, and for twice as long at the most."""
_TOLERATED = 1e-3
"""The share of requests that may find a job where they would have had a slot, in the long run."""


class Caution(NamedTuple):
    """How far jobs stand back: by so many `spreads`, and from what was in flight of late.

    That is the most that was seen `since` then, and `before` that.
    """

    spreads: float = LEAST_SPREADS
    most: int = 0
    before: int = 0
    since: float = 0.0

    @property
    def peak(self) -> int:
        """The most requests that were seen in flight of late."""
        return max(self.most, self.before)

    def seen(self, in_flight: int, now: float) -> "Caution":
        """After so many requests were seen in flight."""
        if now - self.since >= _PEAK_S:
            return self._replace(most=in_flight, before=self.most, since=now)
        return self._replace(most=max(in_flight, self.most))

    def learned(self, requests: int, delayed: int) -> "Caution":
        """After so many requests have come, of which `delayed` have waited because of jobs.

        Settles where that is the tolerated share of them (stochastic approximation of a quantile:
        Robbins and Monro, "A stochastic approximation method", 1951).
        """
        moved = self.spreads + _STEP_BACK * (delayed - _TOLERATED * requests)
        return self._replace(spreads=min(max(moved, LEAST_SPREADS), _MOST_SPREADS))


CALM = Caution()


def spare_slots(
    slots: float, in_flight: float, waiting: int, load: float, caution: Caution = CALM
) -> int:
    """Slots that real-time most likely leaves for as long as it takes to serve one request.

    `in_flight` of its requests have slots, `waiting` have none, and `load` (arrivals a second times
    seconds of service) is how many have one on average. A lull below the average is not made use
    of: clients that have just been answered come again at once.
    """
    if waiting:
        return 0
    spread = sqrt(load * _TURN_OVER + in_flight * _TURN_OVER * (1.0 - _TURN_OVER))
    wanted = ceil(max(in_flight, load) + caution.spreads * spread)
    return max(0, int(slots) - max(wanted, caution.peak))


def slots_for_jobs(spare: int, slots: int, alone: int) -> int:
    """All slots that jobs may hold of so many, of which `spare` are to spare.

    Those beyond the `alone` that there would be without jobs are theirs: nobody would have had
    them.
    """
    return max(spare, slots - alone)
