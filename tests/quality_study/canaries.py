"""Canaries that are as fast and error-free as the stable side, judged by labels that come late."""

from dataclasses import dataclass

import numpy as np

from router.policy.canary import Side
from router.policy.rollback import RollbackParams
from router.quality.evidence import Losses
from router.quality.rollout import Rollout

LATE_H = 1.0
PARAMS = RollbackParams(50, 300.0, 0.02, 0.25, 0.95, 0.999, accuracy_margin=0.01)
_NOBODY = {side: Losses() for side in Side}


@dataclass(frozen=True)
class Verdicts:
    """Of `seeds` canaries: how many were taken out, and after how many labels of theirs."""

    wrong_by: float
    seeds: int
    rolled_back: int
    labels: list[int]

    def hours(self, labels_per_hour: float) -> float:
        """The median time to the rollback, the hour that labels take included."""
        return float(np.median(self.labels)) / labels_per_hour + LATE_H if self.labels else np.inf


def verdicts(wrong: float, wrong_by: float, seeds: int, labels: int, every: int = 1) -> Verdicts:
    """Judge so many canaries by so many labels of each side.

    `every`: labels come in such batches, and each is looked at.
    """
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        rollout = Rollout("settings 0", PARAMS)
        draws = rng.random((labels, 2)) < (wrong, wrong + wrong_by)
        for at in range(0, labels, every):
            for side, column in ((Side.STABLE, 0), (Side.CANARY, 1)):
                batch = draws[at : at + every, column]
                rollout.losses[side].count += len(batch) - (side is Side.CANARY)
                rollout.losses[side].total += int(batch.sum()) - (
                    int(batch[-1]) if side is Side.CANARY else 0
                )
            if rollout.label(Side.CANARY, float(draws[min(at + every, labels) - 1, 1]), _NOBODY):
                found.append(at + every)
                break
    return Verdicts(wrong_by, seeds, len(found), found)
