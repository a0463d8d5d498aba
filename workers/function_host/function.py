"""One deployed function: its admission limit, its environments, its totals.

Invokes through whichever environment the pool chooses. A retired function admits nothing new and
ends by itself when its last invocation has.
"""

import asyncio
import uuid
from dataclasses import asdict, dataclass

from workers.function_host.console import FunctionLog
from workers.function_host.environment import Environment, Services
from workers.function_host.invocation import Invocation, Result, Status
from workers.function_host.pool import EnvironmentPool, Reuse, Start
from workers.function_host.settings import FunctionSpec


@dataclass(slots=True)
class Totals:
    """Counts since the start of the host or of a function."""

    invocations: int = 0
    cold: int = 0
    throttles: int = 0
    errors: int = 0
    billed_ms: int = 0

    def add(self, result: Result) -> None:
        """Count one finished invocation."""
        self.invocations += 1
        self.cold += result.init_s is not None
        self.errors += result.status is not Status.OK
        self.billed_ms += result.billed_ms


class Function:
    """A function that can be invoked.

    Callers pair each successful `try_admit` with exactly one `invoke` or `abandon`.
    """

    def __init__(self, spec: FunctionSpec, services: Services, host_totals: Totals) -> None:
        self.spec = spec
        self.pool = EnvironmentPool(spec.max_concurrency)
        self.retired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.log = FunctionLog(spec.name, services.console, services.clock)
        self.totals = Totals()
        self._host_totals = host_totals
        self._services = services
        self._environments: dict[int, Environment] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._ended = asyncio.Event()

    def try_admit(self) -> bool:
        """Reserve room for one invocation, or count a throttle and return False."""
        if self.pool.try_reserve():
            return True
        self.totals.throttles += 1
        self._host_totals.throttles += 1
        return False

    def abandon(self) -> None:
        """Give the reservation back: there will be no invocation."""
        self.pool.release()
        self._note_end()

    async def invoke(self, event: bytes) -> Result:
        """Run the handler on the event. The invocation runs on if the caller is cancelled."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        invocation = Invocation(str(uuid.uuid4()), event, done)
        self.dispatch(invocation)
        return await done  # cancelled with the caller; `finish` finds nobody to answer then

    def dispatch(self, invocation: Invocation) -> None:
        """Give an admitted invocation to an environment. Must not await: see pool.py."""
        if self._closing:
            self.finish(invocation, _aborted(invocation))
            return
        match self.pool.choose():
            case Reuse(number):
                self._environments[number].assign(invocation)
            case Start(number):
                self._start(number, invocation)

    def finish(self, invocation: Invocation, result: Result) -> None:
        """Release, count, log and answer one invocation."""
        self.pool.release()
        self.totals.add(result)
        self._host_totals.add(result)
        self._services.console.event("invocation", _log_fields(self.spec.name, result))
        if not invocation.done.done():
            invocation.done.set_result(result)
        self._note_end()

    def retire(self) -> None:
        """Admit no more; idle environments stop now, busy ones after their invocation."""
        if not self.retired.done():
            self.retired.set_result(None)
        self._note_end()

    async def wait_ended(self) -> None:
        """Return when a retired function has no invocation and no process left."""
        await self._ended.wait()

    async def close(self) -> None:
        """End now: what runs is aborted and killed."""
        self._closing = True
        self.retire()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def view(self) -> dict[str, object]:
        """The function as `GET /host/functions` shows it."""
        return {
            **asdict(self.spec),
            "environment": sorted(self.spec.environment),  # names only: values may be secrets
            "in_flight": self.pool.reserved,
            "totals": asdict(self.totals),
            "environments": [self._view(item) for item in self._environments.values()],
        }

    def _view(self, environment: Environment) -> dict[str, object]:
        state = self.pool.state(environment.number)
        return {
            "id": environment.number,
            "state": state.value if state else "stopping",
            "pid": environment.pid,
            "age_s": round(self._services.clock() - environment.born, 3),
            "invocations": environment.invocations,
        }

    def _start(self, number: int, first: Invocation) -> None:
        environment = Environment(number, first, self, self._services)
        self._environments[number] = environment
        task = asyncio.create_task(environment.run(), name=f"{self.spec.name}-{number}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._forget(number, done))

    def _forget(self, number: int, task: asyncio.Task[None]) -> None:
        self._environments.pop(number).leave()  # a task cancelled before its first step never ran
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.console.event(
                "environment_failed", {"function": self.spec.name, "error": repr(error)}
            )
        self._note_end()

    def _note_end(self) -> None:
        if self.retired.done() and not self._tasks and not self.pool.reserved:
            self._ended.set()


def _aborted(invocation: Invocation) -> Result:
    return Result(invocation.request_id, Status.ABORTED, b"", 0.0, None, b"")


def _log_fields(name: str, result: Result) -> dict[str, object]:
    return {
        "function": name,
        "request_id": result.request_id,
        "status": result.status.value,
        "duration_ms": round(result.duration_s * 1000, 3),
        "billed_ms": result.billed_ms,
        "init_ms": None if result.init_s is None else round(result.init_s * 1000, 3),
        "cold": result.init_s is not None,
    }
