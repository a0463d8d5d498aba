"""The demand of each model in a trace, before anything is simulated: bins of work and its price.

What the optimum is computed from and what baselines are chosen by. Knows the world, no policy.
"""

import numpy as np

from router.replay.demand import DemandSeries
from router.replay.distributions import Floats
from router.replay.workload import Block, ModelSetup

BIN_S = 10.0
"""Requests wait much less than this, replicas start in more."""


class Measure:
    """Adds up one model's demand in bins of `BIN_S` seconds."""

    def __init__(self, setup: ModelSetup) -> None:
        self.requests = 0
        self.last_at = 0.0
        self._setup = setup
        self._sums = np.zeros((3, 64))

    def forget(self) -> None:
        """Give the memory back: no series is asked for again."""
        self._sums = np.zeros((3, 0))

    def add(self, block: Block) -> None:
        """Count a block."""
        if not len(block):
            return
        self.requests += len(block)
        self.last_at = float(block.at[-1])
        bins = (block.at / BIN_S).astype(np.int64)
        while bins[-1] >= self._sums.shape[1]:
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)], axis=1)
        world, function = self._setup.world, self._setup.world.function
        work_s = block.service_s / world.throughput
        captive = ~block.fits
        usd = np.zeros(len(block))
        if function is not None:
            usd = function.usd_per_request + function.compute_usd(block.function_s)
            usd[captive] = 0.0
        for row, weights in enumerate((work_s, usd, np.where(captive, work_s, 0.0))):
            self._sums[row] += np.bincount(bins, weights, self._sums.shape[1])

    def series(self, start_s: float, end_s: float) -> DemandSeries:
        """The demand from `start_s` to `end_s`, both multiples of a bin."""
        first, last = round(start_s / BIN_S), round(end_s / BIN_S)
        rates = np.zeros((3, max(last - first, 0)))
        known: Floats = self._sums[:, first:last] / BIN_S
        rates[:, : known.shape[1]] = known
        return DemandSeries(BIN_S, rates[0], rates[1], rates[2] if rates[2].any() else None)
