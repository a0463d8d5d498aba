"""One coarse timer for many deadlines: no timer object per request.

Decides when a deadline has passed, late by at most two ticks and never early. Never knows what
expires, or what that means.
"""

import asyncio
from typing import Protocol

from router.domain.clock import Clock

TICK_S = 0.02


class Expiring(Protocol):
    """An exchange or a wait that a `DeadlineWheel` ends when its time has passed."""

    def expire(self) -> None:
        """Called once when the deadline has passed; must not block."""
        ...


class DeadlineWheel:
    """Deadlines in buckets of one tick; the loop's timer waits for the earliest bucket only.

    Arming and disarming cost a dictionary access each, and while nothing is pending nothing runs.
    """

    def __init__(self, clock: Clock, tick_s: float = TICK_S) -> None:
        self._clock = clock
        self._tick_s = tick_s
        self._buckets: dict[int, set[Expiring]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = 0

    @property
    def pending(self) -> int:
        """How many deadlines are armed."""
        return sum(len(bucket) for bucket in self._buckets.values())

    def arm(self, deadline: float, entry: Expiring) -> int:
        """Expire `entry` after `deadline` (clock seconds); returns the key that disarms it."""
        tick = int(deadline / self._tick_s) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {entry}
        else:
            bucket.add(entry)
        self._wait_for(tick)
        return tick

    def disarm(self, tick: int, entry: Expiring) -> None:
        """Forget a deadline; does nothing if it has expired already."""
        bucket = self._buckets.get(tick)
        if bucket is None:
            return
        bucket.discard(entry)
        if not bucket:
            del self._buckets[tick]

    def expire_due(self) -> None:
        """Expire everything whose time has come, and wait for the next."""
        self._timer = None
        now = self._clock()
        for tick in sorted(tick for tick in self._buckets if tick * self._tick_s <= now):
            # An entry that expires may disarm others, so the bucket is asked again each time.
            while bucket := self._buckets.get(tick):
                entry = bucket.pop()
                if not bucket:
                    del self._buckets[tick]
                entry.expire()
        if self._buckets:
            self._wait_for(min(self._buckets))

    def close(self) -> None:
        """Stop the timer; nothing expires any more."""
        self._buckets.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_for(self, tick: int) -> None:
        if self._timer is not None:
            if self._timer_tick <= tick:
                return
            self._timer.cancel()
        delay_s = max(0.0, tick * self._tick_s - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.expire_due)
        self._timer_tick = tick
