"""How many calls a platform lets us have in flight, learned from its refusals. Pure arithmetic."""


class AimdLimit:
    """Additive increase, multiplicative decrease below a configured maximum.

    A refusal cuts the limit to 70 % of what was in flight; then every `limit` successes give one
    slot back (Chiu and Jain 1989).
    """

    __slots__ = ("_credit", "current", "maximum")

    _DECREASE = 0.7

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.current = maximum
        self._credit = 0.0

    def resize(self, maximum: int) -> None:
        """A new configured maximum; what was learned below it stays."""
        was_free = self.current == self.maximum
        self.maximum = maximum
        self.current = maximum if was_free else min(self.current, maximum)

    def refused(self, in_flight: int) -> None:
        """The platform refused a call while this many (it included) were in flight."""
        self.current = max(1, min(self.current, int(in_flight * self._DECREASE)))
        self._credit = 0.0

    def succeeded(self) -> None:
        """A call worked."""
        if self.current == self.maximum:
            return
        self._credit += 1.0 / self.current
        if self._credit >= 1.0:
            self._credit = 0.0
            self.current += 1
