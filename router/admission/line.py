"""Who waits, who is next, and who has to go when the line is full. Pure; holds no slots.

Higher classes go first, but a class that was passed over often enough has its turn. Within a class
tenants take turns by weight (start-time fair queueing, Goyal 1996), within a tenant the first come
is the first served. A full line is shared: who comes may displace somebody of a lower class, or of
a tenant that has more than its share of it.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from heapq import heappop, heappush
from typing import Generic, NamedTuple, TypeVar

from router.domain.request import InferenceRequest, Priority

W = TypeVar("W", bound=Hashable)

_PATIENCE = 8
"""Turns of higher classes that a waiting class lets pass before it takes one."""


class Ticket(NamedTuple):
    """What decides a waiter's place. A tenant of weight 2 gets two turns for one of weight 1."""

    payload_bytes: int
    priority: Priority = Priority.NORMAL
    tenant: str = ""
    weight: float = 1.0


def ticket_of(request: InferenceRequest) -> Ticket:
    """The place of a request."""
    priority = Priority.NORMAL if request.priority is None else request.priority
    return Ticket(request.waiting_bytes, priority, request.tenant or "", request.weight)


class Line(Generic[W]):
    """Waiters, each once."""

    def __init__(self) -> None:
        self.tickets: dict[W, Ticket] = {}
        self.size_bytes = 0
        self._classes: dict[Priority, _FairClass[W]] = {one: _FairClass() for one in Priority}
        self._passed_over = dict.fromkeys(Priority, 0)

    def __len__(self) -> int:
        return len(self.tickets)

    def add(self, waiter: W, ticket: Ticket) -> None:
        """A waiter comes."""
        self.tickets[waiter] = ticket
        self.size_bytes += ticket.payload_bytes
        self._classes[ticket.priority].add(waiter, ticket)

    def remove(self, waiter: W) -> bool:
        """A waiter goes; False if it was not here any more."""
        ticket = self.tickets.pop(waiter, None)
        if ticket is None:
            return False
        self.size_bytes -= ticket.payload_bytes
        self._classes[ticket.priority].remove(waiter, ticket)
        return True

    def next(self) -> W | None:
        """Take the waiter whose turn it is out of the line; None if nobody waits."""
        waiting = [priority for priority in Priority if len(self._classes[priority])]
        if not waiting:
            return None
        overdue = [priority for priority in waiting if self._passed_over[priority] >= _PATIENCE]
        chosen = (overdue or waiting)[0]
        for priority in Priority:
            passed_over = priority in waiting and priority > chosen
            self._passed_over[priority] = self._passed_over[priority] + 1 if passed_over else 0
        waiter = self._classes[chosen].next()
        self.remove(waiter)
        return waiter

    def ahead_of(self, ticket: Ticket) -> tuple[int, int]:
        """How many are in the classes that go before or with such a waiter, and their bytes."""
        classes = [self._classes[one] for one in Priority if one <= ticket.priority]
        return sum(len(one) for one in classes), sum(one.size_bytes for one in classes)

    def in_the_way_of(self, ticket: Ticket, most: int, most_bytes: int) -> list[W] | None:
        """The waiters that have to go for `ticket` to fit in; None if it may not have their places.

        The lowest class goes first, in it the tenant that has most for its weight, and of it who
        came last.
        """
        missing = len(self) + 1 - most
        missing_bytes = self.size_bytes + ticket.payload_bytes - most_bytes
        found: list[W] = []
        if missing <= 0 and missing_bytes <= 0:
            return found
        if most == 0 or ticket.payload_bytes > most_bytes:
            return None
        for priority in reversed(Priority):
            if priority < ticket.priority:
                break
            own = ticket if priority == ticket.priority else None
            for waiter in self._classes[priority].least_entitled(own):
                found.append(waiter)
                missing -= 1
                missing_bytes -= self.tickets[waiter].payload_bytes
                if missing <= 0 and missing_bytes <= 0:
                    return found
        return None


class _Tenant(Generic[W]):
    """One tenant's waiters of a class, in the order of their coming. `turn` is a virtual time."""

    __slots__ = ("is_listed", "turn", "waiters", "weight")

    def __init__(self, turn: float) -> None:
        self.waiters: OrderedDict[W, None] = OrderedDict()
        self.turn = turn
        self.weight = 1.0
        self.is_listed = False


class _FairClass(Generic[W]):
    """The waiters of one class."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._count = 0
        self._turn = 0.0
        self._coming = 0
        self._tenants: dict[str, _Tenant[W]] = {}
        self._turns: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        return self._count

    def add(self, waiter: W, ticket: Ticket) -> None:
        tenant = self._tenants.get(ticket.tenant)
        if tenant is None:
            tenant = self._tenants[ticket.tenant] = _Tenant(self._turn)
        tenant.weight = ticket.weight
        tenant.waiters[waiter] = None
        self._list(ticket.tenant, tenant)
        self._count += 1
        self.size_bytes += ticket.payload_bytes

    def remove(self, waiter: W, ticket: Ticket) -> None:
        tenant = self._tenants[ticket.tenant]
        del tenant.waiters[waiter]
        self._count -= 1
        self.size_bytes -= ticket.payload_bytes
        if not self._count:
            # Nobody is owed anything: what was, would only grow.
            self._turn = 0.0
            self._tenants.clear()
            self._turns.clear()

    def next(self) -> W:
        """The waiter whose turn it is; the caller removes it."""
        while True:
            turn, _, name = heappop(self._turns)
            tenant = self._tenants[name]
            tenant.is_listed = False
            self._turn = max(self._turn, turn)
            if not tenant.waiters:  # its last turn is over
                del self._tenants[name]
                continue
            tenant.turn = max(tenant.turn, self._turn) + 1.0 / tenant.weight
            self._list(name, tenant)
            return next(iter(tenant.waiters))

    def least_entitled(self, own: Ticket | None) -> Iterator[W]:
        """Waiters in the order in which they have to go.

        With `own`, the ticket of one that is to come to this class: only of tenants that have more
        for their weight than its own tenant would have then.
        """
        counts = {name: len(tenant.waiters) for name, tenant in self._tenants.items()}
        share = 0.0
        if own is not None:
            share = (counts.pop(own.tenant, 0) + 1) / own.weight
        latest = {name: reversed(self._tenants[name].waiters) for name in counts}
        while counts:
            name = max(counts, key=lambda one: counts[one] / self._tenants[one].weight)
            if counts[name] / self._tenants[name].weight <= share:
                return
            yield next(latest[name])
            counts[name] -= 1

    def _list(self, name: str, tenant: _Tenant[W]) -> None:
        if not tenant.is_listed:
            tenant.is_listed = True
            self._coming += 1
            heappush(self._turns, (max(tenant.turn, self._turn), self._coming, name))
