"""Whether a canary is worse than the stable side by more than a margin, beyond chance.

Errors: the lower confidence bound of the difference of two proportions (Newcombe's hybrid score
interval, sound also for few errors and for none). Latency: more of the canary's answers than a
quantile allows are slower than that quantile of the stable side, with both bounds taken against the
alarm. Needs no assumption about distributions. Pure; what counts as an error is the caller's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil, log, sqrt
from statistics import NormalDist

_FASTEST_S = 1e-4
_STEP = 1.05
"""Latencies are kept in buckets 5 % wide, from 0.1 ms."""
_STEP_LOG = log(_STEP)


class Fault(StrEnum):
    """What was found wrong with a canary."""

    ERRORS = "errors"
    LATENCY = "latency"
    ACCURACY = "accuracy"
    DRIFT = "drift"
    ASKED = "asked"
    HEARD = "heard"


@dataclass(frozen=True, slots=True)
class RollbackParams:
    """How much worse is too much, and how sure one must be.

    `error_margin` is absolute (0.01: one request in a hundred), `latency_margin` relative, at the
    `latency_quantile`. `confidence` is that of each look; `min_requests` holds for either side.
    `accuracy_margin` (absolute, of answers that labels call wrong) and `drift_psi` (of the answers'
    distribution) are judged by `quality.rollout`, where `confidence` is that of all looks together;
    None: not at all.
    """

    min_requests: int
    window_s: float
    error_margin: float
    latency_margin: float
    latency_quantile: float
    confidence: float
    accuracy_margin: float | None = None
    drift_psi: float | None = None


@dataclass(slots=True)
class Tally:
    """What came of one side's requests: how many, how many failed, how long the others took."""

    requests: int = 0
    errors: int = 0
    latencies: dict[int, int] = field(default_factory=dict)

    def add(self, latency_s: float | None) -> None:
        """Count one request; None for one that failed."""
        self.requests += 1
        if latency_s is None:
            self.errors += 1
        else:
            bucket = bucket_of(latency_s)
            self.latencies[bucket] = self.latencies.get(bucket, 0) + 1

    def merge(self, other: "Tally") -> None:
        """Add another tally to this one."""
        self.requests += other.requests
        self.errors += other.errors
        for bucket, count in other.latencies.items():
            self.latencies[bucket] = self.latencies.get(bucket, 0) + count

    def quantile_s(self, quantile: float) -> float | None:
        """The latency that such a share of the answers did not exceed, within 5 %."""
        total = sum(self.latencies.values())
        bucket = _bucket_at(self.latencies, quantile * total)
        return None if bucket is None else _upper_s(bucket)


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a canary is to be rolled back, in numbers for people."""

    fault: Fault
    text: str


def judge(stable: Tally, canary: Tally, params: RollbackParams) -> Finding | None:
    """What is wrong with the canary, None if nothing is, or nothing that is sure."""
    if min(stable.requests, canary.requests) < params.min_requests:
        return None
    return _errors(stable, canary, params) or _latency(stable, canary, params)


def _errors(stable: Tally, canary: Tally, params: RollbackParams) -> Finding | None:
    z = NormalDist().inv_cdf(params.confidence)
    theirs, ours = stable.errors / stable.requests, canary.errors / canary.requests
    low, _ = wilson(canary.errors, canary.requests, z)
    _, high = wilson(stable.errors, stable.requests, z)
    surely_worse_by = ours - theirs - sqrt((ours - low) ** 2 + (high - theirs) ** 2)
    if surely_worse_by <= params.error_margin:
        return None
    told = f"{ours:.1%} of {canary.requests} requests failed, {theirs:.1%} on the stable side"
    return Finding(Fault.ERRORS, told)


def _latency(stable: Tally, canary: Tally, params: RollbackParams) -> Finding | None:
    z = NormalDist().inv_cdf(params.confidence)
    quantile = params.latency_quantile
    known, answered = sum(stable.latencies.values()), sum(canary.latencies.values())
    if min(known, answered) < params.min_requests:
        return None
    bucket = _surely_above(stable.latencies, known, quantile, z)
    if bucket is None:
        return None
    limit = bucket + ceil(log(1 + params.latency_margin) / _STEP_LOG)
    slower = sum(count for at, count in canary.latencies.items() if at > limit)
    low, _ = wilson(slower, answered, z)
    if low <= 1 - quantile:
        return None
    told = (
        f"{slower / answered:.1%} of {answered} answers took over {_upper_s(limit) * 1e3:.3g} ms,"
        f" where {1 - quantile:.1%} may (p{quantile * 100:g} of the stable side and the margin)"
    )
    return Finding(Fault.LATENCY, told)


def wilson(successes: int, trials: int, z: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion; `trials` at least 1."""
    share, square = successes / trials, z * z
    middle = share + square / (2 * trials)
    spread = z * sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def bucket_of(latency_s: float) -> int:
    """The bucket of a latency."""
    return 0 if latency_s <= _FASTEST_S else ceil(log(latency_s / _FASTEST_S) / _STEP_LOG)


def _upper_s(bucket: int) -> float:
    return float(_FASTEST_S * _STEP**bucket)


def _surely_above(
    latencies: Mapping[int, int], total: int, quantile: float, z: float
) -> int | None:
    """The first bucket that is surely not below the quantile; None if there are too few."""
    seen = 0
    for bucket in sorted(latencies):
        seen += latencies[bucket]
        low, _ = wilson(seen, total, z)
        if low >= quantile:
            return bucket
    return None


def _bucket_at(latencies: Mapping[int, int], rank: float) -> int | None:
    seen = 0
    for bucket in sorted(latencies):
        seen += latencies[bucket]
        if seen >= rank:
            return bucket
    return None
