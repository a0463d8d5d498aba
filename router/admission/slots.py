"""Requests that wait for a slot: a queue bounded by count and bytes, in the order of `line`.

Slots are handed over to a waiter, never thrown to whoever comes first: nobody overtakes, and a
cancelled waiter gives its slot to the next. One may wait in several queues and gets the first slot
that any of them has. The only asyncio here is the future a waiter holds.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from router.admission.line import Line, Ticket
from router.domain.errors import PlaceClosedError, QueueFullError, QueueTimeoutError

Slot = TypeVar("Slot")


class Waiter:
    """One request that waits, in every queue that it has joined."""

    def __init__(self) -> None:
        self._granted: asyncio.Future[tuple[SlotQueue[Any], Any]] = (
            asyncio.get_running_loop().create_future()
        )
        self._queues: list[SlotQueue[Any]] = []

    @property
    def is_done(self) -> bool:
        """Whether it waits no more."""
        return self._granted.done()

    async def slot(self, timeout_s: float) -> tuple["SlotQueue[Any]", Any]:
        """The first slot, and the queue it came from; the waiter is then in no queue any more.

        Raises QueueTimeoutError after `timeout_s`; QueueFullError when others with a better right
        have taken all its places; PlaceClosedError when the only place it waits for has closed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._granted
        except TimeoutError as error:
            self._give_back()
            raise QueueTimeoutError(f"no slot came free within {timeout_s:.1f} s") from error
        except asyncio.CancelledError:
            self._give_back()
            raise
        finally:
            self._leave_all()

    def joined(self, queue: "SlotQueue[Any]") -> None:
        """Note that the waiter has a place in this queue, too."""
        self._queues.append(queue)

    def grant(self, queue: "SlotQueue[Any]", slot: object) -> None:
        """Give the waiter a slot of that queue: it leaves all queues, and `slot` returns."""
        self._leave_all()
        self._granted.set_result((queue, slot))

    def displaced(self, queue: "SlotQueue[Any]") -> None:
        """Take its place in that queue away; without another place it fails (QueueFullError)."""
        self._queues.remove(queue)
        if not self._queues and not self.is_done:
            self._granted.set_exception(
                QueueFullError("the queue is full, and the place went to another request")
            )

    def sent_away(self, queue: "SlotQueue[Any]") -> None:
        """Tell the waiter that the queue is closed; without another place, PlaceClosedError."""
        if self._queues == [queue] and not self.is_done:
            self._leave_all()
            self._granted.set_exception(
                PlaceClosedError("what the request waited for has closed meanwhile")
            )

    def _leave_all(self) -> None:
        queues, self._queues = self._queues, []
        for queue in queues:
            queue.leave(self)

    def _give_back(self) -> None:
        granted = self._granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            # Handed over in the same tick in which the waiter gave up.
            queue, slot = granted.result()
            queue.give_back(slot)
            return
        granted.cancel()


class SlotQueue(Generic[Slot]):
    """The bounded queue of requests that wait for slots of a pool, or for calls of a function.

    `give_back` takes a slot that was granted to a waiter which had given up by then.
    """

    def __init__(
        self, max_requests: int, max_bytes: int, give_back: Callable[[Slot], None]
    ) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.give_back = give_back
        self._line: Line[Waiter] = Line()
        self.waiters = self._line.tickets
        """Truthy while somebody waits."""

    def __len__(self) -> int:
        return len(self.waiters)

    @property
    def has_waiting(self) -> bool:
        """Whether a slot handed over now would be taken."""
        return any(not waiter.is_done for waiter in self.waiters)

    @property
    def queued_bytes(self) -> int:
        """Body bytes of all that wait."""
        return self._line.size_bytes

    def seen_by(self, ticket: Ticket | None) -> tuple[int, int]:
        """How many waiters, and bytes of theirs, a request with `ticket` finds ahead of it.

        A decision is made of these numbers. A request without a ticket, or one that may displace
        nobody, finds the whole queue ahead; one that may displace others, at most the places that
        its own leaves.
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
        """Wait here only. Raises QueueTimeoutError, or QueueFullError at once or later."""
        waiter = Waiter()
        self.join(waiter, ticket)
        slot: Slot = (await waiter.slot(timeout_s))[1]
        return slot

    def join(self, waiter: Waiter, ticket: Ticket) -> None:
        """Give a waiter a place in the queue. Raises QueueFullError if there is none for it."""
        self._make_room(ticket)
        self._line.add(waiter, ticket)
        waiter.joined(self)

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out of the queue, if it is in it."""
        self._line.remove(waiter)

    def hand_over(self, slot: Slot) -> bool:
        """Give the slot to the first waiter; False if nobody waits."""
        while (waiter := self._line.next()) is not None:
            if not waiter.is_done:
                waiter.grant(self, slot)
                return True
        return False

    def send_away(self) -> None:
        """Close for a while: waiters that wait only here fail with PlaceClosedError."""
        for waiter in list(self.waiters):
            waiter.sent_away(self)

    def _make_room(self, ticket: Ticket) -> None:
        in_the_way = self._line.in_the_way_of(ticket, self.max_requests, self.max_bytes)
        if in_the_way is None:
            raise QueueFullError(f"the queue is full ({len(self)} requests wait)")
        for waiter in in_the_way:
            self._line.remove(waiter)
            waiter.displaced(self)
