"""The upstream of the benchmarks as a running process; what it does is in upstream.c."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.children import (
    LOAD_CORE,
    exchange,
    free_port,
    running,
    wait_until_listening,
)
from tests.benchmarks.tools import Tools

_SOURCE = Path(__file__).with_name("upstream.c")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A running upstream on loopback."""

    port: int
    process: subprocess.Popen[bytes]

    def posts(self) -> int:
        """How many POSTs it has answered so far: the requests that really went through."""
        return self._count("posts")

    def events(self) -> int:
        """How many events it has sent so far, in all its streams."""
        return self._count("events")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It hangs during the block: the kernel takes connections and bytes, nobody answers."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _count(self, what: str) -> int:
        _, body = exchange(self.port, "GET", "/posts")
        return int(json.loads(body)[what])


@contextmanager
def upstream(tools: Tools, folder: Path) -> Iterator[Upstream]:
    """Build it if needed, and run it until the block ends."""
    port, log = free_port(), folder / "upstream.log"
    with running([str(tools.compiled(_SOURCE)), str(port)], LOAD_CORE, log) as process:
        wait_until_listening(process, port, log)
        yield Upstream(port, process)
