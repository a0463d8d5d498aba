"""The replicas of one model in the world: launched, ready, busy, draining, paid for.

Mirrors what a pool and its driver do, with numbers instead of objects: a slot of the list for each
replica, in which unavailable ones look overfull. Decides nothing about how many there should be.
"""

import heapq
from dataclasses import dataclass
from random import Random

import numpy as np

from router.replay.distributions import Constant, Distribution, Floats
from router.replay.world import ModelWorld

AWAY = 1 << 40
"""Added to the load of a replica that takes no requests."""

_SCAN_LIMIT = 8
"""As in `policy.pickers`: up to so many replicas all are looked at."""


@dataclass(slots=True)
class Life:
    """When a replica was launched, took requests, stopped taking them, and was gone; seconds.

    `crashes` is when it will go by itself.
    """

    launched: float
    ready: float = np.inf
    unready: float = np.inf
    gone: float = np.inf
    crashes: float = np.inf


class Replicas:
    """All replicas of one model; `capacity` is what the gateway sends to one at once."""

    def __init__(self, world: ModelWorld, capacity: int, seed: int) -> None:
        self.capacity = capacity
        self.wanted = 0
        self.ready = 0
        self.free = 0
        self.lives: list[Life] = []
        # By slot: requests in flight, plus AWAY; the replica that has the slot now.
        self.load: list[int] = []
        self._life: list[Life | None] = []
        self._staying: list[int] = []
        self._available: list[int] = []
        self._world = world
        self._random = Random(seed).random  # noqa: S311  simulated load balancing
        self._startup = np.random.default_rng([seed, 6])
        self._lifetime = np.random.default_rng([seed, 7])
        # Where nothing slows a request down, it ends when its service is over.
        self._is_plain = capacity <= world.concurrency and not world.slowdown
        # A replica that gets more than it works on at once lets the rest wait inside.
        self._inside: dict[int, list[float]] | None = {} if capacity > world.concurrency else None

    @property
    def slots(self) -> int:
        """Requests that all ready replicas take at once."""
        return self.ready * self.capacity

    @property
    def available(self) -> list[int]:
        """Slots of the replicas that take requests."""
        return self._available

    def launched_at(self, slot: int) -> float | None:
        """When the replica there was launched; None if there is none."""
        life = self._life[slot]
        return life.launched if life is not None else None

    def want(self, wanted: int, now: float) -> list[tuple[float, int]]:
        """Launch or stop; returns when (absolute) which slot will be ready."""
        self.wanted = wanted
        starting = [self._launch(now) for _ in range(wanted - len(self._staying))]
        # The youngest goes first, as the drivers do it.
        for slot in self._staying[wanted:]:
            self._stop(slot, now)
        del self._staying[wanted:]
        return starting

    def _launch(self, now: float) -> tuple[float, int]:
        slot = next((n for n, life in enumerate(self._life) if life is None), len(self._life))
        if slot == len(self._life):
            self._life.append(None)
            self.load.append(AWAY)
        life = self._life[slot] = Life(now)
        self.lives.append(life)
        self._staying.append(slot)
        return now + _drawn(self._world.startup_s, self._startup), slot

    def became_ready(self, slot: int, launched: float, now: float) -> bool:
        """The start-up of the replica launched then is over; False if it was stopped meanwhile."""
        life = self._life[slot]
        if life is None or life.launched != launched or life.unready <= now:
            return False
        life.ready = now
        self.load[slot] -= AWAY
        self._available.append(slot)
        self.ready += 1
        self.free += self.capacity
        if self._inside is not None:
            self._inside[slot] = [now] * self._world.concurrency
        if self._world.crash_after_s is not None:
            life.crashes = now + _drawn(self._world.crash_after_s, self._lifetime)
        return True

    def crash_at(self, slot: int) -> float:
        """When the replica there will crash; infinite if never."""
        life = self._life[slot]
        return life.crashes if life is not None else np.inf

    def crashed(self, slot: int, now: float, *, replaced: bool) -> tuple[float, int] | None:
        """The replica is gone with all that it worked on; its successor as `want` returns it.

        None if none follows: not `replaced`, or it was stopping.
        """
        life = self._life[slot]
        if life is None or life.crashes != now:
            return None
        life.gone = now
        self._life[slot] = None
        if self.load[slot] >= AWAY:
            self.load[slot] = AWAY
            return None
        life.unready = now
        self._available.remove(slot)
        self._staying.remove(slot)
        self.ready -= 1
        self.free -= self.capacity - self.load[slot]
        self.load[slot] = AWAY
        return self._launch(now) if replaced else None

    def _stop(self, slot: int, now: float) -> None:
        life = self._life[slot]
        assert life is not None  # noqa: S101
        life.unready = now
        if self.load[slot] < AWAY:
            self._available.remove(slot)
            self.ready -= 1
            self.free -= self.capacity - self.load[slot]
            self.load[slot] += AWAY
        if self.load[slot] == AWAY:
            self._leave(slot, now)

    def _leave(self, slot: int, now: float) -> None:
        life = self._life[slot]
        assert life is not None  # noqa: S101
        life.gone = now
        self._life[slot] = None

    def take(self, now: float, service_s: float) -> tuple[int, float]:
        """Send a request to the least loaded replica; its slot, and when it will have ended.

        There must be a free place. Larger pools are sampled as `policy.pickers.least_loaded` does.
        """
        load, available = self.load, self._available
        slot = -1
        if len(available) > _SCAN_LIMIT:
            random, count = self._random, len(available)
            first, second = available[int(random() * count)], available[int(random() * count)]
            slot = first if load[first] <= load[second] else second
        if slot < 0 or load[slot] >= self.capacity:
            slot = load.index(min(load))
        if self._is_plain:  # as `begin`, without a call: every request comes by here
            load[slot] += 1
            self.free -= 1
            return slot, now + service_s
        return self.begin(slot, now, service_s)

    def begin(self, slot: int, now: float, service_s: float) -> tuple[int, float]:
        """As `take`, on the replica of that slot, which has a free place."""
        load = self.load
        load[slot] += 1
        self.free -= 1
        if self._is_plain:
            return slot, now + service_s
        service_s *= self._world.slowed(min(load[slot], self._world.concurrency))
        if self._inside is None:
            return slot, now + service_s
        places = self._inside[slot]
        ends = max(now, places[0]) + service_s
        heapq.heapreplace(places, ends)
        return slot, ends

    def release(self, slot: int, now: float) -> None:
        """A request has ended there."""
        load = self.load[slot] = self.load[slot] - 1
        if load < AWAY:
            self.free += 1
        elif load == AWAY:
            self._leave(slot, now)

    def paid(self) -> Floats:
        """A row for each replica: launched, ready, unready, and until when it is paid for."""
        minimum = self._world.min_billing_s
        rows = [
            (life.launched, life.ready, life.unready, max(life.gone, life.launched + minimum))
            for life in self.lives
        ]
        return np.array(rows).reshape(-1, 4)


def _drawn(distribution: Distribution, generator: np.random.Generator) -> float:
    """One value; a constant leaves the generator alone."""
    normal = uniform = np.zeros(1)
    if not isinstance(distribution, Constant):
        normal, uniform = generator.standard_normal(1), generator.random(1)
    return float(distribution.draw(normal, uniform, np.zeros(1, np.int64))[0])
