"""The life of one environment: start, init, serve one invocation after another, leave.

Joins a sandbox (what happens) with the pool (what is allowed) and the limits of the function's
spec. Every wait ends: at init or task timeout, at idle time, when the process exits, or when the
function is retired. A sandbox that does nothing in time is killed before its caller is answered.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from workers.function_host.console import Console, FunctionLog
from workers.function_host.invocation import (
    Ending,
    Invocation,
    Result,
    Status,
    exit_error,
    log_end,
    log_start,
    timeout_error,
    too_large_error,
)
from workers.function_host.pool import EnvironmentPool
from workers.function_host.runtime_api import (
    Answered,
    AnsweredTooMuch,
    Delivery,
    InitFailed,
    Polled,
    Raised,
)
from workers.function_host.sandbox import Exited, Sandbox, SandboxEvent, function_arn
from workers.function_host.settings import FunctionSpec

_POLL_GRACE_S = 2.0  # from answer to next poll; the runtime client needs under a millisecond
_STOP_GRACE_S = 1.0
_REUSABLE = frozenset({Status.OK, Status.FUNCTION_ERROR, Status.RESPONSE_TOO_LARGE})


@dataclass(frozen=True, slots=True)
class Services:
    """What environments need of the world: clocks in seconds, the console, the host's PATH."""

    clock: Callable[[], float]
    epoch: Callable[[], float]
    console: Console
    path: str


class Owner(Protocol):
    """The function an environment belongs to."""

    spec: FunctionSpec
    pool: EnvironmentPool
    retired: asyncio.Future[None]
    log: FunctionLog

    def finish(self, invocation: Invocation, result: Result) -> None:
        """Release the invocation's reservation and answer its caller."""

    def dispatch(self, invocation: Invocation) -> None:
        """Find another environment for an invocation no handler has seen."""


