"""How many requests a caller may send: a token bucket per API key. Pure.

Several gateways, or processes of one, keep a bucket each and take from it what the others let
through too, as soon as they hear of it: so the rate holds for all of them together.
"""

from collections.abc import Mapping

_MAX_DEBT_S = 60.0


class RateLimit:
    """`rate_per_s` on average, `burst` at once. `taken` is what was let through here so far."""

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "_updated", "taken")

    def __init__(self, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._updated = now
        self.taken = 0

    def take(self, now: float) -> float:
        """Take one request: 0 if it is within the limit, else seconds until one would be."""
        self._refill(now)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            self.taken += 1
            return 0.0
        return (1.0 - self._tokens) / self._rate_per_s

    def taken_elsewhere(self, requests: float, now: float) -> None:
        """Others have let so many through; their debt is forgotten after a minute at most."""
        self._refill(now)
        self._tokens = max(self._tokens - requests, -_MAX_DEBT_S * self._rate_per_s)

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._updated)
        self._updated = now
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate_per_s)


class TakenElsewhere:
    """What the other gateways have let through since they were last looked at."""

    def __init__(self) -> None:
        self._seen: Mapping[str, Mapping[str, int]] = {}

    def since_last(self, peers: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        """New requests by key, given each peer's counts so far.

        Nothing is new of a peer that was not there before; one that counts from zero again has
        started anew.
        """
        new: dict[str, int] = {}
        for peer, counts in peers.items():
            before = self._seen.get(peer)
            if before is None or before is counts:
                continue
            for key, count in counts.items():
                known = before.get(key, 0)
                new[key] = new.get(key, 0) + (count - known if count >= known else count)
        self._seen = peers
        return {key: count for key, count in new.items() if count}
