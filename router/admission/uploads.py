"""Which long bodies may hold a slot of a pool while they are still coming. Pure.

A slot that waits for a client is lost to the others, so half of a pool's slots are never held so,
and of the other half a tenant gets the share that its weight is among those that upload now. Who
gets no place is not refused: the body is read to its end first, and then needs none.
"""

from typing import Protocol


class Unfinished(Protocol):
    """A body that comes from a client."""

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come."""
        ...


class Uploads:
    """The bodies for which one pool's slots are held."""

    def __init__(self) -> None:
        self._held: dict[Unfinished, tuple[str, float]] = {}

    def enter(
        self, upload: Unfinished, tenant: str, weight: float, *, slots: int, taken: int
    ) -> bool:
        """Give the upload a place until it is complete or leaves; False if there is none for it.

        `slots` is how many the pool has, `taken` how many of them other gateways hold, for
        whatever: they do not say for what.
        """
        self._held = {one: whose for one, whose in self._held.items() if not one.is_complete}
        most = slots // 2 - taken
        if len(self._held) >= most:
            return False
        weights = {**dict(self._held.values()), tenant: weight}
        own = sum(name == tenant for name, _ in self._held.values())
        if own >= max(1, int(most * weight / sum(weights.values()))):
            return False
        self._held[upload] = tenant, weight
        return True

    def leave(self, upload: Unfinished) -> None:
        """Free the place of an upload, if it has one."""
        self._held.pop(upload, None)
