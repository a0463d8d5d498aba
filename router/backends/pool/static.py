"""A pool whose replicas somebody else runs: addresses, and names that stand for addresses.

Follows what the names stand for. Starts and stops nothing; it may tell a hook how many are wanted.
"""

import asyncio
from dataclasses import dataclass
from hashlib import sha256

from router.backends.pool.endpoints import Pool
from router.backends.pool.membership import Membership
from router.backends.pool.names import Names
from router.backends.pool.scale_hook import ScaleHook
from router.domain.clock import Clock
from router.upstream.address import Address
from router.upstream.client import UpstreamClient

_FRESH_S = 10.0
"""A wish older than this is not passed on: another gateway may lead by now."""
_RETRY_S = 2.0
"""A name that could not be looked up, or stands for nothing yet, is tried again sooner."""


@dataclass(frozen=True, slots=True)
class StaticParams:
    """`resolve_s` is the time between lookups of names."""

    concurrency: int
    resolve_s: float
    drain_s: float


class StaticDriver:
    """Puts the addresses into the pool; health probes decide which take traffic."""

    is_shared = True
    """All gateways with this configuration have them, and one pays."""

    def __init__(
        self,
        pool: Pool,
        upstream: UpstreamClient,
        names: Names,
        params: StaticParams,
        hook: ScaleHook | None,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._members = Membership(pool, upstream)
        self._names = names
        self.params = params
        self._hook = hook
        self._clock = clock
        self._wanted_at: float | None = None
        self._seen_first = False
        self._taken_over = False

    def want(self, replicas: int, *, may_shrink: bool = True) -> None:
        """Pass the wish on, where there is a hook; to be repeated, and only by who leads."""
        if self._hook is None or not self._taken_over:
            return
        self._wanted_at = self._clock()
        if may_shrink or replicas > self.billed:
            self._hook.want(replicas)

    @property
    def billed(self) -> int:
        """All of them, ready or not."""
        return len(self._names.known)

    def take_over(self) -> int:
        """Replicas found at first, where their number can be changed. Nothing is changed before."""
        if self._hook is None or self._taken_over or not self._seen_first:
            return 0
        self._taken_over = True
        return self.billed

    async def run(self) -> None:
        """Hold the endpoints in the pool until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                if self._hook is not None:
                    tasks.create_task(self._hook.run(self._leads))
                await asyncio.get_running_loop().create_future()
        finally:
            await self._members.close()

    def _leads(self) -> bool:
        return self._wanted_at is not None and self._clock() - self._wanted_at <= _FRESH_S

    async def _follow(self) -> None:
        self._sync()  # those without a name, before names are looked up
        while True:
            complete = await self._names.refresh()
            self._sync()
            self._seen_first = self._seen_first or complete
            resolve_s = self.params.resolve_s
            if complete and not (self._names.are_any and resolve_s):
                return
            settled = complete and self._names.known
            await asyncio.sleep(resolve_s if settled else min(_RETRY_S, resolve_s or _RETRY_S))

    def _sync(self) -> None:
        targets = {self._id(address): address for address in self._names.known}
        if self._members.sync(targets, self.params.concurrency, self.params.drain_s):
            # Newcomers need not wait for the next round of probes.
            self._pool.rotation.suspicion.set()

    def _id(self, address: Address) -> str:
        # Derived from the address so that it is stable, hashed so that it does not tell it.
        return f"{self._pool.model}-{sha256(address.url.encode()).hexdigest()[:8]}"
