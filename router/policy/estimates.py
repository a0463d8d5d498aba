"""What is known of service times, billed times and cold starts: learned, with configured priors.

State machines over plain numbers; they read no clock and forget nothing they were not told to.
"""

from collections import deque
from math import inf

from router.policy.spread import Spread

_BUCKETS = 40
_LEARNED = 20
_MEMORY = 1.0 / _LEARNED
"""Weight of one new observation once a bucket has seen so many."""
_GUESSED_DEVIATION = 0.25
"""Mean absolute deviation over mean, until it can be told: a guess."""
_UPPER_DEVIATIONS = 3.0
"""mean + 3 mean absolute deviations: near p99 for a normal, p95 for an exponential."""


BUCKET_STARTS = frozenset({0, 1 << 62}.union(1 << exponent for exponent in range(_BUCKETS)))
"""The smallest size of each bucket, and a size that nothing has."""


def payload_bucket(payload_bytes: int) -> int:
    """log2 bucket of a payload size: 0, 1, 2-3, 4-7, ..."""
    bucket = payload_bytes.bit_length()
    return bucket if bucket < _BUCKETS else _BUCKETS - 1


class DurationEstimate:
    """Exponentially weighted mean and mean absolute deviation of a duration, in seconds.

    `spread` is what is known of how far such durations reach above their mean, and learns from it.
    """

    __slots__ = ("_spread", "count", "deviation_s", "mean_s")

    def __init__(self, prior_s: float, spread: Spread | None = None) -> None:
        self._spread = spread
        self.mean_s = prior_s
        self.deviation_s = _GUESSED_DEVIATION * prior_s
        self.count = 0

    def observe(self, seconds: float) -> None:
        """Learn one duration; the first one replaces the prior.

        The second replaces the first if it is shorter: first answers are often slow ones.
        """
        count = self.count = self.count + 1
        if count <= 2 and (count == 1 or seconds < self.mean_s):
            self.mean_s = seconds
            self.deviation_s = _GUESSED_DEVIATION * seconds
            return
        weight = 1.0 / count if count < _LEARNED else _MEMORY
        if self._spread is not None and count > _LEARNED and self.mean_s > 0:
            self._spread.observe(seconds / self.mean_s)
        error = seconds - self.mean_s
        self.mean_s += weight * error
        spread = error if error >= 0 else -error
        self.deviation_s += weight * (spread - self.deviation_s)

    @property
    def is_untried(self) -> bool:
        """Whether nothing was observed yet."""
        return self.count == 0

    @property
    def is_learned(self) -> bool:
        """Whether enough was observed to judge the spread by; until then it is a guess."""
        return self.count >= _LEARNED

    @property
    def upper_s(self) -> float:
        """A high estimate: one in a hundred lies above it, or a few as long as little is known."""
        spread = self._spread
        if spread is not None and spread.factor and self.count >= _LEARNED:
            return self.mean_s * spread.factor
        return self.mean_s + _UPPER_DEVIATIONS * self.deviation_s


class ServiceTimes:
    """Durations of one model on one backend by payload bucket.

    A bucket without observations answers with its nearest seen neighbour, else with the prior.
    """

    __slots__ = ("_nearest", "_seen", "_spread", "prior_s")

    def __init__(self, prior_s: float) -> None:
        self.prior_s = prior_s
        self._spread = Spread()
        self._seen: dict[int, DurationEstimate] = {}
        # Which estimate answers for each bucket; changes only when a bucket is first seen.
        self._nearest = [DurationEstimate(prior_s)] * _BUCKETS

    def observe(self, payload_bytes: int, seconds: float) -> None:
        """Learn how long a request of that size took."""
        bucket = payload_bucket(payload_bytes)
        estimate = self._seen.get(bucket)
        if estimate is None:
            estimate = self._seen[bucket] = DurationEstimate(seconds, self._spread)
            self._nearest = [self._nearest_to(each) for each in range(_BUCKETS)]
        estimate.observe(seconds)

    def estimate(self, payload_bytes: int) -> DurationEstimate:
        """The best knowledge for a request of that size."""
        return self._nearest[payload_bucket(payload_bytes)]

    def _nearest_to(self, bucket: int) -> DurationEstimate:
        # Of two at the same distance the smaller one: sizes below are the commoner case.
        return self._seen[min(self._seen, key=lambda seen: (abs(seen - bucket), seen))]


