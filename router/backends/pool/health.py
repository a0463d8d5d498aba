"""Active health: asks every endpoint of a pool whether it is ready, and compares how fast they are.

Where clients ask for versions of the model, it also asks who has which. Marks endpoints ready or
not; never starts, stops or removes one.
"""

import asyncio
import logging
from dataclasses import dataclass

from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.pool.versions import versions_of
from router.domain.clock import Clock
from router.domain.errors import AttemptError
from router.domain.events import EventKind, told
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient

_log = logging.getLogger(__name__)

_VERSIONS_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class ProbeParams:
    """How replicas are asked, and how many answers in a row change the verdict.

    `metadata_path` is where a replica names the versions of its model.
    """

    path: str
    interval_s: float
    timeout_s: float
    unhealthy_after: int
    healthy_after: int
    metadata_path: str


async def is_ready(upstream: UpstreamClient, address: Address, params: ProbeParams) -> bool:
    """Whether the endpoint answers 200 in time."""
    call = Call(method="GET", target=params.path, headers=(), is_idempotent=True)
    try:
        response = await upstream.send(address, call, timeout_s=params.timeout_s)
    except AttemptError:
        return False
    await response.aclose()
    return response.status == 200


class HealthProber:
    """Probes all endpoints of one pool at the same time: each interval, and when one is suspect."""

    def __init__(
        self, pool: Pool, upstream: UpstreamClient, params: ProbeParams, clock: Clock
    ) -> None:
        self._pool = pool
        self._upstream = upstream
        self.params = params
        self._clock = clock
        self._streaks: dict[str, int] = {}
        self._versions_due_at = 0.0

    async def run(self) -> None:
        """Probe until cancelled, as long as there is anybody to probe."""
        while True:
            await self._pool.populated.wait()
            await self.probe_all()
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self.params.interval_s):
                await self._pool.rotation.suspicion.wait()
        except TimeoutError:
            pass
        self._pool.rotation.suspicion.clear()

    async def probe_all(self) -> None:
        """One round; also lets waiting requests have slots whose endpoint has recovered."""
        endpoints = list(self._pool.endpoints.values())
        verdicts = await asyncio.gather(
            *(is_ready(self._upstream, endpoint.address, self.params) for endpoint in endpoints)
        )
        for endpoint, verdict in zip(endpoints, verdicts, strict=True):
            self._judge(endpoint, verdict)
        self._streaks = {id_: n for id_, n in self._streaks.items() if id_ in self._pool.endpoints}
        now = self._clock()
        if self._pool.rotation.versions_matter and now >= self._versions_due_at:
            await self._ask_versions()
            self._versions_due_at = now + _VERSIONS_EVERY_S
        self._pool.judge(now)
        self._pool.pump(now)

    async def _ask_versions(self) -> None:
        path = self.params.metadata_path
        asked = [endpoint for endpoint in self._pool.endpoints.values() if endpoint.is_ready]
        answers = await asyncio.gather(
            *(
                versions_of(self._upstream, endpoint.address, path, self.params.timeout_s)
                for endpoint in asked
            )
        )
        for endpoint, versions in zip(asked, answers, strict=True):
            # One that is too busy to answer now has not lost what it had.
            endpoint.versions = versions or endpoint.versions

    def _judge(self, endpoint: Endpoint, verdict: bool) -> None:
        if verdict == endpoint.is_ready:
            self._streaks[endpoint.id] = 0
            return
        streak = self._streaks[endpoint.id] = self._streaks.get(endpoint.id, 0) + 1
        if streak < self._streak_needed(endpoint, verdict):
            return
        self._streaks[endpoint.id] = 0
        _log.info(
            "endpoint %s is %s", endpoint.id, "ready" if verdict else "not ready",
            extra=told(
                EventKind.REPLICA, self._pool.model, endpoint=endpoint.id, is_ready=verdict,
                probes=streak,
            ),
        )  # fmt: skip
        self._pool.mark_ready(endpoint.id, is_ready=verdict)
        self._versions_due_at = 0.0  # it may have come back as another one
        if not verdict:
            # Attempts that hang there fail now and go elsewhere.
            self._upstream.abort(endpoint.address)

    def _streak_needed(self, endpoint: Endpoint, verdict: bool) -> int:
        if verdict:
            return self.params.healthy_after
        # Its attempts fail as well: one bad answer confirms it.
        return self.params.unhealthy_after if endpoint.circuit.is_closed else 1
