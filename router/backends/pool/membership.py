"""Keeps a pool's endpoints in line with a set of addresses that somebody else decides.

Newcomers are added, and who has left is drained first. Says nothing about anybody's health.
"""

import asyncio
import logging
from collections.abc import Mapping

from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.domain.events import EventKind, told
from router.upstream.address import Address
from router.upstream.client import UpstreamClient

_log = logging.getLogger(__name__)


class Membership:
    """The endpoints of one pool, all of them from one source."""

    def __init__(self, pool: Pool, upstream: UpstreamClient) -> None:
        self._pool = pool
        self._upstream = upstream
        self._leaving: dict[str, asyncio.Task[None]] = {}

    def sync(self, targets: Mapping[str, Address], capacity: int, drain_s: float) -> list[str]:
        """Have exactly these endpoints, by id; returns the ids of those that are new."""
        for id_ in self._pool.endpoints.keys() - targets.keys() - self._leaving.keys():
            leave = self._leave(id_, drain_s)
            self._leaving[id_] = asyncio.create_task(leave, name=f"drain {id_}")
        return [id_ for id_, address in targets.items() if self._enter(id_, address, capacity)]

    async def close(self) -> None:
        """Have none any more, at once."""
        leaving = list(self._leaving.values())
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        self._leaving.clear()
        for id_ in list(self._pool.endpoints):
            self._pool.remove(id_)

    def _enter(self, id_: str, address: Address, capacity: int) -> bool:
        leaving = self._leaving.pop(id_, None)
        if leaving is not None:
            leaving.cancel()
        known = self._pool.endpoints.get(id_)
        if known is not None and known.address == address:
            if leaving is not None:
                self._pool.stay(id_)
            return False
        self._pool.add(Endpoint(id_, address, capacity))
        return True

    async def _leave(self, id_: str, drain_s: float) -> None:
        """Let what is in flight there end, then forget it."""
        endpoint = self._pool.endpoints[id_]
        try:
            async with asyncio.timeout(drain_s):
                await self._pool.drain(id_).wait()
        except TimeoutError:
            _log.warning("replica %s is gone with requests in flight", id_)
        self._pool.remove(id_)
        self._upstream.abort(endpoint.address)
        self._leaving.pop(id_, None)
        facts = told(EventKind.REPLICA, self._pool.model, endpoint=id_)
        _log.info("model %s: replica %s has left", self._pool.model, id_, extra=facts)
