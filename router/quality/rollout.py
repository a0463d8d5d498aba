"""Whether a canary is worse by its labels, or answers otherwise than the stable side. Pure.

Both are judged as often as news come, without more false alarms for it: labels by an e-process,
distributions at sizes that grow, each look with its share of alpha.
"""

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np

from router.policy.canary import Side
from router.policy.rollback import Fault, Finding, RollbackParams
from router.quality.drift import Baseline, Counted, index_of, tested
from router.quality.evidence import Losses, log_evidence
from router.quality.features import Features
from router.quality.two_samples import discoveries

Array = np.ndarray[Any, np.dtype[Any]]

_FIRST_LOOK = 100
_GROWTH = 1.5
_OUTPUTS = "out:"


class Rollout:
    """What is known of both sides of one canary since its trial began."""

    def __init__(self, epoch: str, params: RollbackParams) -> None:
        self.epoch = epoch
        self._params = params
        self.losses = {side: Losses() for side in Side}
        self._counts: dict[Side, dict[str, Array]] = {side: {} for side in Side}
        self.samples = dict.fromkeys(Side, 0)
        self._cells: Baseline | None = None
        self._looks = 0
        self._look_at = float(_FIRST_LOOK)

    def is_before(self, epoch: str) -> bool:
        """Whether that is another trial, and one not older than this."""
        settings, _, term = self.epoch.partition(" ")
        settings_then, _, term_then = epoch.partition(" ")
        return settings != settings_then or int(term_then) > int(term)

    @property
    def margin(self) -> float | None:
        """How much more often the canary may be wrong; None: labels do not judge it."""
        return self._params.accuracy_margin

    def together(self, others: Mapping[Side, Losses]) -> dict[Side, Losses]:
        """What the labels of all gateways say."""
        return {
            side: Losses(own.count + others[side].count, own.total + others[side].total)
            for side, own in self.losses.items()
        }

    def label(self, side: Side, loss: float, others: Mapping[Side, Losses]) -> Finding | None:
        """Count a label of an answer of that side; what is wrong with the canary, if it is sure.

        `others` is what other gateways' labels say of the same trial.
        """
        self.losses[side].add(loss)
        params = self._params
        if params.accuracy_margin is None:
            return None
        losses = self.together(others)
        stable, canary = losses[Side.STABLE], losses[Side.CANARY]
        if log_evidence(stable, canary, params.accuracy_margin) < -log(1 - params.confidence):
            return None
        told = (
            f"{canary.mean:.1%} of {canary.count} labelled answers were wrong,"
            f" {stable.mean:.1%} of {stable.count} on the stable side"
        )
        return Finding(Fault.ACCURACY, told)

    def sample(self, side: Side, features: Features, stable: Baseline | None) -> Finding | None:
        """Count an answer of that side, in the cells of the stable side's baseline."""
        if self._params.drift_psi is None or stable is None:
            return None
        if self._cells is None:
            self._cells = stable
        for name, known in _outputs(self._cells).items():
            counts = self._counts[side].setdefault(name, np.zeros(known.bins.size, np.int64))
            counts += known.bins.count(np.array([features.get(name, np.nan)]))
        self.samples[side] += 1
        if min(self.samples.values()) < self._look_at:
            return None
        self._look_at *= _GROWTH
        self._looks += 1
        # The levels of all looks together are one alpha.
        alpha = 1 - self._params.confidence
        return self._differs(alpha / (self._looks * (self._looks + 1)), self._params.drift_psi)

    def _differs(self, level: float, least_psi: float) -> Finding | None:
        assert self._cells is not None  # noqa: S101  samples have been counted in them
        sides = {
            name: (Counted(known.bins, self._counts[Side.STABLE][name]), canary)
            for name, known in _outputs(self._cells).items()
            if (canary := self._counts[Side.CANARY].get(name)) is not None
        }
        tests = [
            (name, test, found)
            for name, (before, after) in sides.items()
            for test, found in tested(before, after)
            if test != "out_of_range"  # of the baseline's range: says nothing about two sides
        ]
        sure = discoveries([found.p for _, _, found in tests], level)
        for is_sure, (name, test, found) in zip(sure, tests, strict=True):
            index = index_of(*sides[name])
            if is_sure and index >= least_psi:
                told = (
                    f"{name} is distributed otherwise than on the stable side: {test}"
                    f" {found.statistic:.3g}, PSI {index:.2f} of {self.samples[Side.CANARY]}"
                    f" and {self.samples[Side.STABLE]} answers"
                )
                return Finding(Fault.DRIFT, told)
        return None


def _outputs(baseline: Baseline) -> Mapping[str, Counted]:
    return {name: known for name, known in baseline.features.items() if name.startswith(_OUTPUTS)}
