"""How long the event loop kept everybody waiting, and what for.

Looks on from the loop itself: a timer that comes late tells how long nothing else was done either.
"""

import asyncio
import gc
from collections.abc import Callable, Mapping
from time import perf_counter, thread_time

from router.telemetry.labels import StallCause

EVERY_S = 0.02
REMEMBERED_S = 60.0
"""The longest stall that `longest_s` tells is at most twice as old."""

Observe = Callable[[StallCause, float], None]


class LoopWatch:
    """Tells `observe` how late each of its timers came, and how long each collection took."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._collecting_since = 0.0
        self._present = dict.fromkeys(StallCause, 0.0)
        self._past = self._present
        self._present_since = perf_counter()

    @property
    def longest_s(self) -> Mapping[StallCause, float]:
        """The longest stall of each cause in the last minute or two."""
        return {cause: max(self._present[cause], self._past[cause]) for cause in StallCause}

    async def run(self) -> None:
        """Watch until cancelled. Collections are those of the whole process."""
        gc.callbacks.append(self._collection)
        try:
            while True:
                due, cpu_s = perf_counter() + EVERY_S, thread_time()
                await asyncio.sleep(EVERY_S)
                self.woke(perf_counter() - due, thread_time() - cpu_s)
        finally:
            gc.callbacks.remove(self._collection)

    def woke(self, late_s: float, cpu_s: float) -> None:
        """A timer came so late, and the loop's thread has computed so long since it was set."""
        late_s = max(0.0, late_s)
        work_s = min(late_s, cpu_s)
        self._saw(StallCause.WORK, work_s)
        self._saw(StallCause.MACHINE, late_s - work_s)

    def _collection(self, phase: str, _told: Mapping[str, int]) -> None:
        now = perf_counter()
        if phase == "start":
            self._collecting_since = now
        else:
            self._saw(StallCause.COLLECTION, now - self._collecting_since)

    def _saw(self, cause: StallCause, seconds: float) -> None:
        self._observe(cause, seconds)
        now = perf_counter()
        if now - self._present_since > REMEMBERED_S:
            self._past, self._present = self._present, dict.fromkeys(StallCause, 0.0)
            self._present_since = now
        self._present[cause] = max(self._present[cause], seconds)
