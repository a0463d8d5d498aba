"""Requests that wait for a slot: a queue bounded by count and bytes, in the order of `line`.

Slots are handed over to a waiter, never thrown to whoever comes first: nobody overtakes, and a
cancelled waiter gives its slot to the next. The only asyncio here is the future a waiter holds.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from router.admission.line import Line, Ticket
from router.domain.errors import QueueFullError, QueueTimeoutError

Slot = TypeVar("Slot")


class SlotQueue(Generic[Slot]):
    """Waiters for slots of some kind. `give_back` takes a slot that its waiter could not use."""

    def __init__(
        self, max_requests: int, max_bytes: int, give_back: Callable[[Slot], None]
    ) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self._give_back = give_back
        self._line: Line[asyncio.Future[Slot]] = Line()
        self.waiters = self._line.tickets
        """Truthy while somebody waits."""

    def __len__(self) -> int:
        return len(self.waiters)

    @property
    def has_waiting(self) -> bool:
        """Whether a slot handed over now would be taken."""
        return any(not waiter.done() for waiter in self.waiters)

    @property
    def queued_bytes(self) -> int:
        """Body bytes of all that wait."""
        return self._line.size_bytes

    def seen_by(self, ticket: Ticket | None) -> tuple[int, int]:
        """How many waiters, and bytes of them, such a request finds ahead of it.

        All there are, if it has no right to a place of theirs; so do those without a ticket.
        """
        if ticket is None or not self.waiters:
            return len(self), self._line.size_bytes
        in_the_way = self._line.in_the_way_of(ticket, self.max_requests, self.max_bytes)
        if in_the_way is None:
            return len(self), self._line.size_bytes
        ahead, ahead_bytes = self._line.ahead_of(ticket)
        room, room_bytes = self.max_requests - 1, self.max_bytes - ticket.payload_bytes
        return min(ahead, room), min(ahead_bytes, room_bytes)

    async def wait(self, ticket: Ticket, timeout_s: float) -> Slot:
        """Wait for a slot.

        Raises QueueTimeoutError after `timeout_s`; QueueFullError at once, or later, when somebody
        came who has a better right to the place.
        """
        self._make_room(ticket)
        waiter: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._line.add(waiter, ticket)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError as error:
            self._abandon(waiter)
            raise QueueTimeoutError(f"no slot came free within {timeout_s:.1f} s") from error
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise

    def hand_over(self, slot: Slot) -> bool:
        """Give the slot to the first waiter; False if nobody waits."""
        while (waiter := self._line.next()) is not None:
            if not waiter.done():
                waiter.set_result(slot)
                return True
        return False

    def _make_room(self, ticket: Ticket) -> None:
        in_the_way = self._line.in_the_way_of(ticket, self.max_requests, self.max_bytes)
        if in_the_way is None:
            raise QueueFullError(f"the queue is full ({len(self)} requests wait)")
        for waiter in in_the_way:
            self._line.remove(waiter)
            if not waiter.done():
                waiter.set_exception(
                    QueueFullError("the queue is full, and the place went to another request")
                )

    def _abandon(self, waiter: asyncio.Future[Slot]) -> None:
        self._line.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            # Handed over in the same tick in which the waiter gave up.
            self._give_back(waiter.result())
            return
        waiter.cancel()
