"""A serverless platform in the world: warm environments, cold starts, refusals.

A call takes the environment that was used last; one that finds none starts cold. Tells the gateway
nothing but how calls went.
"""

from router.replay.world import FunctionWorld

_RAMP_S = 10.0


class Platform:
    """The environments of one function."""

    def __init__(self, world: FunctionWorld) -> None:
        self._world = world
        self._idle_since: list[float] = []
        self._running = 0
        self._new_left = float(world.new_environments_per_10_s)
        self._counted_at = 0.0
        self.refused = 0

    def call(self, now: float) -> bool | None:
        """Start a call: whether it starts cold, None if it is refused."""
        if self._running >= self._world.max_concurrency or self._storms(now):
            self.refused += 1
            return None
        idle = self._idle_since
        if idle and now - idle[-1] <= self._world.reclaim_s:
            idle.pop()
            self._running += 1
            return False
        idle.clear()  # the others were used longer ago
        if not self._may_start(now):
            self.refused += 1
            return None
        self._running += 1
        return True

    def ended(self, now: float) -> None:
        """A call has ended; its environment idles."""
        self._running -= 1
        self._idle_since.append(now)

    def _storms(self, now: float) -> bool:
        storms = self._world.storms
        return storms is not None and now >= storms.every_s and now % storms.every_s < storms.for_s

    def _may_start(self, now: float) -> bool:
        most = self._world.new_environments_per_10_s
        regained = (now - self._counted_at) * most / _RAMP_S
        self._new_left = min(self._new_left + regained, most)
        self._counted_at = now
        if self._new_left < 1:
            return False
        self._new_left -= 1
        return True
