"""A clock for real sockets in one event loop that does not run while the loop cannot."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_BEAT_S = 0.005


class PacedClock:
    """Monotonic seconds, counted in beats of the event loop.

    However long a busy machine keeps the process from running, that is one beat: a time-out passes
    only after the loop has had that many turns in which an answer could have come.
    """

    def __init__(self) -> None:
        self._now = 1000.0

    def __call__(self) -> float:
        return self._now

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            self._now += _BEAT_S


@asynccontextmanager
async def paced_clock() -> AsyncIterator[PacedClock]:
    """A clock that runs within this context."""
    clock = PacedClock()
    beating = asyncio.create_task(clock._run())
    try:
        yield clock
    finally:
        beating.cancel()
        await asyncio.wait([beating])