class Environment:
    """One environment under its number in the pool. `run` is its whole life, in one task."""

    def __init__(self, number: int, first: Invocation, owner: Owner, services: Services) -> None:
        self.number = number
        self.born = services.clock()
        self.invocations = 0
        self._first = first
        self._current: Invocation | None = first
        self._inbox: asyncio.Future[Invocation] = asyncio.get_running_loop().create_future()
        self._owner = owner
        self._services = services
        self._sandbox: Sandbox | None = None
        self._left = False

    @property
    def pid(self) -> int | None:
        """The sandbox's process id, once it has one."""
        return self._sandbox.pid if self._sandbox else None

    def assign(self, invocation: Invocation) -> None:
        """Give it its next invocation; the pool has chosen it."""
        self._inbox.set_result(invocation)

    async def run(self) -> None:
        """Live until idle, retired, broken or cancelled; leave no process behind."""
        grace_s = 0.0
        try:
            sandbox = self._sandbox = await self._start()
            if sandbox is None or not await self._initialise(sandbox):
                return
            while await self._wait_for_work(sandbox):
                if not await self._serve(sandbox, self._take(), init_s=None):
                    return
            grace_s = _STOP_GRACE_S
        finally:
            self.leave()
            if self._sandbox is not None:
                await self._sandbox.stop(grace_s)

    def leave(self) -> None:
        """Leave the pool for good; what was assigned but not delivered goes elsewhere."""
        if self._left:
            return
        self._left = True
        if self._current is not None:
            self._finish(self._current, Ending(Status.ABORTED, b""), 0.0, None)
        elif self._owner.pool.state(self.number) is not None:
            self._owner.pool.remove(self.number)
        if self._inbox.done():
            self._owner.dispatch(self._inbox.result())

    async def _start(self) -> Sandbox | None:
        log = self._owner.log
        try:
            return await Sandbox.start(self._owner.spec, self._services.path, log.line)
        except OSError as error:
            log.line(f"sandbox not started: {error}".encode())
            self._finish(self._first, Ending(Status.NOT_STARTED, b""), 0.0, None)
            return None

    async def _initialise(self, sandbox: Sandbox) -> bool:
        """Wait for init and serve the first invocation; False if the sandbox is gone."""
        limit_s = self._owner.spec.init_timeout_s
        event = await sandbox.next_event(limit_s)
        init_s = self._services.clock() - self.born
        failure = _init_failure(event, self._first.request_id, limit_s)
        if failure is None:
            self._owner.pool.started(self.number)
            return await self._serve(sandbox, self._first, init_s)
        sandbox.output.tail.append(log_start(self._first.request_id))
        await self._conclude(sandbox, failure, 0.0, init_s)
        return False

    def _take(self) -> Invocation:
        self._current = self._inbox.result()
        self._inbox = asyncio.get_running_loop().create_future()
        return self._current

    async def _serve(self, sandbox: Sandbox, invocation: Invocation, init_s: float | None) -> bool:
        """Run one invocation to its end; False if the sandbox is gone with it."""
        limit_s = self._owner.spec.timeout_s
        if init_s is None:
            sandbox.output.tail.clear()
        sandbox.output.tail.append(log_start(invocation.request_id))
        self.invocations += 1
        begun = self._services.clock()
        sandbox.deliver(
            Delivery(
                invocation.request_id,
                invocation.event,
                int((self._services.epoch() + limit_s) * 1000),
                function_arn(self._owner.spec.name),
            )
        )
        event = await sandbox.next_event(limit_s)
        duration_s = self._services.clock() - begun
        ending = _task_ending(event, invocation.request_id, limit_s)
        await self._conclude(sandbox, ending, duration_s, init_s)
        return ending.status in _REUSABLE

    async def _conclude(
        self, sandbox: Sandbox, ending: Ending, duration_s: float, init_s: float | None
    ) -> None:
        sandbox.sample_memory()
        sandbox.output.drain()
        if ending.status not in _REUSABLE:
            # Before the answer: whoever calls again may count on the room it took.
            await sandbox.stop(grace_s=0.0)
        if self._current is not None:
            self._finish(self._current, ending, duration_s, init_s)

    async def _wait_for_work(self, sandbox: Sandbox) -> bool:
        """Wait until an invocation is assigned; False when it is time to leave."""
        event = await sandbox.next_event(_POLL_GRACE_S)
        if not isinstance(event, Polled):
            return False
        self._owner.pool.polled(self.number)
        ends: set[asyncio.Future[Any]] = {self._inbox, sandbox.exited, self._owner.retired}
        # asyncio.wait, unlike a timeout, leaves the inbox intact: nothing assigned can be lost.
        await asyncio.wait(
            ends, timeout=self._owner.spec.idle_s, return_when=asyncio.FIRST_COMPLETED
        )
        return self._inbox.done() and not sandbox.exited.done()

    def _finish(
        self, invocation: Invocation, ending: Ending, duration_s: float, init_s: float | None
    ) -> None:
        """Update the pool and answer, in one step."""
        result = Result(
            invocation.request_id, ending.status, ending.payload, duration_s, init_s, b""
        )
        if self._sandbox is not None:
            tail = self._sandbox.output.tail
            memory_mb = self._owner.spec.memory_mb
            tail.append(log_end(result, memory_mb, self._sandbox.peak_memory_mb))
            result = replace(result, log_tail=tail.value())
        self._current = None
        if ending.status in _REUSABLE:
            self._owner.pool.answered(self.number)
        else:
            self._owner.pool.remove(self.number)
        self._owner.finish(invocation, result)


def _init_failure(event: SandboxEvent | None, request_id: str, limit_s: float) -> Ending | None:
    match event:
        case Polled():
            return None
        case InitFailed(payload):
            return Ending(Status.INIT_FAILED, payload)
        case Exited(returncode):
            return Ending(Status.INIT_FAILED, exit_error(request_id, returncode))
        case None:
            return Ending(Status.INIT_TIMED_OUT, timeout_error(request_id, "Init", limit_s))
        case Answered() | Raised() | AnsweredTooMuch():
            raise RuntimeError("the Runtime API let an answer through before any invocation")


def _task_ending(event: SandboxEvent | None, request_id: str, limit_s: float) -> Ending:
    match event:
        case Answered(payload):
            return Ending(Status.OK, payload)
        case Raised(payload):
            return Ending(Status.FUNCTION_ERROR, payload)
        case AnsweredTooMuch():
            return Ending(Status.RESPONSE_TOO_LARGE, too_large_error())
        case Exited(returncode):
            return Ending(Status.CRASHED, exit_error(request_id, returncode))
        case None:
            return Ending(Status.TIMED_OUT, timeout_error(request_id, "Task", limit_s))
        case Polled() | InitFailed():
            raise RuntimeError("the Runtime API let a poll through while an invocation ran")
