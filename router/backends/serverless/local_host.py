"""The function host on this machine: kept running, and told which functions it has.

Knows the host's own small API (`PUT /host/functions`); invoking goes through `aws_lambda` like
everywhere else.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential_jitter

from router.backends.child_process import end, kill, open_log, spawn
from router.domain.clock import Clock
from router.domain.errors import AttemptError
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient
from router.upstream.response import UpstreamResponse

_log = logging.getLogger(__name__)

_START_TIMEOUT_S = 20.0
_POLL_S = 0.05
_CALL_TIMEOUT_S = 5.0
_LOOK_EVERY_S = 1.0
_HUNG_AFTER_S = 10.0
"""A host that has answered nothing for so long is replaced; a machine under load takes seconds."""


class HostFailedError(Exception):
    """The host exited, did not come up in time, or refused its functions."""


@dataclass(frozen=True, slots=True)
class LocalFunctionSpec:
    """One function as the host wants it declared."""

    name: str
    handler: str
    environment: Mapping[str, str]
    memory_mb: int
    timeout_s: float
    max_concurrency: int
    idle_s: float
    init_timeout_s: float


class LocalFunctionHost:
    """Starts the host process, declares functions, and does so again should either be lost."""

    def __init__(
        self,
        address: Address,
        command: Sequence[str],
        upstream: UpstreamClient,
        clock: Clock,
        drain_s: float,
    ) -> None:
        self.address = address
        self._command = command
        self._upstream = upstream
        self._clock = clock
        self._drain_s = drain_s
        self._specs: tuple[LocalFunctionSpec, ...] = ()
        self._log_path: Path | None = None
        self._declared: tuple[LocalFunctionSpec, ...] | None = None
        self._declaration = ""
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self.is_up = asyncio.Event()

    def declare(self, specs: Sequence[LocalFunctionSpec], log: Path | None) -> None:
        """Set the functions the host shall have; it is started once there is one."""
        self._specs = tuple(specs)
        self._log_path = log
        if self._specs != self._declared:
            self.is_up.clear()
        self._changed.set()

    @property
    def is_missing(self) -> bool:
        """Whether there are functions for it that cannot be called now."""
        return bool(self._specs) and not self.is_up.is_set()

    async def wait_until_up(self, stop: asyncio.Event, within_s: float) -> None:
        """Wait for the declared functions to be callable; no longer than that, or until `stop`."""
        if not self._specs:
            return
        waiting = [asyncio.create_task(event.wait()) for event in (self.is_up, stop)]
        done, _ = await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not done:
            _log.warning("the function host is not up yet; its functions will fail until it is")

    async def run(self) -> None:
        """Work until cancelled, then stop the host."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._specs or self._process is not None:
                    await self._bring_up()
                    await self._until_something_changes()
        finally:
            if self._watch is not None:
                self._watch.cancel()
            await end(self._process, self._drain_s)

    async def _until_something_changes(self) -> None:
        """Wait until there is something to declare, here or because the host has another set.

        A host that hangs is killed: its end is something that changes.
        """
        heard = self._clock()
        while not self._changed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._changed.wait()
                    return
            found = await self._ask()
            if found is None:
                self._kill_if_silent_since(heard)
                continue
            heard = self._clock()
            if found != self._declaration:
                _log.warning("the function host's functions were changed, and are put back")
                self.is_up.clear()
                self._changed.set()

    def _kill_if_silent_since(self, heard: float) -> None:
        silent_s = self._clock() - heard
        if silent_s >= _HUNG_AFTER_S and not self._changed.is_set():
            _log.warning("the function host has not answered for %.0f s and is killed", silent_s)
            kill(self._process)

    async def _bring_up(self) -> None:
        """Start and declare, with growing pauses until it works."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((HostFailedError, OSError, AttemptError)),
            wait=wait_exponential_jitter(multiplier=0.2, max=30.0),
            before_sleep=_report_failure,
        )
        await retrying(self._bring_up_once)
        self.is_up.set()

    async def _bring_up_once(self) -> None:
        if self._process is None or self._process.returncode is not None:
            await self._start()
        specs = self._specs
        self._declaration = await self._put(specs)
        self._declared = specs

    async def _start(self) -> None:
        log = await asyncio.to_thread(open_log, self._log_path)
        try:
            process = self._process = await spawn(self._command, {}, log)
        finally:
            if log is not None:
                os.close(log)
        started = self._clock()
        while await self._ask() is None:
            if process.returncode is not None:
                raise HostFailedError(f"exited with status {process.returncode}")
            if self._clock() - started > _START_TIMEOUT_S:
                await end(process, 0.0)
                raise HostFailedError(f"not up after {_START_TIMEOUT_S:.0f} s")
            await asyncio.sleep(_POLL_S)
        self._watch = asyncio.create_task(self._restart_when_ended(process))

    async def _restart_when_ended(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        _log.warning("the function host ended with status %d and is started again", status)
        self.is_up.clear()
        self._changed.set()

    async def _ask(self) -> str | None:
        """What the host calls its set of functions; None while it takes no invocations."""
        try:
            response = await self._upstream.send(
                self.address, Call("GET", "/host/health"), timeout_s=1.0
            )
        except AttemptError:
            return None
        await response.aclose()
        return _etag(response) if response.status == 200 else None

    async def _put(self, specs: Sequence[LocalFunctionSpec]) -> str:
        """Declare the functions; returns what the host calls the set. Raises HostFailedError."""
        body = msgspec.json.encode({"functions": [asdict(spec) for spec in specs]})
        call = Call(
            "PUT",
            "/host/functions",
            headers=(("content-type", "application/json"),),
            body=body,
            is_idempotent=True,
        )
        response = await self._upstream.send(self.address, call, timeout_s=_CALL_TIMEOUT_S)
        await response.aclose()
        if response.status != 200:
            told = response.body[:500].decode("utf-8", "replace")
            raise HostFailedError(f"refused its functions (status {response.status}): {told}")
        return _etag(response)


def _etag(response: UpstreamResponse) -> str:
    return next((value for name, value in response.headers if name.lower() == "etag"), "")


def _report_failure(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    _log.warning("the function host did not come up: %s", error)
