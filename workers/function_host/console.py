"""Writes the host's own log lines and its functions' output to stderr.

Decides what is dropped: a reader that stops reading must never stop invocations, so lines wait in
a bounded queue for one writing thread, and each function may write only so many lines a second.
It never blocks a caller and never raises because of stderr.
"""

import json
import logging
import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping

MAX_LINE_BYTES = 2048
LINES_PER_S = 100.0
LINES_BURST = 200.0

_QUEUED_LINES = 2000
_STDERR_FD = 2
_CLOSE_S = 1.0


class RateBound:
    """Token bucket: `burst` lines at once, refilled by `per_s`; counts what it refuses."""

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._at = now
        self._refused = 0

    def admit(self, now: float) -> bool:
        """Take one token, or count one refusal."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1.0:
            self._refused += 1
            return False
        self._tokens -= 1.0
        return True

    def take_refused(self) -> int:
        """Refusals since the last call."""
        refused, self._refused = self._refused, 0
        return refused


class Console:
    """Bounded, never blocking log of the host. `close` writes what is left, within a second."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write or _write_stderr
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUED_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def event(self, name: str, fields: Mapping[str, object]) -> None:
        """Log one JSON line."""
        self.line(json.dumps({"event": name, **fields}))

    def line(self, text: str) -> None:
        """Log one line, or drop it where the queue is full."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what is queued; give up on a stuck reader after a second. Blocks: call last."""
        try:
            self._lines.put(None, timeout=_CLOSE_S)
        except queue.Full:
            return
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:  # written here: the queue it would wait in is the one that was full
                text += "\n" + json.dumps({"event": "log_lines_dropped", "lines": dropped})
            try:
                self._write(text + "\n")
            except (OSError, ValueError):  # stderr is gone; nobody is left to tell
                return


class ConsoleHandler(logging.Handler):
    """Brings what libraries log to the console, one bounded JSON line each."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record."""
        fields: dict[str, object] = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MAX_LINE_BYTES],
        }
        if record.exc_info:
            text = "".join(traceback.format_exception(*record.exc_info))
            fields["traceback"] = text[-MAX_LINE_BYTES:]  # the end names the error
        self._console.event("log", fields)


class FunctionLog:
    """The console as seen by one function: lines carry its name and are bounded in rate."""

    def __init__(self, name: str, console: Console, clock: Callable[[], float]) -> None:
        self._name = name
        self._console = console
        self._clock = clock
        self._bound = RateBound(LINES_PER_S, LINES_BURST, clock())

    def line(self, raw: bytes) -> None:
        """Log one line of output; unprintable characters are shown escaped."""
        if not self._bound.admit(self._clock()):
            return
        if refused := self._bound.take_refused():
            self._console.line(f"[{self._name}] ... {refused} lines not shown")
        # awslambdaric ends the lines *inside* one record with carriage returns.
        text = raw.decode("utf-8", "replace").rstrip("\r").replace("\r", " | ")
        self._console.line(f"[{self._name}] {_printable(text)}")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\t\u00a0" else ascii(c)[1:-1] for c in text)


def _write_stderr(text: str) -> None:
    # Not by `sys.stderr`: while this waits for a reader, its lock and buffer would stand in the way
    # of the interpreter's end, which flushes it.
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(_STDERR_FD, data) :]
