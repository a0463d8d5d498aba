"""The demand of one model as a series of equal bins: what optimum, baselines and evaluator share.

Holds numbers only. How requests become work and prices is the business of whoever builds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DemandSeries:
    """Offered work per bin of `dt` seconds.

    `load` is in replica-seconds per second, `captive_load` the part of it that serverless cannot
    carry; `serverless_usd_per_s` what the rest would cost there. Raises ValueError where lengths
    differ or a number is negative or not finite.
    """

    dt: float
    load: FloatArray
    serverless_usd_per_s: FloatArray
    captive_load: FloatArray | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.dt) and self.dt > 0):
            raise ValueError(f"dt = {self.dt}, must be positive")
        for name in ("load", "serverless_usd_per_s", "captive_load"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.shape != self.load.shape or values.ndim != 1:
                raise ValueError(f"{name}: shape {values.shape}, must be {self.load.shape[:1]}")
            if not np.isfinite(values).all() or (values < 0).any():
                raise ValueError(f"{name}: must be finite and not negative")

    def __len__(self) -> int:
        return len(self.load)

    @staticmethod
    def summed(series: "Sequence[DemandSeries]") -> "DemandSeries":
        """Several models' demand, of the same bins, as one."""
        captive = [one.captive_load for one in series if one.captive_load is not None]
        return DemandSeries(
            series[0].dt,
            np.sum([one.load for one in series], axis=0),
            np.sum([one.serverless_usd_per_s for one in series], axis=0),
            np.sum(captive, axis=0) if captive else None,
        )

    @property
    def usd_per_work(self) -> float:
        """Average USD per replica-second on serverless of what may go there; 0 without any."""
        captive = 0.0 if self.captive_load is None else float(self.captive_load.sum())
        work = float(self.load.sum()) - captive
        return float(self.serverless_usd_per_s.sum()) / work if work > 0 else 0.0

    def split(self, first_share: float) -> tuple["DemandSeries", "DemandSeries"]:
        """The first share of the bins, by time, and the rest."""
        cut = round(len(self) * first_share)
        return self._slice(slice(None, cut)), self._slice(slice(cut, None))

    def coarser(self, factor: int) -> "DemandSeries":
        """Averages over `factor` bins; an incomplete last bin is left out."""
        return DemandSeries(
            self.dt * factor,
            _averaged(self.load, factor),
            _averaged(self.serverless_usd_per_s, factor),
            None if self.captive_load is None else _averaged(self.captive_load, factor),
        )

    def _slice(self, part: slice) -> "DemandSeries":
        captive = None if self.captive_load is None else self.captive_load[part]
        return DemandSeries(self.dt, self.load[part], self.serverless_usd_per_s[part], captive)


def _averaged(values: FloatArray, factor: int) -> FloatArray:
    whole = len(values) // factor * factor
    averaged: FloatArray = values[:whole].reshape(-1, factor).mean(axis=1)
    return averaged
