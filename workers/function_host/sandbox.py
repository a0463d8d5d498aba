"""One sandbox: a process running the Lambda runtime client, its Runtime API and its output.

Starts it with an environment of its own (none of the host's variables but PATH), reports what it
does as a stream of events, and ends it for certain. It never decides when.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workers.function_host.output import SandboxOutput
from workers.function_host.runtime_api import Delivery, RuntimeApi, RuntimeEvent
from workers.function_host.settings import FunctionSpec

FULL_VCPU_MEMORY_MB = 1769  # Lambda grants one virtual CPU for each of these

_REGION = "us-east-1"
_SOURCE_ROOT = Path(__file__).resolve().parents[2]
_REAP_S = 5.0  # after SIGKILL only a process in uninterruptible sleep is still there
_KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone; negative return codes are signals."""

    returncode: int


SandboxEvent = RuntimeEvent | Exited


def function_arn(name: str) -> str:
    """The name a function's code sees itself under."""
    return f"arn:aws:lambda:{_REGION}:000000000000:function:{name}"


def sandbox_variables(spec: FunctionSpec, runtime_api: str, path: str) -> dict[str, str]:
    """The whole environment of a sandbox process."""
    task_root = spec.working_dir or str(Path.cwd())
    search_path = dict.fromkeys([task_root, str(_SOURCE_ROOT)])
    return {
        "PATH": path,
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "MODEL_THREADS": str(max(1, spec.memory_mb // FULL_VCPU_MEMORY_MB)),
        **spec.environment,
        "PYTHONPATH": os.pathsep.join(search_path),
        "LAMBDA_TASK_ROOT": task_root,
        "_HANDLER": spec.handler,
        "AWS_REGION": _REGION,
        "AWS_DEFAULT_REGION": _REGION,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{spec.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
    }


class Sandbox:
    """A started sandbox. Callers `stop` it whatever happened to it."""

    def __init__(self, output: SandboxOutput) -> None:
        self.output = output
        self.peak_memory_mb = 0
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = loop.create_future()
        # Bounded by the Runtime API: one event for each poll, answer or exit.
        self._events: asyncio.Queue[SandboxEvent] = asyncio.Queue()
        self._api = RuntimeApi(self._events.put_nowait)
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopped = False

    @classmethod
    async def start(
        cls, spec: FunctionSpec, path: str, on_line: Callable[[bytes], None]
    ) -> "Sandbox":
        """Start the process; its first event says whether init worked. Raises OSError."""
        read_fd, write_fd = os.pipe()
        try:
            sandbox = cls(SandboxOutput(read_fd, on_line))
            try:
                await sandbox._spawn(spec, path, write_fd)
            except BaseException:
                await sandbox.stop(grace_s=0.0)
                raise
        finally:
            os.close(write_fd)
        return sandbox

    @property
    def pid(self) -> int | None:
        """The process id, once there is a process."""
        return self._process.pid if self._process else None

    async def next_event(self, within_s: float) -> SandboxEvent | None:
        """Wait for what the sandbox does next; None if it does nothing in time."""
        try:
            async with asyncio.timeout(within_s):
                return await self._events.get()
        except TimeoutError:
            return None

    def deliver(self, delivery: Delivery) -> None:
        """Hand it an invocation; only after a Polled event."""
        self._api.deliver(delivery)

    def sample_memory(self) -> None:
        """Update `peak_memory_mb`; where the system does not tell, it stays as it was."""
        if self.pid is not None:
            self.peak_memory_mb = _peak_memory_mb(self.pid) or self.peak_memory_mb

    async def stop(self, grace_s: float) -> None:
        """End the process and all it started: SIGTERM, `grace_s` to leave, then SIGKILL.

        A second call does nothing, or completes a first one that was cancelled.
        """
        if self._stopped:  # the process id may be somebody else's by now
            return
        if self._process is not None:
            if grace_s > 0 and not self.exited.done():
                self._signal(signal.SIGTERM)
                await asyncio.wait({self.exited}, timeout=grace_s)
            # Also where the leader has left: the group may hold children of the handler.
            self._signal(signal.SIGKILL)
            await asyncio.wait({self.exited}, timeout=_REAP_S)
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        self.output.close()
        await self._api.close()
        self._stopped = True

    async def _spawn(self, spec: FunctionSpec, path: str, write_fd: int) -> None:
        runtime_api = await self._api.listen()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "workers.function_host.bootstrap", str(os.getpid()), spec.handler),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=write_fd,
            stderr=write_fd,
            cwd=spec.working_dir,
            env=sandbox_variables(spec, runtime_api, path),
            start_new_session=True,  # a group of its own: killed as a whole, deaf to Ctrl-C
        )
        self._watcher = asyncio.create_task(self._watch(self._process), name="sandbox-exit")

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        returncode = await process.wait()
        self.exited.set_result(returncode)
        self._events.put_nowait(Exited(returncode))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):  # nobody is left (macOS: only zombies are)
            return


def _peak_memory_mb(pid: int) -> int | None:
    """Peak resident memory of a process from /proc; None where there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // _KIB_PER_MIB
    return None
