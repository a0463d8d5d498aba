"""Launches replicas as worker processes on this machine. How they are kept: `supervisor`."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from router.backends.child_process import end, free_port, kill, open_log, spawn
from router.upstream.address import Address, parse_address


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How a worker process is run. `command` has the placeholders {port} and {model}.

    `model` is the name by which the worker knows its model.
    """

    command: Sequence[str]
    model: str
    env: Mapping[str, str]
    log: Path | None


class ProcessInstance:
    """A running worker process."""

    def __init__(
        self, id: str, address: Address, spec: str, process: asyncio.subprocess.Process
    ) -> None:
        self.id = id
        self.address = address
        self.spec = spec
        self._process = process

    async def ended(self) -> str:
        """Wait for the process to exit."""
        return f"exited with status {await self._process.wait()}"

    async def end(self, patience_s: float) -> None:
        """Terminate, then kill."""
        await end(self._process, patience_s)

    def abandon(self) -> None:
        """Kill."""
        kill(self._process)


class ProcessLauncher:
    """Starts worker processes of one model, each on a port of its own."""

    outlives_gateway = False

    def __init__(self, model: str, spec: ProcessSpec) -> None:
        self._model = model
        self.configured = spec

    @property
    def spec(self) -> str:
        """The command and its environment."""
        return repr(self.configured)

    async def open(self) -> Sequence[ProcessInstance]:
        """Nothing outlives a gateway: workers die with it."""
        return ()

    async def prepare(self) -> None:
        """Nothing to fetch."""

    async def launch(self, number: str) -> ProcessInstance:
        """Start a process. Raises OSError."""
        spec, port = self.spec, free_port()
        process = await self._spawn(port)
        address = parse_address(f"http://127.0.0.1:{port}")
        return ProcessInstance(f"{self._model}-{os.getpid()}-{number}", address, spec, process)

    async def close(self) -> None:
        """Nothing is held."""

    async def _spawn(self, port: int) -> asyncio.subprocess.Process:
        command = [
            argument.replace("{port}", str(port)).replace("{model}", self.configured.model)
            for argument in self.configured.command
        ]
        log = await asyncio.to_thread(open_log, self.configured.log)
        try:
            return await spawn(command, self.configured.env, log)
        finally:
            if log is not None:
                os.close(log)
