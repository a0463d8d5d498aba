"""Child processes of a benchmark: pinned to a core, killed at the end of their block.

The kernel kills them too (`setpriv --pdeathsig`) if the benchmark itself is killed, so nothing
outlives it. Every wait here is bounded.
"""

import http.client
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SYSTEM_CORE = 0
"""Where the system under test runs, alone."""
LOAD_CORE = 1
"""Where load and upstream run."""

_READY_S = 60.0
_POLL_S = 0.05
_STOP_S = 5.0
_TAIL_LINES = 3


class BenchmarkError(Exception):
    """A part of the benchmark did not work; the message says which and what to do."""


def prepare_this_process() -> None:
    """Stay off the core under test, and allow as many open files as the system lets us.

    Raises BenchmarkError where there is nothing to pin to.
    """
    if not {SYSTEM_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchmarkError(f"cores {SYSTEM_CORE} and {LOAD_CORE} are needed, to pin work to them")
    os.sched_setaffinity(0, {LOAD_CORE})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pinned(argv: Sequence[str], core: int) -> list[str]:
    """`argv` on one core, dying with us. Both wrappers exec, so the pid is the program's own."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core), *argv]


@contextmanager
def running(
    argv: Sequence[str], core: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in its own session, output to `log`; kill the session at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(argv, core),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a session: politely, then not."""
    for number, wait_s in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
    # The leader may be gone and others of its session not.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once the port takes connections. Raises BenchmarkError with the end of the log."""
    give_up_at = time.monotonic() + _READY_S
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            raise BenchmarkError(f"exited with {process.returncode}: {_tail(log)}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(_POLL_S)
    raise BenchmarkError(f"did not listen within {_READY_S:.0f} s: {_tail(log)}")


def exchange(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    content_type: str = "application/json",
    lines: Sequence[str] = (),
) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body. Raises OSError.

    `lines` are more lines of its head.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = dict(line.split(": ", 1) for line in lines)
        if body:
            headers["content-type"] = content_type
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"no valid HTTP answer: {error!r}") from error
    finally:
        connection.close()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " | ".join(line.strip() for line in lines[-_TAIL_LINES:]) or "it printed nothing"
