"""How many requests a caller may send: a token bucket per API key. Pure."""


class RateLimit:
    """`rate_per_s` on average, `burst` at once."""

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "_updated")

    def __init__(self, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def take(self, now: float) -> float:
        """Take one request: 0 if it is within the limit, else seconds until one would be."""
        elapsed = max(0.0, now - self._updated)
        self._updated = now
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate_per_s)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate_per_s
