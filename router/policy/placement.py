"""Which models of a group are kept in the memory of which of its replicas.

Bin packing with affinity: models that requests wait for come first, then those with the most work
for their memory, and each goes where it is already, else to where the least work is. What then is
left of the memory takes further copies, so that a request finds a free slot on any replica, and at
last whatever is still loaded: a model goes only when another one needs its room. Pure.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import ceil
from typing import NamedTuple

_STAYS = 2.0
"""Another model must have so many times its work for its memory before a loaded one makes room."""
_SHARE = 0.7
"""Of a replica's work that copies of one model are meant to do: more than that, and one more is
wanted."""


_HALF_LIFE_S = 300.0
"""A model's work of so long ago counts half when it is decided who stays in memory."""
_NEGLIGIBLE = 1e-9
PLAN_EVERY_S = 15.0
"""Who is loaded where is decided anew so often, though nothing asks for it."""


class Tenant(NamedTuple):
    """What a model of the group needs: memory in bytes, and how many replicas its work fills.

    A model without work is loaded nowhere, but stays where it is. `is_awaited` says that requests
    wait for it which nobody else can serve.
    """

    memory_bytes: int
    load: float
    is_awaited: bool = False

    @property
    def has_work(self) -> bool:
        """Whether some replica should have it."""
        return self.is_awaited or self.load > 0


def place(
    tenants: Mapping[str, Tenant], loaded: Mapping[str, Iterable[str]], room_bytes: int
) -> dict[str, tuple[str, ...]]:
    """The models that each replica should have, the most important first.

    `loaded` says which each replica has now, `room_bytes` what models may take of one; 0: whatever
    they need.
    """
    replicas = {id_: _Replica(frozenset(names), room_bytes) for id_, names in loaded.items()}
    homes = frozenset().union(*(replica.before for replica in replicas.values()))
    working = sorted(
        (name for name, tenant in tenants.items() if tenant.has_work),
        key=lambda name: (
            not tenants[name].is_awaited,
            -_density(tenants[name], is_loaded=name in homes),
            name,
        ),
    )
    for name in working:
        _settle(name, tenants[name], list(replicas.values()))
    for replica in replicas.values():
        rest = [*working, *sorted(replica.before & tenants.keys())]
        replica.fill(rest, tenants)
    return {id_: tuple(replica.models) for id_, replica in replicas.items()}


def warmed(before: float, load: float, dt: float) -> float:
    """A model's work of late, in replicas, after `dt` seconds with that load."""
    heat = max(load, before * 0.5 ** (dt / _HALF_LIFE_S))
    return heat if heat > _NEGLIGIBLE else 0.0


class Placement:
    """What was decided last, and when to decide anew. A state machine over plain numbers."""

    def __init__(self) -> None:
        self.wishes: dict[str, tuple[str, ...]] = {}
        self._again_at = 0.0

    def is_due(self, tenants: Mapping[str, Tenant], replicas: Collection[str], now: float) -> bool:
        """Whether another decision could make a difference: for who came, or after a while."""
        if now >= self._again_at or self.wishes.keys() != set(replicas):
            return True
        housed = frozenset().union(*self.wishes.values())
        return any(one.has_work and name not in housed for name, one in tenants.items())

    def decide(
        self,
        tenants: Mapping[str, Tenant],
        loaded: Mapping[str, Iterable[str]],
        room_bytes: int,
        now: float,
    ) -> bool:
        """Decide anew, as `place`; returns whether anything is to change."""
        before, self.wishes = self.wishes, place(tenants, loaded, room_bytes)
        self._again_at = now + PLAN_EVERY_S
        return self.wishes != before


def _density(tenant: Tenant, *, is_loaded: bool) -> float:
    density = tenant.load / max(tenant.memory_bytes, 1)
    return density * _STAYS if is_loaded else density


def _settle(name: str, tenant: Tenant, replicas: Sequence["_Replica"]) -> None:
    """Find a model as many homes as its work needs, and at least one if there is room at all."""
    wanted = max(ceil(tenant.load / _SHARE), 1)
    fitting = [replica for replica in replicas if replica.fits(tenant)]
    fitting.sort(key=lambda replica: (name not in replica.before, replica.load))
    homes = fitting[:wanted]
    for replica in homes:
        replica.take(name, tenant, tenant.load / len(homes))


class _Replica:
    """What a replica is to have, as far as that is decided."""

    def __init__(self, before: frozenset[str], room_bytes: int) -> None:
        self.before = before
        self.models: dict[str, None] = {}
        self.load = 0.0
        self._room_bytes = room_bytes
        self._taken_bytes = 0

    def fits(self, tenant: Tenant) -> bool:
        """Whether there is room for one more such model."""
        return not self._room_bytes or self._taken_bytes + tenant.memory_bytes <= self._room_bytes

    def take(self, name: str, tenant: Tenant, load: float) -> None:
        self.models[name] = None
        self.load += load
        self._taken_bytes += tenant.memory_bytes

    def fill(self, names: Iterable[str], tenants: Mapping[str, Tenant]) -> None:
        """Take as many of these as still fit, in this order."""
        for name in names:
            if name not in self.models and self.fits(tenants[name]):
                self.take(name, tenants[name], 0.0)
