"""Requests that wait for a slot: a queue bounded by count and bytes, first come first served.

Slots are handed over to a waiter, never thrown to whoever comes first: nobody overtakes, and a
cancelled waiter gives its slot to the next. The only asyncio here is the future a waiter holds.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from router.domain.errors import QueueFullError, QueueTimeoutError

Slot = TypeVar("Slot")


class SlotQueue(Generic[Slot]):
    """Waiters for slots of some kind. `give_back` takes a slot that its waiter could not use."""

    def __init__(
        self, max_requests: int, max_bytes: int, give_back: Callable[[Slot], None]
    ) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.queued_bytes = 0
        self._give_back = give_back
        self.waiters: deque[asyncio.Future[Slot]] = deque()

    def __len__(self) -> int:
        return len(self.waiters)

    @property
    def has_waiting(self) -> bool:
        """Whether a slot handed over now would be taken."""
        return any(not waiter.done() for waiter in self.waiters)

    async def wait(self, payload_bytes: int, timeout_s: float) -> Slot:
        """Wait for a slot. Raises QueueFullError at once, QueueTimeoutError after `timeout_s`."""
        if (
            len(self.waiters) >= self.max_requests
            or self.queued_bytes + payload_bytes > self.max_bytes
        ):
            raise QueueFullError(f"the queue is full ({len(self.waiters)} requests wait)")
        waiter: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        self.queued_bytes += payload_bytes
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError as error:
            self._abandon(waiter)
            raise QueueTimeoutError(f"no slot came free within {timeout_s:.1f} s") from error
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise
        finally:
            self.queued_bytes -= payload_bytes

    def hand_over(self, slot: Slot) -> bool:
        """Give the slot to the first waiter; False if nobody waits."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return True
        return False

    def _abandon(self, waiter: asyncio.Future[Slot]) -> None:
        if waiter.done() and not waiter.cancelled():
            # Handed over in the same tick in which the waiter gave up.
            self._give_back(waiter.result())
            return
        waiter.cancel()
        if waiter in self.waiters:
            self.waiters.remove(waiter)