def believed_s(pool: ServiceTimes, function: ServiceTimes | None, payload_bytes: int) -> float:
    """Mean time in the pool; of an untried one, what its prior and the function tell together.

    A prior that is too high would keep replicas from ever being started, and so from correction.
    Of three guesses the middle one holds if one prior is wrong, or both by the same factor: the
    prior, the function's time, and the prior scaled as the function's prior proved wrong.
    """
    on_pool = pool.estimate(payload_bytes)
    if not on_pool.is_untried or function is None:
        return on_pool.mean_s
    called = function.estimate(payload_bytes)
    if called.is_untried:
        return on_pool.mean_s
    scaled_s = pool.prior_s * called.mean_s / function.prior_s
    middle_s = sorted((pool.prior_s, called.mean_s, scaled_s))[1]
    # A replica that is tried in vain costs once, one that is never tried for good.
    return min(middle_s, called.mean_s)


class FunctionTimes:
    """What one function's calls take as the gateway sees them, as billed, and when cold."""

    __slots__ = ("billed", "init", "service")

    def __init__(self, service_time_s: float, cold_start_s: float) -> None:
        self.service = ServiceTimes(service_time_s)
        self.billed = ServiceTimes(service_time_s)
        self.init = DurationEstimate(cold_start_s)

    def cold(self, payload_bytes: int, served_s: float, init_s: float) -> None:
        """Learn what a cold start added to a call; `init_s` is what the platform says, or 0."""
        usual_s = self.service.estimate(payload_bytes).mean_s
        self.init.observe(max(served_s - usual_s, init_s))

    def answered(
        self, payload_bytes: int, served_s: float, billed_warm_s: float, *, was_cold: bool
    ) -> None:
        """Learn from a call that did its work: how long it took (if warm) and what it billed."""
        self.billed.observe(payload_bytes, billed_warm_s)
        if not was_cold:
            self.service.observe(payload_bytes, served_s)


class WarmEnvironments:
    """Believed warm function environments of one model, most recently used first.

    Mirrors what the platform does: a call takes the environment that was used last, a call that
    finds none starts cold, and an environment idle for `reclaim_s` is gone. Bounded by
    `max_concurrency`. Where the belief is wrong, the observed error rate corrects P(cold).
    """

    __slots__ = ("_idle_since", "_surprise", "max_concurrency", "reclaim_s")

    def __init__(self, reclaim_s: float, max_concurrency: int) -> None:
        self.reclaim_s = reclaim_s
        self.max_concurrency = max_concurrency
        self._idle_since: deque[float] = deque()
        self._surprise = 0.0

    def p_cold(self, now: float) -> float:
        """Probability that a call sent now starts cold."""
        return self._surprise if self._warm(now) else 1.0

    def take(self, now: float) -> bool:
        """A call is sent: returns whether it was expected to find a warm environment."""
        warm = self._warm(now) > 0
        if warm:
            self._idle_since.pop()
        return warm

    def give_back(self, now: float, *, expected_warm: bool, was_cold: bool | None) -> None:
        """A call has ended and its environment idles; `was_cold` is None where nobody says."""
        if expected_warm and was_cold is not None:
            self._surprise += _MEMORY * (float(was_cold) - self._surprise)
        self._idle_since.append(now)
        while len(self._idle_since) > self.max_concurrency:
            self._idle_since.popleft()

    @property
    def cold_at(self) -> float:
        """When the last idle environment is gone, unless it is used before; infinite if none is."""
        return self._idle_since[-1] + self.reclaim_s if self._idle_since else inf

    def idle(self, now: float) -> int:
        """How many idle environments are believed warm."""
        return self._warm(now)

    def _warm(self, now: float) -> int:
        while self._idle_since and now - self._idle_since[0] > self.reclaim_s:
            self._idle_since.popleft()
        return len(self._idle_since)
