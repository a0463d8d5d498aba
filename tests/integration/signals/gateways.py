"""Gateways reduced to their shared state, and a bounded way to wait for what they see."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from router.signals.memory import SignalBook
from router.signals.records import Publication
from router.signals.redis import SharedState, SharedStateConfig
from router.signals.snapshot import SharedEndpoint

NAMESPACE = "test"


class Gateway:
    """One gateway's shared state with a book of its own; `run` works until the block ends."""

    def __init__(
        self, url: str, gateway_id: str, staleness_s: float, operation_timeout_s: float
    ) -> None:
        self.id = gateway_id
        self.book = SignalBook()
        self.endpoints: dict[str, list[SharedEndpoint]] = {}
        self.in_flight: dict[str, int] = {}
        self.staleness_s = staleness_s
        self._told = Publication({}, {}, {})
        config = SharedStateConfig(
            redis_url=url,
            namespace=NAMESPACE,
            gateway_id=gateway_id,
            flush_interval_s=0.02,
            operation_timeout_s=operation_timeout_s,
            staleness_s=staleness_s,
        )
        self.state = SharedState(config, self.publication, time.monotonic, asyncio.sleep)

    def publication(self) -> Publication:
        """All of it every time, and what was there the last time and is gone."""
        self._told = Publication(
            dict.fromkeys(self._told.totals) | self.book.totals(),
            dict.fromkeys(self._told.endpoints) | self.endpoints,
            dict.fromkeys(self._told.in_flight) | self.in_flight,
        )
        return self._told

    @property
    def leads(self) -> bool:
        return self.state.snapshot.is_leader

    @property
    def peers(self) -> set[str]:
        return set(self.state.snapshot.peers)

    @property
    def is_stale(self) -> bool:
        return self.state.snapshot.stale(time.monotonic(), self.staleness_s)


@asynccontextmanager
async def running(
    url: str, gateway_id: str, staleness_s: float = 30.0, operation_timeout_s: float = 5.0
) -> AsyncIterator[Gateway]:
    """A gateway whose shared state runs, and is stopped in good order. The run must not end early.

    The defaults are longer than any test, so that nothing happens by expiry or a slow answer.
    """
    gateway = Gateway(url, gateway_id, staleness_s, operation_timeout_s)
    task = asyncio.create_task(gateway.state.run())
    try:
        yield gateway
        assert not task.done(), "the shared state stopped by itself"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> float:
    """Return how many seconds it took until `condition` held; fail after `within_s`."""
    started_at = time.monotonic()
    while not condition():
        assert time.monotonic() - started_at < within_s, "the condition did not come true in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - started_at
