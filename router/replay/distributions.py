"""Random quantities of the world: how a user writes one, and how it is drawn for many requests.

A distribution is a function of one standard normal and one uniform number per request, so the same
request draws the same value under every policy. Keeps no generator of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from router.settings.quantities import size_bytes, wrong

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_Z99 = 2.3263478740408408
"""The standard normal's 99th percentile."""
MAX_POINTS = 10_000
MAX_STEPS = 64
MAX_FACTOR = 1000.0
_MAX_VALUE = 1e12


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same value."""

    value: float

    def draw(self, normal: Floats, uniform: Floats, sizes: Ints) -> Floats:
        """One value for each request."""
        del uniform, sizes
        return np.full(len(normal), self.value)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Skewed to the right, given by its median and 99th percentile."""

    p50: float
    p99: float

    def draw(self, normal: Floats, uniform: Floats, sizes: Ints) -> Floats:
        """One value for each request."""
        del uniform, sizes
        sigma = math.log(self.p99 / self.p50) / _Z99
        drawn: Floats = self.p50 * np.exp(sigma * normal)
        return drawn


@dataclass(frozen=True, slots=True)
class Exponential:
    """Memoryless, given by its mean."""

    mean: float

    def draw(self, normal: Floats, uniform: Floats, sizes: Ints) -> Floats:
        """One value for each request."""
        del normal, sizes
        drawn: Floats = -self.mean * np.log1p(-uniform)
        return drawn


@dataclass(frozen=True, slots=True)
class Empirical:
    """Equally spaced quantiles of what was measured, in rising order, interpolated linearly."""

    points: tuple[float, ...]

    def draw(self, normal: Floats, uniform: Floats, sizes: Ints) -> Floats:
        """One value for each request."""
        del normal, sizes
        places = np.linspace(0.0, 1.0, len(self.points))
        drawn: Floats = np.interp(uniform, places, np.asarray(self.points))
        return drawn


@dataclass(frozen=True, slots=True)
class ByPayload:
    """Another distribution for each range of payload sizes; the last step has no upper bound."""

    bounds: tuple[float, ...]
    steps: tuple["Distribution", ...]

    def draw(self, normal: Floats, uniform: Floats, sizes: Ints) -> Floats:
        """One value for each request, by its payload's size in bytes."""
        step_of = np.searchsorted(np.asarray(self.bounds), sizes)
        drawn = np.empty(len(normal))
        for index, step in enumerate(self.steps):
            chosen = step_of == index
            drawn[chosen] = step.draw(normal[chosen], uniform[chosen], sizes[chosen])
        return drawn


Distribution = Constant | Lognormal | Exponential | Empirical | ByPayload

_FORMS = (
    "a number, {lognormal: {p50, p99}}, {exponential: MEAN}, {empirical: [quantiles]}"
    " or {by_payload: [{up_to: 64KiB, value: ..}, .., {value: ..}]}"
)


def factors(value: object) -> tuple[float, ...]:
    """A list of factors of at least 1; raises the error saying what was wanted."""
    given = value if isinstance(value, list) else []
    read = [
        float(factor)
        for factor in given
        if isinstance(factor, int | float) and not isinstance(factor, bool)
        if 1 <= factor <= MAX_FACTOR
    ]
    if not read or len(read) != len(given) or len(read) > MAX_STEPS:
        raise wrong(f"must be a list of 1 to {MAX_STEPS} numbers from 1 to {MAX_FACTOR:g}")
    return tuple(read)


@dataclass(frozen=True, slots=True)
class Random:
    """The type of a key that holds a distribution; what is written is divided by `divisor`."""

    unit: str
    divisor: float = 1.0
    positive: bool = False

    @property
    def range(self) -> str:
        """The valid values in words."""
        return f"{self.unit} as {_FORMS}"

    @property
    def wanted(self) -> str:
        """What an error says."""
        sign = "above 0" if self.positive else "not negative"
        return f"must be {self.range}, all {sign}"

    def read(self, value: object) -> Distribution:
        """The distribution that is written; raises the error saying what was wanted."""
        found = self._read(value)
        if found is None:
            raise wrong(self.wanted)
        return found

    def _read(self, value: object) -> Distribution | None:
        if (number := self._number(value)) is not None:
            return Constant(number)
        match value:
            case {"lognormal": {"p50": p50, "p99": p99, **rest}, **others} if not rest | others:
                return self._lognormal(self._number(p50), self._number(p99))
            case {"exponential": mean, **others} if not others:
                number = self._number(mean)
                return Exponential(number) if number else None
            case {"empirical": [_, _, *_] as points, **others} if not others:
                return self._empirical(points)
            case {"by_payload": [_, *_] as steps, **others} if not others:
                return self._by_payload(steps)
        return None

    def _number(self, value: object) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        low_enough = value > 0 if self.positive else value >= 0
        return value / self.divisor if low_enough and value <= _MAX_VALUE else None

    def _lognormal(self, p50: float | None, p99: float | None) -> Distribution | None:
        if not p50 or not p99 or p99 < p50:
            return None
        return Lognormal(p50, p99)

    def _empirical(self, points: list[Any]) -> Distribution | None:
        read = [number for point in points if (number := self._number(point)) is not None]
        whole = len(read) == len(points) <= MAX_POINTS
        return Empirical(tuple(read)) if whole and read == sorted(read) else None

    def _by_payload(self, steps: list[Any]) -> Distribution | None:
        read = [self._step(step) for step in steps]
        found = [step for step in read if step is not None]
        bounds = [bound for bound, _ in found]
        rising = all(low < high for low, high in pairwise(bounds))
        if len(found) != len(steps) or len(steps) > MAX_STEPS or not rising:
            return None
        if bounds[-1] != math.inf:
            return None
        return ByPayload(tuple(bounds[:-1]), tuple(step for _, step in found))

    def _step(self, step: object) -> tuple[float, Distribution] | None:
        if not isinstance(step, Mapping) or not {"value"} <= step.keys() <= {"value", "up_to"}:
            return None
        bound = size_bytes(step["up_to"]) if "up_to" in step else math.inf
        value = step["value"]
        is_nested = isinstance(value, Mapping) and "by_payload" in value
        found = None if is_nested else self._read(value)
        return None if bound is None or found is None else (bound, found)

    def __get_pydantic_core_schema__(self, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)
