"""A pool whose replicas somebody else runs: a list of addresses that never changes size."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256

from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.upstream.address import Address


class StaticDriver:
    """Puts the configured addresses into the pool; health probes decide which take traffic."""

    is_shared = True
    """All gateways with this configuration have them, and one pays."""

    def __init__(self, pool: Pool, addresses: Sequence[Address], concurrency: int) -> None:
        self._pool = pool
        self._addresses = tuple(addresses)
        self._concurrency = concurrency

    def want(self, replicas: int, *, may_shrink: bool = True) -> None:
        """Nothing to do: the size is not ours."""

    @property
    def billed(self) -> int:
        """All of them, ready or not."""
        return len(self._addresses)

    def take_over(self) -> int:
        """None: nothing here is started, so nothing is adopted."""
        return 0

    async def run(self) -> None:
        """Hold the endpoints in the pool until cancelled."""
        ids = []
        for address in self._addresses:
            # Derived from the address so that it is stable, hashed so that it does not tell it.
            id_ = f"{self._pool.model}-{sha256(address.url.encode()).hexdigest()[:8]}"
            self._pool.add(Endpoint(id_, address, self._concurrency))
            ids.append(id_)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for id_ in ids:
                self._pool.remove(id_)
