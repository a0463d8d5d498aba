"""The file of the access log, or stderr: lines from a thread, rotation, and what a full disk does.

Decides when a file is full; never what a line says.
"""

import fcntl
import os
import select
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from logging.handlers import RotatingFileHandler
from operator import itemgetter
from pathlib import Path

from router.domain.clock import Clock

ATOMIC_WRITE_BYTES = select.PIPE_BUF
WRITE_TIMEOUT_S = 1.0
STDERR_FD = 2
_FILE_WRITE_BYTES = 1 << 20
_STAMP_OF = itemgetter(slice(len('{"ts":"2026-01-01T00:00:00.000Z"')))


class LineWriter:
    """Appends lines to stderr or a file from any thread, and never hangs on a pipe nobody reads.

    A file that has `most_bytes` is renamed (`.1`, `.2`, ...) and begun anew; so many are kept, and
    one more while lines are written.
    """

    def __init__(self, target: str, most_bytes: int | None = None, kept_files: int = 1) -> None:
        self._path = None if target == "stderr" else Path(target)
        self._most_bytes = most_bytes
        self._kept_files = kept_files
        self._lock = threading.Lock()  # a cancelled flush may still be writing when the last begins
        self._fd: int | None = None
        self._is_torn = False

    def write(self, lines: Sequence[bytes], clock: Clock) -> tuple[OSError | None, int]:
        """Append the lines. Returns what went wrong, if anything, and how many were written."""
        written, give_up_at = 0, clock() + WRITE_TIMEOUT_S
        lines = sorted(lines, key=_STAMP_OF)  # some were recorded late
        with self._lock:
            try:
                fd = self._open()
                # Appending to a file is atomic at any length, to a pipe only up to a bound.
                is_file = stat.S_ISREG(os.fstat(fd).st_mode)
                if is_file and self._is_full(fd):
                    self._rotate(fd)
                    fd = self._open()
                if self._is_torn:  # by a full disk: or the next line would become part of it
                    self._write_all(fd, b"\n", give_up_at, clock)
                for count, chunk in _chunks(
                    lines, _FILE_WRITE_BYTES if is_file else ATOMIC_WRITE_BYTES
                ):
                    self._write_all(fd, chunk, give_up_at, clock)
                    written += count
            except OSError as error:
                return error, written
        return None, written

    def close(self) -> None:
        """Close the file; another write opens it again."""
        with self._lock:
            self._close()

    def _write_all(self, fd: int, chunk: bytes, give_up_at: float, clock: Clock) -> None:
        """Write the chunk. Raises TimeoutError when the reader of a pipe has not made room by then.

        However it ends, `_is_torn` says whether the last line has its end.
        """
        room = select.poll()
        room.register(fd, select.POLLOUT)
        while chunk:
            # A pipe that has room takes an atomic write whole, so the write after this cannot hang.
            if not room.poll(max(0.0, give_up_at - clock()) * 1000):
                raise TimeoutError("nobody reads the other end")
            size = os.write(fd, chunk)
            self._is_torn = chunk[size - 1 : size] != b"\n"
            chunk = chunk[size:]

    def _is_full(self, fd: int) -> bool:
        return self._most_bytes is not None and os.fstat(fd).st_size >= self._most_bytes

    def _rotate(self, fd: int) -> None:
        """Rename the file, unless another process of the gateway has just done so."""
        if self._path is None:
            return
        fcntl.flock(fd, fcntl.LOCK_EX)  # let go of with the file
        if _is_same_file(self._path, fd):
            files = RotatingFileHandler(self._path, backupCount=self._kept_files, delay=True)
            files.doRollover()

    def _open(self) -> int:
        if self._path is None:
            return STDERR_FD
        if self._fd is not None and not _is_same_file(self._path, self._fd):
            self._close()  # rotated: whoever renamed it has the rest
            self._is_torn = False
        if self._fd is None:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        return self._fd

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _is_same_file(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _chunks(lines: Iterable[bytes], most_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines in writes of a bounded size, so that processes do not mix theirs."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        if chunk and size + len(line) > most_bytes:
            yield len(chunk), b"".join(chunk)
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield len(chunk), b"".join(chunk)
