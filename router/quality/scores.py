"""How good answers were, as sums: a label adds to a few numbers, and gateways' sums add up.

Metrics come with intervals: Wilson's for shares, the normal one for means, a bootstrap of the
counts for what is neither (F1, calibration, AUC). Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from router.policy.rollback import wilson

Array = np.ndarray[Any, np.dtype[Any]]

MAX_PAIRS = 400
"""Most different (truth, prediction) pairs that are told apart; the rest is one."""
OTHER = "other"
CALIBRATION_BINS = 15
SCORE_BINS = 128
_RESAMPLES = 200
_LEAST_PROBABILITY = 1e-15
_CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)


class Metric(NamedTuple):
    """A figure, its 95 % interval, and what it was made of."""

    value: float
    low: float
    high: float
    size: int


@dataclass(slots=True)
class Mean:
    """A mean as sums."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        self.total += value
        self.squares += value * value

    def merge(self, other: "Mean") -> None:
        """Add the sums of another one."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares

    @property
    def metric(self) -> Metric | None:
        """The mean with the normal interval; None without values."""
        if not self.count:
            return None
        mean = self.total / self.count
        variance = max(0.0, self.squares / self.count - mean * mean)
        spread = _Z * sqrt(variance / max(1, self.count - 1))
        return Metric(mean, mean - spread, mean + spread, self.count)


class Classified(NamedTuple):
    """A class that was predicted; probabilities are None where the model gives none.

    `p_truth` is that of the class that was right, `p_positive` that of the second of two classes,
    `squares` the sum of the squares of all.
    """

    truth: str
    predicted: str
    confidence: float | None = None
    p_truth: float | None = None
    squares: float = 0.0
    p_positive: float | None = None
    is_positive: bool = False


@dataclass(slots=True)
class Scores:
    """What labels have said so far. Each kind of label fills its own part."""

    rewards: Mean = field(default_factory=Mean)
    pairs: dict[tuple[str, str], int] = field(default_factory=dict)
    calibration: Array = field(default_factory=lambda: np.zeros((3, CALIBRATION_BINS)))
    by_score: Array = field(default_factory=lambda: np.zeros((2, SCORE_BINS), np.int64))
    log_loss: Mean = field(default_factory=Mean)
    brier: Mean = field(default_factory=Mean)
    absolute: Mean = field(default_factory=Mean)
    square: Mean = field(default_factory=Mean)
    relative: Mean = field(default_factory=Mean)

    def reward(self, value: float) -> None:
        """Count how good one answer was: 1 right, 0 wrong, or between."""
        self.rewards.add(value)

    def classified(self, found: Classified) -> None:
        """Count a predicted class and the right one."""
        is_right = found.truth == found.predicted
        self.rewards.add(float(is_right))
        self._pair((found.truth, found.predicted), 1)
        if found.confidence is not None:
            at = min(CALIBRATION_BINS - 1, int(found.confidence * CALIBRATION_BINS))
            self.calibration[:, at] += (1, found.confidence, is_right)
        if found.p_truth is not None:
            self.log_loss.add(-log(max(found.p_truth, _LEAST_PROBABILITY)))
            self.brier.add(found.squares - 2 * found.p_truth + 1)
        if found.p_positive is not None:
            at = min(SCORE_BINS - 1, int(found.p_positive * SCORE_BINS))
            self.by_score[int(found.is_positive), at] += 1

    def predicted(self, truth: float, value: float, tolerance: float) -> None:
        """Count a number and the right one; it is right within the tolerance."""
        error = abs(truth - value)
        self.rewards.add(float(error <= tolerance))
        self.absolute.add(error)
        self.square.add(error * error)
        if truth:
            self.relative.add(error / abs(truth))

    def merge(self, other: "Scores") -> None:
        """Add another gateway's, or another hour's."""
        for name in ("rewards", "log_loss", "brier", "absolute", "square", "relative"):
            getattr(self, name).merge(getattr(other, name))
        for pair, count in other.pairs.items():
            self._pair(pair, count)
        self.calibration = self.calibration + other.calibration
        self.by_score = self.by_score + other.by_score

    def _pair(self, pair: tuple[str, str], count: int) -> None:
        if pair not in self.pairs and len(self.pairs) >= MAX_PAIRS:
            pair = (OTHER, OTHER) if pair[0] == pair[1] else (OTHER, "another")
        self.pairs[pair] = self.pairs.get(pair, 0) + count


def metrics(scores: Scores) -> dict[str, Metric]:
    """All that the labels allow to say, by name."""
    found: dict[str, Metric | None] = {}
    if scores.pairs:
        found["accuracy"] = share_of(scores.rewards)
        found |= _by_class(scores.pairs)
    elif scores.absolute.count:
        found["within_tolerance"] = share_of(scores.rewards)
    elif scores.rewards.count:
        found["mean_score"] = share_of(scores.rewards)
    found["log_loss"], found["brier"] = scores.log_loss.metric, scores.brier.metric
    found["mae"], found["mape"] = scores.absolute.metric, scores.relative.metric
    found["rmse"] = _root(scores.square.metric)
    if scores.calibration[0].any():
        found["ece"] = _calibration(scores.calibration)
    if scores.by_score.sum(axis=1).all():
        found["auc"] = _bootstrapped(auc, scores.by_score)
    return {name: metric for name, metric in found.items() if metric is not None}


def share_of(rewards: Mean) -> Metric:
    """The mean of rewards, of which there are some, with Wilson's interval."""
    # Of fractions between 0 and 1 the variance is at most that of as many zeros and ones.
    count, share = rewards.count, rewards.total / rewards.count
    low, high = wilson(share * count, count, _Z)  # type: ignore[arg-type]
    return Metric(share, low, high, count)


