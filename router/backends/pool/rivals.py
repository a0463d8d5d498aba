"""Whether somebody else sets a Deployment's size again and again, such as an HPA or KEDA.

Told by what is found where the gateway had written another number: the scale subresource, all that
the gateway may read, does not say who wrote it. One who changes the size by hand is overruled;
one who insists is not fought, because two sizers would start and stop replicas for ever. Pure.
"""

RESETS = 3
"""So many times the gateway's number is replaced by another one before it gives in."""
_WITHIN_S = 600.0


class Rivals:
    """What became of the numbers that the gateway wrote."""

    def __init__(self) -> None:
        self.have_it = False
        """Whether the size is left to them. Stays so for the life of this object."""
        self._written: int | None = None
        self._resets: list[float] = []

    def wrote(self, replicas: int) -> None:
        """The gateway has set the size."""
        self._written = replicas

    def saw(self, replicas: int, now: float) -> bool:
        """The size was read; returns whether the gateway gives in now."""
        if self.have_it or self._written is None or replicas == self._written:
            return False
        self._written = None  # one change counts once, whatever follows
        self._resets = [at for at in self._resets if now - at <= _WITHIN_S]
        self._resets.append(now)
        self.have_it = len(self._resets) >= RESETS
        return self.have_it

    def paused(self) -> None:
        """Another gateway may have set the size since: what is found next is nobody's reset."""
        self._written = None
