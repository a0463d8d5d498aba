"""How the values of one feature are counted: cells that a reference sample has fixed.

Counts over the same cells simply add up, so three gateways together know exactly what one would
have known, and a day is a few numbers. The price is resolution: what lies within one cell is one
value. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MAX_CATEGORIES = 16
"""A feature with at most so many different values is one of categories."""
_NUMERIC_CELLS = 32
"""Equally frequent in the reference sample: a distance of distributions is 1/32 too small at
most."""
_PER_CATEGORY = 5
"""So many values a category, or a small sample of numbers would pass for categories."""


class Scale(StrEnum):
    """Whether values of a feature have an order that means something."""

    NUMBERS = "numbers"
    CATEGORIES = "categories"


@dataclass(frozen=True, slots=True)
class Bins:
    """The cells of one feature.

    Numbers: `points` are the inclusive upper bounds of cells; `low` and `high` bound what the
    reference sample had. Categories: `points` are the values. Counts have the missing (and not
    finite) values first, for numbers then those below `low`, and last what is above `high` or no
    known category.
    """

    scale: Scale
    points: tuple[float, ...]
    low: float = 0.0
    high: float = 0.0

    @property
    def size(self) -> int:
        """How many cells there are."""
        return len(self.points) + (4 if self.scale is Scale.NUMBERS else 2)

    def count(self, values: Array) -> Array:
        """How many of the values each cell has."""
        finite = values[np.isfinite(values)]
        if self.scale is Scale.NUMBERS:
            cells = np.searchsorted(self.points, finite, side="left") + 2
            cells[finite < self.low] = 1
            cells[finite > self.high] = self.size - 1
        else:
            cells = np.searchsorted(self.points, finite, side="left")
            known = np.append(self.points, np.nan)[cells] == finite
            cells = np.where(known, cells + 1, self.size - 1)
        counts = np.bincount(cells, minlength=self.size)
        counts[0] = values.size - finite.size
        return counts

    def count_at_most(self, value: float, counts: Array) -> int:
        """How many of those counted are in the value's cell or in one before it."""
        (cell,) = np.flatnonzero(self.count(np.array([value])))
        return int(counts[1 : cell + 1].sum())

    @property
    def names(self) -> list[str]:
        """What each cell holds, for people."""
        if self.scale is Scale.CATEGORIES:
            return ["missing", *(f"{point:g}" for point in self.points), "other"]
        uppers = [*self.points, self.high]
        return ["missing", f"< {self.low:.4g}", *(f"<= {upper:.4g}" for upper in uppers), "above"]


def bins_of(sample: Array) -> Bins:
    """The cells that fit a reference sample."""
    finite = sample[np.isfinite(sample)].astype(np.float64)
    values = np.unique(finite)
    if values.size <= MAX_CATEGORIES and finite.size >= _PER_CATEGORY * values.size:
        return Bins(Scale.CATEGORIES, tuple(map(float, values)))
    shares = np.arange(1, _NUMERIC_CELLS) / _NUMERIC_CELLS
    points = np.unique(np.quantile(finite, shares, method="inverted_cdf"))
    return Bins(Scale.NUMBERS, tuple(map(float, points)), float(values[0]), float(values[-1]))


def quantile(bins: Bins, counts: Array, share: float) -> float | None:
    """The upper bound of the cell that has the value which such a share does not exceed.

    None where there are no numbers.
    """
    ordered = counts[1:]
    if bins.scale is Scale.CATEGORIES or not ordered.sum():
        return None
    cell = int(np.searchsorted(np.cumsum(ordered), share * ordered.sum(), side="left"))
    uppers = (bins.low, *bins.points, bins.high, bins.high)
    return uppers[min(cell, len(uppers) - 1)]
