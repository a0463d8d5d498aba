"""How many failed attempts may be repeated, of all requests. Whether one may: `policy.recovery`."""


class RetryBudget:
    """Retries as a share of requests, plus a floor per second, so that they never multiply load.

    A token bucket: each request deposits `share`, time deposits `floor_per_s`, a retry costs 1.
    It holds `burst` at most, and `tokens` of them at first (by default all).
    """

    __slots__ = ("_capacity", "_floor_per_s", "_share", "_updated", "exhausted", "tokens")

    def __init__(
        self,
        share: float = 0.2,
        floor_per_s: float = 5.0,
        burst: float = 50.0,
        *,
        tokens: float | None = None,
    ) -> None:
        self._updated: float | None = None
        self.exhausted = 0
        self.tokens = burst if tokens is None else tokens
        self.reconfigure(share, floor_per_s, burst)

    def reconfigure(self, share: float, floor_per_s: float, burst: float) -> None:
        """Take new parameters; what is left stays, as far as it is held."""
        self._share = share
        self._floor_per_s = floor_per_s
        self._capacity = burst
        self.tokens = min(self.tokens, burst)

    def as_new(self) -> "RetryBudget":
        """Another one with the same parameters, of which nothing has been used."""
        return RetryBudget(self._share, self._floor_per_s, self._capacity)

    def deposit(self, now: float, requests: int = 1) -> None:
        """Requests arrived."""
        if self._updated is not None:
            self.tokens += (now - self._updated) * self._floor_per_s
        self._updated = now
        self.tokens = min(self.tokens + requests * self._share, self._capacity)

    def withdraw(self) -> bool:
        """Take one retry if the budget has it."""
        if self.tokens < 1.0:
            self.exhausted += 1
            return False
        self.tokens -= 1.0
        return True
