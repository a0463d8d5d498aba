"""Whether one side loses more than another by a margin, judged as often as one likes.

An e-process: for every pair of rates that the hypothesis allows, the likelihood ratio of a mixture
against it is a martingale while that pair is the truth, so the smallest of them exceeds 1/alpha at
any time with chance alpha at most (Ville's inequality). Looking every second costs nothing, and
labels may come in any order. Losses are within 0..1, not only 0 or 1. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, lgamma, log

_TINY = 1e-12
_STEPS = 60
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(slots=True)
class Losses:
    """How many were judged on one side, and what was lost in all."""

    count: int = 0
    total: float = 0.0

    def add(self, loss: float) -> None:
        """Count one, its loss within 0..1."""
        self.count += 1
        self.total += loss

    @property
    def mean(self) -> float:
        """The share that was lost; 0 before anything was judged."""
        return self.total / self.count if self.count else 0.0


def log_evidence(stable: Losses, canary: Losses, margin: float) -> float:
    """The logarithm of the evidence that the canary loses more than `margin` above the stable side.

    Never positive where it does not.
    """
    if canary.mean - stable.mean <= margin or not stable.count:
        return 0.0
    mixtures = _log_mixture(stable) + _log_mixture(canary)

    def likelihood(rate: float) -> float:
        return _log_likelihood(stable, rate) + _log_likelihood(canary, rate + margin)

    return mixtures - _largest(likelihood, 0.0, 1.0 - margin)


def surely_within(losses: Losses, alpha: float) -> tuple[float, float]:
    """The rates that the losses leave possible, at all times together with chance 1 - alpha."""
    if not losses.count:
        return 0.0, 1.0
    limit = _log_mixture(losses) + log(alpha)

    def is_possible(rate: float) -> bool:
        return _log_likelihood(losses, rate) >= limit

    return (
        _boundary(is_possible, losses.mean, 0.0),
        _boundary(is_possible, losses.mean, 1.0),
    )


def _log_mixture(losses: Losses) -> float:
    """The likelihood of the losses averaged over all rates by Jeffreys' prior."""
    lost, kept = losses.total + 0.5, losses.count - losses.total + 0.5
    beta = lgamma(lost) + lgamma(kept) - lgamma(lost + kept)
    return beta - (2 * lgamma(0.5) - lgamma(1.0))


def _log_likelihood(losses: Losses, rate: float) -> float:
    rate = min(1 - _TINY, max(_TINY, rate))
    return losses.total * log(rate) + (losses.count - losses.total) * log(1 - rate)


def _largest(of: Callable[[float], float], low: float, high: float) -> float:
    """The maximum of a concave function, by the golden section."""
    for _ in range(_STEPS):
        step = (high - low) * _GOLDEN
        if of(high - step) < of(low + step):
            low = high - step
        else:
            high = low + step
    return max(of(low), of(high))


def _boundary(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    if holds(outside):
        return outside
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if holds(middle):
            inside = middle
        else:
            outside = middle
    return outside


def chance(log_value: float) -> float:
    """The p-value, valid at any time, of so much evidence."""
    return min(1.0, exp(-max(0.0, log_value)))
