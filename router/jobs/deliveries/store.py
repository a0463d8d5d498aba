"""Where deliveries are kept: what every store promises, in the same place as the jobs.

A delivery that is claimed is due again when its claim ends, whoever claimed it: one attempt has a
deadline of its own that is shorter. So each is tried at least once, and a crash loses none.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from router.jobs.deliveries.records import Delivery, Progress


class DeliveryStore(Protocol):
    """Deliveries by the host that they go to. All methods raise NotDurableError as `JobStore`."""

    async def add(self, delivery: Delivery, most_waiting: int) -> bool:
        """Keep a delivery; it outlives any crash once this returns. False if its id is known.

        Raises TooManyJobsError if its tenant would then have more than `most_waiting` that wait.
        """
        ...

    async def get(self, delivery_id: str) -> Delivery | None:
        """The delivery as it is now."""
        ...

    async def hosts(self, now: float) -> list[str]:
        """Hosts that something is due for; the one that has waited longest comes first."""
        ...

    async def claim(self, host: str, now: float, until: float, most: int) -> list[Delivery]:
        """Take a host's due deliveries, longest due first; nobody else gets them till `until`."""
        ...

    async def settle(self, delivery: Delivery) -> bool:
        """Write what became of a claimed delivery; False if it was changed since."""
        ...

    async def wake(self, ids: Sequence[str], now: float) -> None:
        """What these are about has ended: those that were not tried yet are due now."""
        ...

    async def remove(self, delivery_id: str) -> None:
        """Forget a delivery."""
        ...

    async def counts(self) -> Mapping[Progress, int]:
        """How many are in which state."""
        ...

    async def sweep(self, before: float, most: int) -> int:
        """Forget those that ended before that, so many at most; returns how many."""
        ...
