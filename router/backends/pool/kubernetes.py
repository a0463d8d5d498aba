"""A pool whose replicas Kubernetes runs: follows a Service's endpoints, sets a Deployment's size.

Only the leading gateway sets the size, and only when it was just told to. Scheduling, restarts and
rolling updates are Kubernetes' own. While the API server is away, the last endpoints stay.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential, wait_random

from router.backends.pool.endpoints import Pool
from router.backends.pool.kube_api import KubeApi, KubeError, Scale
from router.backends.pool.membership import Membership
from router.backends.pool.rivals import Rivals
from router.backends.pool.slices import Slice, SliceBook
from router.domain.clock import Clock
from router.upstream.client import UpstreamClient

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 5.0
"""How often the Deployment's size is read again: others may change it too."""
_FRESH_S = 10.0
"""A wish older than this is not acted on: another gateway may lead by now."""
_BRIEF_S = 1.0
"""A watch that ends sooner, and told nothing, counts as failed."""
_PAUSES = wait_exponential(multiplier=0.2, max=30.0) + wait_random(0.0, 0.5)
_MAX_RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class KubernetesSource:
    """Where the replicas are. Without a `deployment` somebody else sets the size."""

    service: str
    port: str
    deployment: str | None


@dataclass(frozen=True, slots=True)
class KubernetesParams:
    """What a reload may change while the pool stays. `zone` is the gateway's own, if known."""

    concurrency: int
    drain_s: float
    zone: str = ""


class KubernetesDriver:
    """Keeps a pool in line with what Kubernetes runs."""

    is_shared = True

    def __init__(
        self,
        pool: Pool,
        upstream: UpstreamClient,
        api: KubeApi,
        source: KubernetesSource,
        params: KubernetesParams,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._members = Membership(pool, upstream)
        self._api = api
        self._source = source
        self._params = params
        self._clock = clock
        self._book = SliceBook(pool.model, source.port)
        self._version: str | None = None
        self._scale: Scale | None = None
        self._taken_over = False
        self._rivals = Rivals()
        self._wanted = 0
        self._may_shrink = True
        self._wanted_at: float | None = None
        self._growing_since: float | None = None
        self._woken = asyncio.Event()

    def want(self, replicas: int, *, may_shrink: bool = True) -> None:
        """Set the size; to be repeated while it holds, and only by the leading gateway."""
        if (replicas, may_shrink) != (self._wanted, self._may_shrink):
            self._woken.set()
        self._wanted, self._may_shrink, self._wanted_at = replicas, may_shrink, self._clock()

    def reconfigure(self, params: KubernetesParams) -> None:
        """Take new settings. Whoever else set the size may be gone: it is ours again."""
        self._params = params
        self._rivals = Rivals()
        self._pool.is_sized_by_others = False
        for endpoint in self._pool.endpoints.values():
            endpoint.resize(params.concurrency)
        self._pool.prefer(self._book.near(params.zone) if params.zone else None)

    def take_over(self) -> int:
        """Replicas found when the Deployment was first seen. Before that, nothing is changed."""
        if self._scale is None or self._taken_over:
            return 0
        self._taken_over = True
        self._woken.set()
        return self._scale.wanted

    @property
    def billed(self) -> int:
        """All replicas for the gateway that leads, none for the others."""
        if not self._leads():
            return 0
        return self._scale.existing if self._scale is not None else len(self._pool.endpoints)

    async def run(self) -> None:
        """Work until cancelled. Replicas run on."""
        self._version = None  # what was followed before a restart is gone from the pool
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._persist(self._follow))
                if self._source.deployment is not None:
                    tasks.create_task(self._persist(partial(self._size, self._source.deployment)))
        finally:
            await self._members.close()
            await self._api.close()

    def _leads(self) -> bool:
        return self._wanted_at is not None and self._clock() - self._wanted_at <= _FRESH_S

    async def _persist(self, act: Callable[[], Awaitable[None]]) -> None:
        """Run a loop of the driver for ever: `act` is called again when it returns or fails.

        A watch of the API ends every few minutes, and the server may be away for hours; neither may
        end the pool. Pauses grow while `act` fails (KubeError), and begin anew once it has not.
        """
        while True:
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(KubeError), wait=_pause, before_sleep=self._report
            )
            await retrying(act)

    def _report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        _log.warning("model %s: Kubernetes: %s", self._pool.model, error)

    # -- endpoints -----------------------------------------------------------------------------

    async def _follow(self) -> None:
        """List once, then watch from where the last watch ended; list again if that is too old."""
        if self._version is None:
            slices, self._version = await self._api.list_slices(self._source.service)
            self._book.replace(slices)
            self._sync()
            return
        began, version = self._clock(), self._version
        try:
            await self._api.watch_slices(self._source.service, version, self._on_event)
        except KubeError as error:
            if error.status == 410:
                self._version = None
                return
            if self._version == version:
                raise
            # It had got somewhere: the next attempt need not wait.
            _log.warning("model %s: Kubernetes: the watch broke: %s", self._pool.model, error)
        if self._version == version and self._clock() - began < _BRIEF_S:
            raise KubeError(0, "the watch ended at once")

    def _on_event(self, kind: str, found: Slice) -> None:
        if kind != "BOOKMARK":
            self._book.apply(kind, found)
            self._sync()
        self._version = found["metadata"]["resourceVersion"]

    def _sync(self) -> None:
        params = self._params
        new = self._members.sync(self._book.targets(), params.concurrency, params.drain_s)
        self._pool.prefer(self._book.near(params.zone) if params.zone else None)
        for id_ in new:
            self._pool.mark_ready(id_, is_ready=True)  # Kubernetes has probed it; ours follow
            _log.info("model %s: replica %s is ready", self._pool.model, id_)
            if self._growing_since is not None:
                self._pool.startup.observe(self._clock() - self._growing_since)
                self._growing_since = None

    # -- size ------------------------------------------------------------------------------------

    async def _size(self, deployment: str) -> None:
        """Read the Deployment's size, and set it if it is ours to set."""
        self._scale = await self._api.scale(deployment)
        before, wanted = self._scale.wanted, self._wanted
        self._look_for_rivals(deployment, before)
        changes = wanted > before or (wanted < before and self._may_shrink)
        if changes and self._taken_over and self._leads() and not self._rivals.have_it:
            self._scale = await self._api.set_scale(deployment, wanted)
            self._rivals.wrote(wanted)
            _log.info("model %s: %s: %d -> %d", self._pool.model, deployment, before, wanted)
            if wanted > before:
                self._growing_since = self._clock()
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()

    def _look_for_rivals(self, deployment: str, found: int) -> None:
        if not self._leads():
            self._rivals.paused()
        elif self._rivals.saw(found, self._clock()):
            self._pool.is_sized_by_others = True
            _log.warning(
                "model %s: something else sets the replicas of %s time and again (now %d), such as"
                " an HPA or KEDA: the gateway stops doing so until its configuration changes;"
                " remove that, or set `size: external`",
                self._pool.model, deployment, found,
            )  # fmt: skip


def _pause(state: RetryCallState) -> float:
    """Growing pauses; longer where the API server asks for it."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.retry_after_s if isinstance(error, KubeError) else 0.0
    return max(_PAUSES(state), min(asked_s, _MAX_RETRY_AFTER_S))
