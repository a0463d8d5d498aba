"""The limit against simulated servers: so many requests at once, first come first served."""

import heapq
from collections import deque
from dataclasses import dataclass, field
from random import Random
from statistics import fmean
from typing import Any

import pytest

from router.admission.adaptive import AdaptiveLimit, AdaptiveParams

SERVICE_S = 0.1
WIDE = AdaptiveParams(1, 200)


@dataclass
class Plant:
    """A server of a capacity with as many clients, each of which asks again once answered."""

    limit: AdaptiveLimit
    capacity: int
    spread: str = "none"
    clients: int = 1000
    service_s: float = SERVICE_S
    now: float = 0.0
    random: Random = field(default_factory=lambda: Random(3))
    waiting: deque[tuple[float, int]] = field(default_factory=deque)
    working: list[tuple[float, float, int]] = field(default_factory=list)

    def run(self, answers: int) -> tuple[list[int], list[float]]:
        """The limit and the time of each answer."""
        limits, times = [], []
        for _ in range(answers):
            while self.in_flight < min(self.limit.current, self.clients):
                self.waiting.append((self.now, self.random.choice((1, 2))))
                self._begin()
            self.now, came, kind = heapq.heappop(self.working)
            self.limit.observe(kind, self.now - came, self.in_flight + 1)
            limits.append(self.limit.current)
            times.append((self.now - came) / kind)
            self._begin()
        return limits, times

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.working)

    def _begin(self) -> None:
        while self.waiting and len(self.working) < self.capacity:
            came, kind = self.waiting.popleft()
            # A request of kind 2 takes twice as long: size must not look like congestion.
            takes_s = kind * self.service_s * self._factor()
            heapq.heappush(self.working, (self.now + takes_s, came, kind))

    def _factor(self) -> float:
        match self.spread:
            case "lognormal":
                return self.random.lognormvariate(-0.045, 0.3)
            case "exponential":
                return self.random.expovariate(1.0)
            case _:
                return 1.0


def settled(plant, answers=20_000) -> Any:
    limits, times = plant.run(answers)
    half = answers // 2
    return fmean(limits[half:]), times[half:]


@pytest.mark.parametrize("spread", ["none", "lognormal", "exponential"])
@pytest.mark.parametrize("capacity", [1, 4, 16, 64])
def test_it_settles_a_little_above_the_capacity(capacity, spread):
    mean, _ = settled(Plant(AdaptiveLimit(WIDE), capacity, spread))
    assert 0.9 * capacity <= mean <= 2.2 * capacity + 1


@pytest.mark.parametrize("capacity", [4, 16])
def test_the_server_is_kept_busy_and_answers_do_not_wait_long(capacity):
    plant = Plant(AdaptiveLimit(WIDE), capacity)
    plant.run(5000)
    began = plant.now
    _, times = plant.run(10_000)
    usual_s = 1.5 * SERVICE_S  # half of the requests take twice as long
    assert 10_000 * usual_s / (plant.now - began) / capacity > 0.9
    assert fmean(times) < 2.0 * SERVICE_S


def test_without_a_limit_answers_would_wait():
    """What the numbers above are worth: the same plant with two hundred at once."""
    plant = Plant(AdaptiveLimit(AdaptiveParams(200, 200)), 4)
    _, times = plant.run(2000)
    assert fmean(times[1000:]) > 20 * SERVICE_S


@pytest.mark.parametrize(("minimum", "maximum"), [(2, 3), (10, 12)])
def test_it_stays_within_its_bounds(minimum, maximum):
    limits, _ = Plant(AdaptiveLimit(AdaptiveParams(minimum, maximum)), 6).run(3000)
    assert minimum <= min(limits)
    assert max(limits) <= maximum


def test_it_does_not_grow_while_nobody_needs_more():
    mean, _ = settled(Plant(AdaptiveLimit(WIDE), 64, clients=3))
    assert mean <= 6


@pytest.mark.parametrize(("before", "after"), [(16, 4), (4, 16)], ids=["shrinks", "grows"])
def test_it_follows_a_capacity_that_changes(before, after):
    plant = Plant(AdaptiveLimit(WIDE), before)
    plant.run(8000)
    plant.capacity = after
    mean, _ = settled(plant)
    assert 0.9 * after <= mean <= 2.2 * after


def test_a_server_that_became_slower_is_measured_anew():
    """All answers take twice as long with nothing waiting: no reason to hold back for good."""
    plant = Plant(AdaptiveLimit(WIDE), 16, "lognormal")
    plant.run(8000)
    plant.service_s = 2 * SERVICE_S
    mean, _ = settled(plant)
    assert mean >= 0.9 * 16


def test_a_refusal_cuts_it_at_once():
    limit = AdaptiveLimit(AdaptiveParams(2, 100))
    Plant(limit, 50).run(5000)
    before = limit.current
    limit.refused()
    assert limit.current == pytest.approx(0.7 * before, abs=1)
    for _ in range(50):
        limit.refused()
    assert limit.current == 2
