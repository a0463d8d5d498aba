"""Replicas that several models share: each model's places there, and whose turn a free slot is.

Every model has a pool of its own, with its queue, estimates and circuits. Its endpoints are its
places on the replicas that have it loaded, and those share the replicas' slots. The replicas as
such are the endpoints of one more pool, `hosts`, which driver and prober keep. Who is to be loaded
where is `policy.placement`'s business; `residents` sees to it.
"""

from collections.abc import Callable, Collection
from random import Random

from router.admission.slots import Waiter
from router.backends.pool.caller import PoolCaller
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool, PoolParams
from router.domain.clock import Clock
from router.domain.decision import Verdict
from router.domain.request import InferenceRequest
from router.policy.demand import USUAL_PAYLOAD_BYTES
from router.policy.placement import Tenant, warmed
from router.policy.turns import Turns


class Place(Endpoint):
    """One model's place on a replica that has it loaded, whose slots it shares."""

    __slots__ = ("host",)

    def __init__(self, host: Endpoint, most: int) -> None:
        super().__init__(host.id, host.address, capacity_of(host, most), is_local=host.is_local)
        self.host = host

    @property
    def load(self) -> float:
        """As full as the replica is, or the model's own part of it."""
        return max(self.in_flight / self.slots, self.host.load)

    @property
    def replica_capacity(self) -> int:
        """What the replica works on at once, for all models."""
        return self.host.capacity

    @property
    def free(self) -> int:
        """Slots that the model may have and the replica has."""
        return min(max(0, self.slots - self.in_flight), self.host.free)

    @property
    def is_member(self) -> bool:
        """Good in the eyes of its probes, and staying, as the replica is."""
        return super().is_member and self.host.is_member

    def occupy(self) -> None:
        """A request of ours begins there."""
        super().occupy()
        self.host.occupy()

    def vacate(self) -> None:
        """A request of ours has ended there."""
        super().vacate()
        self.host.vacate()


def capacity_of(host: Endpoint, most: int) -> int:
    """Requests of a model that a replica works on at once; `most` 0: as many as of all."""
    return min(most, host.capacity) if most else host.capacity


class HostPool(Pool):
    """The replicas as such. What happens to them happens to every model's places there."""

    group: "Group"

    def judge(self, now: float) -> int:
        """Compare each model's places with each other."""
        members = self.group.members.values()
        return sum(member.judge(now) for member in members if member.endpoints)

    def pump(self, now: float) -> None:
        """Slots may have come free for any model."""
        self.group.pump(now)


class MemberPool(Pool):
    """One model's places on shared replicas, and its requests that wait for them.

    `served_as` is its name there, `memory_bytes` what it takes of one; one works on `most` of its
    requests at once. `heat` is its work of late, in replicas.
    """

    def __init__(
        self,
        model: str,
        params: PoolParams,
        caller: PoolCaller,
        clock: Clock,
        rng: Random,
        group: "Group",
    ) -> None:
        super().__init__(model, params, caller, clock, rng, group.hosts.changed)
        self.served_as = model
        self.memory_bytes = 0
        self.most = 0
        self.heat = 0.0
        self._group = group
        # Who is slow or fails somewhere is looked at by the prober of the replicas.
        self.rotation.suspicion = group.hosts.rotation.suspicion

    def share(self, served_as: str, memory_bytes: int, most: int) -> None:
        """Set the model's name, memory and most requests on a replica, from now on."""
        self.served_as, self.memory_bytes, self.most = served_as, memory_bytes, most
        for place in self.endpoints.values():
            host = self._group.hosts.endpoints.get(place.id)
            if host is not None:
                place.resize(capacity_of(host, most))
        self.rotation.changed()

    @property
    def is_awaited(self) -> bool:
        """Whether requests wait for it to be loaded."""
        return bool(self.queue.waiters) and not self.endpoints

    def settle(self, host: Endpoint) -> None:
        """Add a place on a replica that has loaded the model, and let it take requests."""
        self.add(Place(host, self.most))
        self.mark_ready(host.id, is_ready=True)

    def worked(self, load: float, dt: float) -> None:
        """Its work in the last `dt` seconds, in replicas."""
        self.heat = warmed(self.heat, load, dt)

    def join(self, waiter: Waiter, request: InferenceRequest) -> None:
        """Let a request wait for a slot. Raises QueueFullError."""
        super().join(waiter, request)
        self._group.turns.join(self.model)

    def pump(self, now: float) -> None:
        """Hand out slots that came free, to the model whose turn it is."""
        self._group.pump(now)

    def release(
        self, endpoint: Endpoint, verdict: Verdict, since: float, now: float, tenant: str = ""
    ) -> float:
        """An attempt has ended; the slot may be another model's now."""
        used_s = super().release(endpoint, verdict, since, now, tenant)
        if self._group.turns.waiting:
            self._group.pump(now)
        return used_s

    def _ready_in_s(self, now: float) -> float:
        hosts = self._group.hosts
        return super()._ready_in_s(now) + (0.0 if hosts.ready else hosts._ready_in_s(now))  # noqa: SLF001  its own class


class Group:
    """The models of one shared pool. `on_change` is told when replicas come, go or change."""

    def __init__(self, hosts: HostPool) -> None:
        self.hosts = hosts
        self.members: dict[str, MemberPool] = {}
        self.turns = Turns()
        self.on_change: Callable[[], None] = lambda: None
        hosts.group = self
        hosts.rotation.on_change = self._follow

    def retain(self, names: Collection[str]) -> None:
        """Forget models that share the replicas no more; what they have in flight ends there."""
        for name in self.members.keys() - names:
            del self.members[name]

    def tenants(self) -> dict[str, Tenant]:
        """What each model needs, by its name in the replicas."""
        return {
            member.served_as: Tenant(member.memory_bytes, member.heat, is_awaited=member.is_awaited)
            for member in self.members.values()
        }

    def member(self, served_as: str) -> MemberPool | None:
        """The model of that name in the replicas, if it is one of ours."""
        members = self.members.values()
        return next((member for member in members if member.served_as == served_as), None)

    def pump(self, now: float) -> None:
        """Hand free slots to waiting requests; models take turns by the work that they get."""
        members = self.members

        def waits(name: str) -> bool:
            return name in members and bool(members[name].queue.waiters)

        def serve(name: str) -> float | None:
            member = members[name]
            if not member.hand_over_one(now):
                return None
            return member.service_times.estimate(USUAL_PAYLOAD_BYTES).mean_s

        self.turns.hand_out(waits, serve)

    def _follow(self) -> None:
        """Replicas have changed: no model has a place on one that is not there, or not well."""
        endpoints = self.hosts.endpoints
        for member in self.members.values():
            for place in list(member.endpoints.values()):
                host = endpoints.get(place.id)
                if host is None or not host.is_ready:
                    member.remove(place.id)
            member.rotation.changed()
        self.on_change()