def _root(square: Metric | None) -> Metric | None:
    if square is None:
        return None
    value, low, high, count = square
    return Metric(sqrt(value), sqrt(max(0.0, low)), sqrt(max(0.0, high)), count)


def _by_class(pairs: Mapping[tuple[str, str], int]) -> dict[str, Metric]:
    """Precision, recall and F1, each the mean over the classes that occur."""
    names = sorted({name for pair in pairs for name in pair})
    truths, guesses = np.array(
        [[names.index(truth), names.index(guess)] for truth, guess in pairs]
    ).T
    counts = np.array(list(pairs.values()))
    draws = np.vstack([counts, _redrawn(counts)]).astype(np.float64)
    of_truth, of_guess = np.eye(len(names))[truths], np.eye(len(names))[guesses]
    truth, guess = draws @ of_truth, draws @ of_guess
    right = draws @ (of_truth * of_guess)
    occurs = truth + guess > 0
    figures = {
        "precision": _mean_ratios(right, guess, occurs),
        "recall": _mean_ratios(right, truth, occurs),
        "f1": _mean_ratios(2 * right, truth + guess, occurs),
    }
    total = int(counts.sum())
    return {name: _between(value, draws, total) for name, (value, *draws) in figures.items()}


def _mean_ratios(part: Array, whole: Array, of: Array) -> Array:
    ratios = np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
    return ratios.sum(axis=1) / of.sum(axis=1)  # type: ignore[no-any-return]


def auc(by_score: Array) -> float:
    """The chance that a positive has a higher score than a negative, ties counted half."""
    negatives, positives = by_score
    below = np.cumsum(negatives) - negatives / 2
    pairs = negatives.sum() * positives.sum()
    return float((positives * below).sum() / pairs) if pairs else 0.5


def _bootstrapped(figure: Callable[[Array], float], counts: Array) -> Metric:
    """The figure of counts, and the middle 95 % of it over counts drawn again from these."""
    values = [figure(draw.reshape(counts.shape)) for draw in _redrawn(counts)]
    return _between(figure(counts), values, int(counts.sum()))


def _redrawn(counts: Array) -> Array:
    total = int(counts.sum())
    shares = (counts / total).reshape(-1)
    return np.random.default_rng(total).multinomial(total, shares, size=_RESAMPLES)


def _between(value: float, draws: Sequence[float], total: int) -> Metric:
    low, high = np.quantile(draws, [0.5 - _CONFIDENCE / 2, 0.5 + _CONFIDENCE / 2])
    return Metric(float(value), float(min(low, value)), float(max(high, value)), total)


def _calibration(sums: Array) -> Metric:
    """The mean distance of confidence and share of right answers, over bins of confidence."""
    counts, confidences, right = sums
    total = int(counts.sum())

    def error(right: Array) -> float:
        return float(np.abs(confidences - right).sum() / total)

    rng = np.random.default_rng(total)
    shares = np.divide(right, counts, out=np.zeros(len(counts)), where=counts > 0)
    values = [error(rng.binomial(counts.astype(np.int64), shares)) for _ in range(_RESAMPLES)]
    return _between(error(right), values, total)
