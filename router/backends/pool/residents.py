"""Sees to it that shared replicas have the models in memory that they are to have.

Asks each replica what it has, then has it unload and load, one model at a time. Models whose
requests are still under way there are drained first. `policy.placement` says what is wanted.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from router.backends.pool.endpoint import Endpoint
from router.backends.pool.group import Group, MemberPool
from router.backends.pool.model_repository import ModelRepository, RepositoryError
from router.domain.clock import Clock
from router.policy.placement import Placement

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 10.0
"""What a replica has may change without us: it makes room by itself, or another gateway changes it.
"""
_RETRY_S = 10.0


@dataclass(frozen=True, slots=True)
class ResidencyParams:
    """`room_bytes` is what models may take of a replica; 0: whatever they need."""

    room_bytes: int
    drain_s: float


class Residents:
    """The models that one group's replicas have in memory."""

    def __init__(
        self, group: Group, repository: ModelRepository, params: ResidencyParams, clock: Clock
    ) -> None:
        self.params = params
        self.may_load = self.may_unload = True
        self._group = group
        self._repository = repository
        self._clock = clock
        self._known: dict[str, frozenset[str]] = {}
        self._placement = Placement()
        self._retry_at: dict[tuple[str, str], float] = {}
        self._changed = asyncio.Event()
        group.on_change = self._changed.set

    @property
    def known(self) -> Mapping[str, frozenset[str]]:
        """What each replica is known to have, by the models' names there."""
        return self._known

    def plan(self, now: float, *, may_load: bool, may_unload: bool) -> None:
        """Decide anew who is to be where, if that could make a difference.

        Others may be who loads and unloads: then it is only followed.
        """
        self.may_load, self.may_unload = may_load, may_unload
        hosts = self._group.hosts.rotation.members()
        tenants = self._group.tenants()
        loaded = {host.id: self._known.get(host.id, frozenset()) for host in hosts}
        if not self._placement.is_due(tenants, loaded, now):
            return
        if self._placement.decide(tenants, loaded, self.params.room_bytes, now):
            self._changed.set()

    async def run(self) -> None:
        """Work until cancelled."""
        tending: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                self._forget_gone()
                for host in self._group.hosts.rotation.members():
                    if host.id not in tending:
                        task = asyncio.create_task(self._tend(host), name=f"models of {host.id}")
                        tending[host.id] = task
                await self._pause(tending)
                for id_ in [id_ for id_, task in tending.items() if task.done()]:
                    tending.pop(id_).result()
        finally:
            for task in tending.values():
                task.cancel()
            await asyncio.gather(*tending.values(), return_exceptions=True)

    async def _pause(self, tending: Mapping[str, asyncio.Task[None]]) -> None:
        """Until something has changed, or is to be looked at again; those at work end first."""
        waiting = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait([waiting], timeout=_LOOK_EVERY_S)
        finally:
            waiting.cancel()

    def _forget_gone(self) -> None:
        hosts = {host.id for host in self._group.hosts.endpoints.values() if host.is_ready}
        self._known = {id_: names for id_, names in self._known.items() if id_ in hosts}
        self._retry_at = {key: at for key, at in self._retry_at.items() if key[0] in hosts}

    # -- one replica -----------------------------------------------------------------------------

    async def _tend(self, host: Endpoint) -> None:
        """Bring a replica in line with what is wished, until that stays the same."""
        while True:
            wish = self._placement.wishes.get(host.id)
            await self._bring(host, wish)
            if self._placement.wishes.get(host.id) == wish:
                return

    async def _bring(self, host: Endpoint, wish: tuple[str, ...] | None) -> None:
        ours = self._group.tenants().keys()
        try:
            found = await self._repository.loaded(host.address)
        except RepositoryError as error:
            _log.warning("replica %s does not tell its models: %s", host.id, error)
            return
        # One without a repository serves what it serves, and all of ours as far as we know.
        self._show(host, ours if found is None else found & ours)
        if found is None or wish is None:
            return
        for name in sorted(found & ours - frozenset(wish)):
            if self.may_unload and self._placement.wishes.get(host.id) == wish:
                await self._unload(host, name)
        for name in wish:
            if self.may_load and self._placement.wishes.get(host.id) == wish:
                await self._load(host, name)

    def _show(self, host: Endpoint, names: Collection[str]) -> None:
        """Give the models places there that have none, and take those of the others."""
        if not host.is_ready:
            return
        self._known[host.id] = frozenset(names)
        for member in self._group.members.values():
            if member.served_as not in names:
                if host.id in member.endpoints:
                    member.remove(host.id)
            elif host.id not in member.endpoints:
                member.settle(host)

    async def _load(self, host: Endpoint, name: str) -> None:
        member = self._group.member(name)
        key, now = (host.id, name), self._clock()
        is_there = name in self._known.get(host.id, ())
        if member is None or is_there or now < self._retry_at.get(key, 0.0):
            return
        try:
            await self._repository.load(host.address, name)
        except RepositoryError as error:
            self._retry_at[key] = self._clock() + _RETRY_S
            member.missing = "no replica can load the model"
            _log.warning("model %s: replica %s: %s", member.model, host.id, error)
            return
        member.startup.observe(self._clock() - now)
        member.missing = ""
        self._show(host, self._known.get(host.id, frozenset()) | {name})
        _log.info("model %s: loaded by replica %s", member.model, host.id)

    async def _unload(self, host: Endpoint, name: str) -> None:
        member = self._group.member(name)
        if member is not None and host.id in member.endpoints:
            await self._drained(member, host.id)
            member.remove(host.id)
        self._known[host.id] = self._known.get(host.id, frozenset()) - {name}
        try:
            await self._repository.unload(host.address, name)
        except RepositoryError as error:
            _log.warning("model %s: replica %s: %s", name, host.id, error)
            return
        _log.info("model %s: unloaded by replica %s", name, host.id)

    async def _drained(self, member: MemberPool, id_: str) -> None:
        try:
            async with asyncio.timeout(self.params.drain_s):
                await member.drain(id_).wait()
        except TimeoutError:
            _log.warning("model %s: unloaded with requests in flight", member.model)
