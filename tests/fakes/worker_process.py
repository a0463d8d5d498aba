"""The real HTTP worker as a child process, for tests and benchmarks."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker that is ready; `url` is as on its ready line."""

    process: subprocess.Popen[str]
    url: str

    @property
    def authority(self) -> str:
        """Host and port."""
        return self.url.removeprefix("http://")

    def stop(self) -> int:
        """Ask it to end, wait for it, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_S)


def command(repository: Path, model: str, *flags: str) -> list[str]:
    """The worker's command line."""
    module = [sys.executable, "-m", "workers.http_server", "--exit-with-parent"]
    return [*module, "--repository", str(repository), "--model", model, *flags]


@contextmanager
def running_worker(repository: Path, model: str, *flags: str) -> Iterator[WorkerProcess]:
    """Start a worker on a free port and wait until it is ready; it never outlives the block."""
    with spawned(command(repository, model, *flags)) as process:
        assert process.stdout is not None
        line = process.stdout.readline().split()
        assert line[:1] == ["ready"], f"the worker did not start: {line}"
        yield WorkerProcess(process, line[1])


@contextmanager
def spawned(argv: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A child process with a pipe for its output, killed at the end if it still runs."""
    process = subprocess.Popen(list(argv), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(_STOP_S)
        if process.stdout is not None:
            process.stdout.close()
