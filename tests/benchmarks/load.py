"""The load: wrk posting one body over N keep-alive connections, and what it says at the end."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.benchmarks.children import LOAD_CORE, BenchmarkError, pinned, stop
from tests.benchmarks.tools import Tools

_SCRIPT = Path(__file__).with_name("post.lua")
_MARK = "RESULT "
_REQUEST_TIMEOUT_S = 10
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One run of wrk. `errors` counts what was not answered 2xx or 3xx, or not at all."""

    requests: int
    duration_s: float
    p50_s: float
    p99_s: float
    p999_s: float
    errors: int


def parse(output: str) -> LoadResult:
    """Read what post.lua printed. Raises BenchmarkError if there is no result."""
    line = next((line for line in output.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise BenchmarkError(f"wrk gave no result: {output.strip()[-300:]}")
    told = json.loads(line.removeprefix(_MARK))
    return LoadResult(
        requests=told["requests"],
        duration_s=told["duration_us"] / 1e6,
        p50_s=told["p50_us"] / 1e6,
        p99_s=told["p99_us"] / 1e6,
        p999_s=told["p999_us"] / 1e6,
        errors=sum(
            told[f"{kind}_errors"] for kind in ("connect", "read", "write", "status")
        ) + told["timeouts"],
    )  # fmt: skip


class Posted(Protocol):
    """What is posted, and over how many connections."""

    @property
    def path(self) -> str:
        """Where to."""
        ...

    @property
    def content_type(self) -> str:
        """Of the body."""
        ...

    @property
    def connections(self) -> int:
        """How many there are."""
        ...

    @property
    def lines(self) -> Sequence[str]:
        """More lines of each head."""
        ...


class Bodies(NamedTuple):
    """What is posted in turn: a file with all of them one after the other, and how long each is."""

    file: Path
    sizes: Sequence[int]

    @classmethod
    def write(cls, file: Path, bodies: Sequence[bytes]) -> "Bodies":
        """Put them into the file."""
        file.write_bytes(b"".join(bodies))
        return cls(file, [len(body) for body in bodies])


class Load:
    """A run of wrk in the background."""

    def __init__(self, process: subprocess.Popen[bytes], longest_s: float) -> None:
        self._process = process
        self._longest_s = longest_s

    def result(self) -> LoadResult:
        """Wait for its end. Raises BenchmarkError if it fails or hangs."""
        try:
            output, _ = self._process.communicate(timeout=self._longest_s)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError("wrk did not end in time") from error
        return parse(output.decode(errors="replace"))


@contextmanager
def load(
    tools: Tools, port: int, scenario: Posted, bodies: Bodies, seconds: float
) -> Iterator[Load]:
    """Put `scenario` on a port for `seconds`, rounded up; never outlives the block."""
    duration_s = ceil(seconds)
    lengths = ",".join(map(str, bodies.sizes))
    command = [
        tools.debian("wrk", "wrk"), "--threads", "1", "--connections", str(scenario.connections),
        "--duration", f"{duration_s}s", "--timeout", f"{_REQUEST_TIMEOUT_S}s",
        "--script", str(_SCRIPT), f"http://127.0.0.1:{port}{scenario.path}",
        "--", str(bodies.file), scenario.content_type, lengths, *scenario.lines,
    ]  # fmt: skip
    process = subprocess.Popen(
        pinned(command, LOAD_CORE),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield Load(process, duration_s + _GRACE_S)
    finally:
        stop(process)
        if process.stdout is not None:
            process.stdout.close()
