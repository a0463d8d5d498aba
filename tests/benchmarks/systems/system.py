"""What a system under test is to the benchmark: something that runs in front of the upstream."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.benchmarks.children import SYSTEM_CORE, running, wait_until_listening
from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.tools import Tools


@dataclass(frozen=True, slots=True)
class Site:
    """Where one system runs: its own folder, its port on loopback, and what it forwards to."""

    folder: Path
    port: int
    upstream_port: int

    @property
    def upstream(self) -> str:
        """Host and port of the upstream."""
        return f"127.0.0.1:{self.upstream_port}"


@dataclass(frozen=True, slots=True)
class Running:
    """A system that listens; `pid` is the root of its process tree."""

    pid: int
    port: int


class System(Protocol):
    """One system under test."""

    @property
    def name(self) -> str:
        """Short name, as in the tables."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether it passes bodies on byte by byte, rather than writing them anew."""
        ...

    def takes(self, scenario: Scenario) -> bool:
        """Whether it serves such requests at all."""
        ...

    def version(self, tools: Tools) -> str:
        """What exactly was measured. Raises MissingToolError."""
        ...

    def run(self, site: Site, tools: Tools) -> AbstractContextManager[Running]:
        """Run until the block ends. Raises MissingToolError or BenchmarkError."""
        ...


@contextmanager
def server(
    argv: Sequence[str], site: Site, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run one program on the core under test and wait until it listens."""
    log = site.folder / "output.log"
    with running(argv, SYSTEM_CORE, log, env) as process:
        wait_until_listening(process, site.port, log)
        yield Running(process.pid, site.port)
