"""Collects what a sandbox prints: the tail for its invocation's log, and lines for the console.

Decides the bounds (4 KB of tail, 2 KB a line, 64 KB a read); never keeps more and never waits for
the sandbox. Callers must `close` it once.
"""

import asyncio
import os
from collections.abc import Callable

from workers.function_host.console import MAX_LINE_BYTES
from workers.function_host.invocation import LOG_TAIL_BYTES

_READ_BYTES = 65536
_DRAIN_READS = 16  # a sandbox that never stops printing must not hold the loop


class LogTail:
    """The last 4 KB of one invocation's log."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def append(self, chunk: bytes) -> None:
        """Add output, forgetting the oldest."""
        self._bytes += chunk[-LOG_TAIL_BYTES:]
        del self._bytes[:-LOG_TAIL_BYTES]

    def clear(self) -> None:
        """Forget everything: the next invocation begins."""
        self._bytes.clear()

    def value(self) -> bytes:
        """What is kept."""
        return bytes(self._bytes)


class LineSplitter:
    """Cuts a byte stream into lines of bounded length; the rest of an overlong line is dropped."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._partial = b""

    def feed(self, chunk: bytes) -> None:
        """Add output; complete lines are passed on."""
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._on_line((self._partial + line[:MAX_LINE_BYTES])[:MAX_LINE_BYTES])
            self._partial = b""
        self._partial = (self._partial + rest[:MAX_LINE_BYTES])[:MAX_LINE_BYTES]

    def finish(self) -> None:
        """Pass on what never ended with a newline."""
        if self._partial:
            self._on_line(self._partial)
            self._partial = b""


class SandboxOutput:
    """The reading end of a sandbox's stdout and stderr. Owns the descriptor it is given."""

    def __init__(self, read_fd: int, on_line: Callable[[bytes], None]) -> None:
        self._fd: int | None = read_fd
        self._lines = LineSplitter(on_line)
        self.tail = LogTail()
        os.set_blocking(read_fd, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(read_fd, self._read)

    def drain(self) -> None:
        """Read what the sandbox wrote before this moment (up to 1 MiB).

        A handler prints before it answers, so after this its answer's log is complete.
        """
        for _ in range(_DRAIN_READS):
            if not self._read():
                return

    def close(self) -> None:
        """Read what is left and close the descriptor."""
        self.drain()
        self._shut()

    def _read(self) -> bool:
        if self._fd is None:
            return False
        try:
            chunk = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._shut()
            return False
        self.tail.append(chunk)
        self._lines.feed(chunk)
        return True

    def _shut(self) -> None:
        if self._fd is None:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = None
        self._lines.finish()
