"""When the mean of a stream of numbers has changed: adaptive windowing.

The window grows while its parts agree and loses its older part when two parts differ by more than
chance allows (Bifet and Gavalda: Learning from time-changing data with adaptive windowing, 2007).
Values are within 0..1; memory and time are logarithmic in the window's length. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log, sqrt

_PER_ROW = 5
"""Buckets of one size before two of them become one of the next."""
_LOOK_EVERY = 32
_LEAST_PART = 5
_LEAST = 10


@dataclass(slots=True)
class _Row:
    totals: list[float] = field(default_factory=list)  # the newest last
    variances: list[float] = field(default_factory=list)


class Adwin:
    """The adaptive window of one stream; `delta` bounds the chance of a false cut."""

    def __init__(self, delta: float) -> None:
        self._delta = delta
        self._rows: list[_Row] = [_Row()]
        self._ticks = 0
        self.width = 0
        self.total = 0.0
        self.changes = 0
        self._spread = 0.0

    @property
    def mean(self) -> float:
        """The mean of the window; 0 while it is empty."""
        return self.total / self.width if self.width else 0.0

    def add(self, value: float) -> bool:
        """Take one value of 0..1; whether the mean has changed, and old values were dropped."""
        self._ticks += 1
        if self.width:
            self._spread += self.width * (value - self.mean) ** 2 / (self.width + 1)
        self.width += 1
        self.total += value
        self._rows[0].totals.append(value)
        self._rows[0].variances.append(0.0)
        self._compress()
        if self._ticks % _LOOK_EVERY or self.width <= _LEAST:
            return False
        has_changed = False
        while self._is_cut():
            self._drop_oldest()
            has_changed = True
        self.changes += has_changed
        return has_changed

    def _compress(self) -> None:
        for level in range(len(self._rows)):
            row = self._rows[level]
            if len(row.totals) <= _PER_ROW:
                return
            if level + 1 == len(self._rows):
                self._rows.append(_Row())
            half = 1 << level
            (a, b), (u, v) = row.totals[:2], row.variances[:2]
            del row.totals[:2], row.variances[:2]
            self._rows[level + 1].totals.append(a + b)
            self._rows[level + 1].variances.append(u + v + half * ((a - b) / half) ** 2 / 2)

    def _oldest_first(self) -> Iterator[tuple[int, float]]:
        for level in range(len(self._rows) - 1, -1, -1):
            for total in self._rows[level].totals:
                yield 1 << level, total

    def _is_cut(self) -> bool:
        variance = max(0.0, self._spread / self.width) if self.width else 0.0
        limit = log(2 * log(max(self.width, 3)) / self._delta)
        n, total = 0, 0.0
        for size, part in self._oldest_first():
            n, total = n + size, total + part
            m = self.width - n
            if m < _LEAST_PART:
                return False
            if n < _LEAST_PART:
                continue
            inverse = 1 / (n - _LEAST_PART + 1) + 1 / (m - _LEAST_PART + 1)
            epsilon = sqrt(2 * inverse * variance * limit) + 2 / 3 * limit * inverse
            if abs(total / n - (self.total - total) / m) > epsilon:
                return True
        return False

    def _drop_oldest(self) -> None:
        while not self._rows[-1].totals:
            self._rows.pop()
        size, row = 1 << (len(self._rows) - 1), self._rows[-1]
        total, variance = row.totals.pop(0), row.variances.pop(0)
        self.width -= size
        self.total -= total
        if self.width:
            between = size * self.width * (total / size - self.mean) ** 2 / (size + self.width)
            self._spread = max(0.0, self._spread - variance - between)
        while len(self._rows) > 1 and not self._rows[-1].totals:
            self._rows.pop()
