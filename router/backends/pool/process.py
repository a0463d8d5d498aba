"""A pool of worker processes on this machine: started, watched, restarted, drained, stopped."""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential_jitter

from router.backends.child_process import end, free_port, kill, open_log, spawn
from router.backends.pool.endpoints import Endpoint, Pool
from router.backends.pool.health import ProbeParams, is_ready
from router.domain.clock import Clock
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient

_log = logging.getLogger(__name__)

_PROBE_EVERY_S = 0.05
_HUNG_AFTER_S = 10.0
"""A replica that has not been ready for so long is killed and replaced."""


class ReplicaFailedError(Exception):
    """A replica exited, or did not become ready in time."""


@dataclass(frozen=True, slots=True)
class ReplicaParams:
    """How one replica is run. `command` has the placeholders {port} and {model}."""

    command: Sequence[str]
    env: Mapping[str, str]
    concurrency: int
    start_timeout_s: float
    drain_s: float
    log: Path | None


@dataclass(slots=True, eq=False)
class _Replica:
    """One place of the pool; a crashed process is replaced in the same place."""

    number: int
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    process: asyncio.subprocess.Process | None = None
    endpoint: Endpoint | None = None
    starts: int = 0


class ProcessDriver:
    """Runs as many worker processes as are wanted."""

    def __init__(
        self,
        pool: Pool,
        upstream: UpstreamClient,
        params: ReplicaParams,
        probe: ProbeParams,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._upstream = upstream
        self._params = params
        self._probe = probe
        self._clock = clock
        self._wanted = 0
        self._changed = asyncio.Event()
        self._numbers = count(1)
        self._replicas: dict[_Replica, asyncio.Task[None]] = {}

    def want(self, replicas: int) -> None:
        """Set the size; replicas start and drain in the background."""
        if replicas != self._wanted:
            self._wanted = replicas
            self._changed.set()

    @property
    def billed(self) -> int:
        """Replicas from their start until their process has ended."""
        return len(self._replicas)

    async def run(self) -> None:
        """Work until cancelled, then stop every process."""
        try:
            while True:
                self._reconcile()
                await self._changed.wait()
                self._changed.clear()
        finally:
            await self._stop_all()

    def _reconcile(self) -> None:
        staying = [replica for replica in self._replicas if not replica.stop.is_set()]
        for _ in range(self._wanted - len(staying)):
            replica = _Replica(next(self._numbers))
            task = asyncio.create_task(self._supervise(replica), name=f"replica {replica.number}")
            self._replicas[replica] = task
            task.add_done_callback(partial(self._ended, replica))
        # The youngest goes first: its start-up is the least paid back.
        for replica in staying[self._wanted :]:
            replica.stop.set()

    def _ended(self, replica: _Replica, task: asyncio.Task[None]) -> None:
        self._replicas.pop(replica, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("model %s: a replica's supervisor failed: %r", self._pool.model, error)
        self._changed.set()

    async def _stop_all(self) -> None:
        for replica in self._replicas:
            replica.stop.set()
        if self._replicas:
            await asyncio.wait(self._replicas.values(), timeout=self._params.drain_s + 5.0)
        for task in list(self._replicas.values()):
            task.cancel()
        await asyncio.gather(*list(self._replicas.values()), return_exceptions=True)

    # -- one replica ---------------------------------------------------------------------------

    async def _supervise(self, replica: _Replica) -> None:
        """Keep one process running until it is told to stop."""
        try:
            while not replica.stop.is_set():
                if await self._start(replica):
                    await self._watch(replica)
                await self._end(replica)
        finally:
            kill(replica.process)

    async def _start(self, replica: _Replica) -> bool:
        """Start until ready, with growing pauses; False if told to stop meanwhile."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((ReplicaFailedError, OSError)),
            wait=wait_exponential_jitter(initial=0.2, max=30.0),
            stop=lambda _state: replica.stop.is_set(),
            sleep=lambda seconds: _wait(replica.stop, seconds),
            before_sleep=self._report_failure,
            retry_error_callback=lambda _state: False,
        )
        return bool(await retrying(self._start_once, replica))

    def _report_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        _log.warning("model %s: a replica did not start: %s", self._pool.model, error)

    async def _start_once(self, replica: _Replica) -> bool:
        await self._end(replica)
        started = self._clock()
        port = free_port()
        replica.starts += 1
        replica.process = await self._spawn(port)
        endpoint_id = f"{self._pool.model}-{os.getpid()}-{replica.number}.{replica.starts}"
        address = parse_address(f"http://127.0.0.1:{port}")
        replica.endpoint = Endpoint(endpoint_id, address, self._params.concurrency)
        self._pool.add(replica.endpoint)
        while not await is_ready(self._upstream, address, self._probe):
            if replica.stop.is_set():
                return False
            if replica.process.returncode is not None:
                raise ReplicaFailedError(f"exited with status {replica.process.returncode}")
            if self._clock() - started > self._params.start_timeout_s:
                raise ReplicaFailedError(f"not ready after {self._params.start_timeout_s:.0f} s")
            await asyncio.sleep(_PROBE_EVERY_S)
        self._pool.startup.observe(self._clock() - started)
        self._pool.mark_ready(endpoint_id, is_ready=True)
        _log.info("model %s: replica %s is ready", self._pool.model, endpoint_id)
        return True

    async def _spawn(self, port: int) -> asyncio.subprocess.Process:
        command = [
            argument.replace("{port}", str(port)).replace("{model}", self._pool.model)
            for argument in self._params.command
        ]
        log = await asyncio.to_thread(open_log, self._params.log)
        try:
            return await spawn(command, self._params.env, log)
        finally:
            if log is not None:
                os.close(log)

    async def _watch(self, replica: _Replica) -> None:
        """Return when the process has exited, hangs, or is told to stop."""
        process, endpoint = replica.process, replica.endpoint
        assert process is not None and endpoint is not None  # noqa: S101, PT018
        exited = asyncio.ensure_future(process.wait())
        last_ready = self._clock()
        try:
            while not replica.stop.is_set() and not exited.done():
                await _wait(replica.stop, 0.5, exited)
                if endpoint.is_ready:
                    last_ready = self._clock()
                elif self._clock() - last_ready > _HUNG_AFTER_S:
                    _log.warning("replica %s hangs and is replaced", endpoint.id)
                    return
        finally:
            exited.cancel()
        if process.returncode is not None:
            _log.warning("replica %s exited with status %d", endpoint.id, process.returncode)

    async def _end(self, replica: _Replica) -> None:
        """Take the replica out of the pool and end its process: drain, ask, then kill."""
        process, endpoint = replica.process, replica.endpoint
        if endpoint is not None and process is not None:
            if replica.stop.is_set() and process.returncode is None and endpoint.is_ready:
                await _wait(self._pool.drain(endpoint.id), self._params.drain_s)
            self._pool.remove(endpoint.id)
            self._upstream.abort(endpoint.address)
        await end(process, self._params.drain_s if replica.stop.is_set() else 0.0)
        replica.process = replica.endpoint = None


async def _wait(
    event: asyncio.Event, seconds: float, also: asyncio.Future[int] | None = None
) -> None:
    """Wait for the event, for `also`, or for so long, whichever comes first."""
    waiter = asyncio.ensure_future(event.wait())
    waiting: list[asyncio.Future[Any]] = [waiter] if also is None else [waiter, also]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
