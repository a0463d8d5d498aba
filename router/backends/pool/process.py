"""Launches replicas as worker processes on this machine. How they are kept: `supervisor`."""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from secrets import token_hex

from router.backends.child_process import end, free_port, kill, open_log, spawn
from router.backends.model_files import why_missing
from router.backends.pool.confinement import Cores, pin, resident_bytes, rotate
from router.backends.pool.supervisor import ModelMissingError
from router.upstream.address import Address, parse_address

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How a worker process is run. `command` has placeholders: {socket} or {port}, and {model}.

    `model` is the name by which the worker knows its model. The process is kept on `cpus` cores,
    and replaced once it has more than `memory_bytes`; 0: no bound. It is not started while its
    `repository` lacks the model, or that `version`; None: it has none that we know.
    """

    model: str
    command: Sequence[str]
    env: Mapping[str, str]
    cpus: int = 0
    memory_bytes: int = 0
    repository: Path | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class LogSpec:
    """Where output goes: `folder` has a file for each replica, of `max_bytes`; else one file."""

    file: Path | None
    folder: Path | None = None
    max_bytes: int = 10 * _MIB


@dataclass(slots=True)
class _Place:
    """What a running replica has for itself; taken by `launch`, given back when it has ended."""

    number: int
    socket: Path
    cores: frozenset[int] = field(default_factory=frozenset)
    log: Path | None = None


class ProcessInstance:
    """A running worker process."""

    def __init__(
        self,
        id: str,
        address: Address,
        launcher: "ProcessLauncher",
        process: asyncio.subprocess.Process,
        place: _Place,
    ) -> None:
        self.id = id
        self.address = address
        self.spec = launcher.spec
        self._memory_bytes = launcher.configured.memory_bytes
        self._launcher = launcher
        self._process = process
        self._place: _Place | None = place
        self._log_is_short = True

    async def ended(self) -> str:
        """Wait for the process to exit, or to pass its bound of memory."""
        exit_ = asyncio.ensure_future(self._process.wait())
        try:
            while True:
                await asyncio.wait([exit_], timeout=_LOOK_EVERY_S)
                if exit_.done():
                    return f"exited with status {exit_.result()}"
                if excess := await asyncio.to_thread(self._inspect):
                    return excess
        finally:
            exit_.cancel()

    def _inspect(self) -> str:
        """Keep the log short, and say if there is too much of anything; blocks."""
        place = self._place
        if place is not None and place.log is not None:
            self._shorten(place.log)
        if not self._memory_bytes:
            return ""
        used_bytes = resident_bytes(self._process.pid)
        if used_bytes <= self._memory_bytes:
            return ""
        return f"has {used_bytes // _MIB} MiB of memory, over its {self._memory_bytes // _MIB}"

    def _shorten(self, log: Path) -> None:
        was_short, self._log_is_short = self._log_is_short, True
        try:
            rotate(log, self._launcher.logs.max_bytes)
        except OSError as error:  # a full disk is no reason to end a worker that serves
            self._log_is_short = False
            if was_short:
                _log.warning("the log of replica %s cannot be kept short: %s", self.id, error)

    async def end(self, patience_s: float) -> None:
        """Terminate, then kill."""
        await end(self._process, patience_s)
        if self._place is not None:
            await asyncio.to_thread(self._place.socket.unlink, missing_ok=True)
        self._leave()

    def abandon(self) -> None:
        """Kill."""
        kill(self._process)
        self._leave()

    def _leave(self) -> None:
        if self._place is not None:
            self._launcher.give_back(self._place)
            self._place = None


class ProcessLauncher:
    """Starts worker processes of one model, each on a socket in `sockets`, or a port, of its own.

    A port is for commands that know no sockets: every user of this machine can send requests there.
    """

    outlives_gateway = False

    def __init__(
        self, model: str, spec: ProcessSpec, logs: LogSpec, cores: Cores, sockets: Path
    ) -> None:
        self._model = model
        self._sockets = sockets
        self.configured = spec
        self.logs = logs
        self._cores = cores
        self._taken: set[int] = set()

    @property
    def spec(self) -> str:
        """The command, its environment and its bounds."""
        return repr(self.configured)

    async def open(self) -> Sequence[ProcessInstance]:
        """Nothing outlives a gateway: workers die with it."""
        return ()

    async def prepare(self) -> None:
        """Look for the model. Raises ModelMissingError."""
        spec = self.configured
        if spec.repository is None:
            return
        look = partial(why_missing, spec.repository, spec.model, spec.version, for_clients=True)
        if missing := await asyncio.to_thread(look):
            raise ModelMissingError(missing)

    async def launch(self, number: str) -> ProcessInstance:
        """Start a process. Raises OSError."""
        place = self._take()
        try:
            address, process = await self._spawn(place)
        except BaseException:
            self.give_back(place)
            raise
        id_ = f"{self._model}-{os.getpid()}-{number}"
        return ProcessInstance(id_, address, self, process, place)

    async def close(self) -> None:
        """Nothing is held."""

    def _take(self) -> _Place:
        # The lowest number that is free: files of replicas that ended are used again.
        number = next(n for n in count(1) if n not in self._taken)
        self._taken.add(number)
        folder = self.logs.folder
        log = folder / f"{self._model}-{number}.log" if folder is not None else None
        socket = self._sockets / f"{token_hex(8)}.sock"  # others have theirs in the same folder
        return _Place(number, socket, self._cores.take(self.configured.cpus), log)

    def give_back(self, place: _Place) -> None:
        """A replica has ended. Called exactly once for each."""
        self._taken.discard(place.number)
        self._cores.give_back(place.cores)

    async def _spawn(self, place: _Place) -> tuple[Address, asyncio.subprocess.Process]:
        address, values = self._address(place)
        command = [_filled(argument, values) for argument in self.configured.command]
        log = await asyncio.to_thread(_open, place.log or self.logs.file)
        try:
            process = await spawn(command, self.configured.env, log)
        finally:
            if log is not None:
                os.close(log)
        try:
            pin(process.pid, place.cores)
        except ProcessLookupError:
            pass  # it has ended already, which its instance will tell
        except OSError:
            kill(process)
            raise
        return address, process

    def _address(self, place: _Place) -> tuple[Address, dict[str, str]]:
        """Where a replica will listen, and what stands for the placeholders of its command."""
        values = {"{model}": self.configured.model, "{socket}": str(place.socket)}
        if any("{port}" in argument for argument in self.configured.command):
            values["{port}"] = str(free_port())
            return parse_address(f"http://127.0.0.1:{values['{port}']}"), values
        return parse_address(f"unix:{place.socket}"), values


def _filled(argument: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        argument = argument.replace(placeholder, value)
    return argument


def _open(path: Path | None) -> int | None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    return open_log(path)
