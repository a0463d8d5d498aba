"""The set of functions this host serves, and its end.

Replaces the set as a whole: unchanged functions keep their warm environments, changed and removed
ones finish what they run and stop. Draining is the same with an empty set, bounded in time.
"""

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import asdict

from workers.function_host.environment import Services
from workers.function_host.function import Function, Totals
from workers.function_host.settings import FunctionSpec


class Host:
    """All functions, current and retiring. `close` ends every process they started."""

    def __init__(self, services: Services) -> None:
        self.draining = False
        self._services = services
        self._functions: dict[str, Function] = {}
        self._retiring: dict[Function, asyncio.Task[None]] = {}
        self._totals = Totals()
        self.declaration = ""
        """Names the set of functions; another one after each `replace`."""

    def function(self, name: str) -> Function | None:
        """The current function of that name."""
        return self._functions.get(name)

    def replace(self, specs: Iterable[FunctionSpec]) -> None:
        """Make exactly these functions current. Must not await: callers see old or new, whole."""
        self.declaration = uuid.uuid4().hex
        before = self._functions
        self._functions = {spec.name: self._keep_or_create(spec) for spec in specs}
        for name, function in before.items():
            if self._functions.get(name) is not function:
                self._retire(function)

    async def drain(self, within_s: float) -> None:
        """Refuse new invocations and finish the running ones, then end whatever is left."""
        self.draining = True
        self.replace([])
        ends = list(self._retiring.values())
        if ends:
            await asyncio.wait(ends, timeout=within_s)
        await asyncio.gather(*(function.close() for function in list(self._retiring)))
        for end in ends:
            end.cancel()

    def view(self) -> dict[str, object]:
        """The host as `GET /host/functions` shows it."""
        return {
            "draining": self.draining,
            "totals": asdict(self._totals),
            "functions": [function.view() for function in self._functions.values()],
            "retiring": [function.view() for function in self._retiring],
        }

    def _keep_or_create(self, spec: FunctionSpec) -> Function:
        current = self._functions.get(spec.name)
        if current is not None and current.spec == spec:
            return current
        return Function(spec, self._services, self._totals)

    def _retire(self, function: Function) -> None:
        task = asyncio.create_task(function.wait_ended(), name=f"retire-{function.spec.name}")
        self._retiring[function] = task
        task.add_done_callback(lambda _: self._retiring.pop(function, None))
        function.retire()
