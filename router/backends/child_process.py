"""Child processes of the gateway: started, ended, and never left behind."""

import asyncio
import logging
import os
import re
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

_log = logging.getLogger(__name__)

_PLAIN = re.compile(r"(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)+")
_LONGEST_FOLDER = 55  # the kernel takes 103 bytes (macOS) for a socket's whole path


async def spawn(
    command: Sequence[str], env: Mapping[str, str], log: int | None
) -> asyncio.subprocess.Process:
    """Start a process with its output going to the descriptor `log` (None: where ours goes)."""
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log if log is not None else 2,
        stderr=log,
        env={**os.environ, **env},
        # A Ctrl-C in the terminal is for the gateway, which then drains its children.
        start_new_session=True,
    )


async def end(process: asyncio.subprocess.Process | None, patience_s: float) -> None:
    """Ask the process to end; kill it and what it started if it does not."""
    if process is None or process.returncode is not None:
        return
    if patience_s > 0:
        process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            _log.warning("process %d did not end within %.0f s", process.pid, patience_s)
    kill(process)
    await process.wait()


def kill(process: asyncio.subprocess.Process | None) -> None:
    """Kill the process and all of its group, now."""
    if process is None or process.returncode is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def open_log(path: Path | None) -> int | None:
    """A descriptor that appends to the file; the caller closes it."""
    if path is None:
        return None
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)


def socket_folder() -> TemporaryDirectory[str]:
    """A folder for the sockets of this gateway's children: of mode 0700, on a short path."""
    place = gettempdir()
    # Gateways that share replicas tell each other such paths, and take no others.
    is_plain = len(place) <= _LONGEST_FOLDER and _PLAIN.fullmatch(place)
    return TemporaryDirectory(prefix="hybrid-router-", dir=place if is_plain else "/tmp")  # noqa: S108


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
