"""The access log (one JSON line for each request) and the set-up of the process's own log.

Decides what is kept of text that clients chose, and what is lost when the target cannot keep up:
lines are then dropped and counted. The request path never waits for it.
"""

import asyncio
import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

import msgspec
from msgspec.structs import replace

from router.domain.clock import Clock, Sleep
from router.telemetry.repeats import RepeatLimit

FLUSH_INTERVAL_S = 0.1
MAX_BUFFER_BYTES = 4 << 20
# Clients choose these lengths (request id, model, version); no line may become longer than a
# write to a pipe that is atomic.
MAX_TEXT_LENGTH = 128
ATOMIC_WRITE_BYTES = select.PIPE_BUF
_FILE_WRITE_BYTES = 1 << 20
WRITE_TIMEOUT_S = 1.0
STDERR_FD = 2
_FAILED = 400
_STAMP_OF = itemgetter(slice(len('{"ts":"2026-01-01T00:00:00.000Z"')))

_CLIENT_TEXT = ("request_id", "model", "version", "tenant", "cause")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}

_log = logging.getLogger(__name__)


class AccessRecord(msgspec.Struct, frozen=True, gc=False):
    """What is logged of one request. None, what is not known or did not happen, becomes null.

    `error` is the code of what the gateway itself answered, `cause` what the client was told.
    `deadline_ms` is what the client asked for, `queue_ms` the wait for a slot, `upstream_ms` the
    time at backends; callers round to what they mean. `model` is the one that answered,
    `asked_model` the one that the client named, where the two may differ. Text that clients chose
    may be of any length and content: it is cut to MAX_TEXT_LENGTH characters and escaped when it is
    written.
    """

    request_id: str
    protocol: str
    model: str
    version: str | None
    tenant: str | None
    payload_bytes: int
    backend: str | None
    reason: str | None
    rule: str | None
    endpoint: str | None
    attempts: int
    status: int
    outcome: str
    cold_start: bool | None
    total_ms: float
    upstream_ms: float | None
    queue_ms: float | None
    deadline_ms: float | None
    cost_usd: float | None
    asked_model: str | None = None
    error: str | None = None
    cause: str | None = None


Answered = tuple[bytes, float, float, float, float, int, float | None]
"""What differs between requests that are otherwise logged alike.

Their id (printable ASCII, at most MAX_TEXT_LENGTH), when they ended (monotonic), and the seconds
they took: in all, at the backend, and of the backend's own work; the bytes of their body; and the
deadline that their client asked for, in milliseconds.
"""


_OWN_FIELDS = (
    (b'"request_id":""', b'"request_id":"%b"'),
    (b'"payload_bytes":0', b'"payload_bytes":%d'),
    (b'"total_ms":0.0,"upstream_ms":0.0', b'"total_ms":%.3f,"upstream_ms":%.3f'),
    (b'"deadline_ms":null', b'"deadline_ms":%b'),
    (b'"cost_usd":0.0', b'"cost_usd":%.6g'),
)
"""What a line says of its own, in the order of the record's fields."""


class LineTemplate:
    """The lines of requests that differ only in what is `Answered`; quicker than line by line."""

    __slots__ = ("_text", "may_be_left_out")

    def __init__(self, record: AccessRecord) -> None:
        """Take all but the id and the times from `record`."""
        self.may_be_left_out = record.status < _FAILED
        blank = replace(
            record, request_id="", payload_bytes=0, total_ms=0.0, upstream_ms=0.0,
            deadline_ms=None, cost_usd=0.0,
        )  # fmt: skip
        text = b'{"ts":"%b.%03dZ",' + _encode(blank)[1:].replace(b"%", b"%%") + b"\n"
        # Quotes inside of texts are escaped, so that names are found only where they are fields.
        for field, value in _OWN_FIELDS:
            before, name, after = text.partition(field)
            if not name:
                raise AssertionError("an access record's fields have changed their order")
            text = before + value + after
        self._text = text

    def line(self, answered: Answered, offset_s: float, usd_per_s: float) -> bytes:
        """As `encode_line` at that time plus `offset_s`, but with all three digits of each time.

        `usd_per_s` is what the request cost while it lasted.
        """
        request_id, at, total_s, upstream_s, _, size, deadline_ms = answered
        at += offset_s
        second = int(at)
        request_id = request_id.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        stamp = _second_text(second)
        thousandths = (at - second) * 1000
        asked = b"null" if deadline_ms is None else msgspec.json.encode(deadline_ms)
        times, usd = (total_s * 1e3, upstream_s * 1e3), total_s * usd_per_s
        return self._text % (stamp, thousandths, request_id, size, *times, asked, usd)


class AccessLog:
    """Writes access records to `target`: "stderr", "off", or the path of a file.

    `record`, `record_all` and `run` belong to the event loop's thread. `sample` is the share of
    requests without a failure that get a line, all others have one. `catch_up` is called before
    lines are written: whoever records late records them then. `dropped_lines` only grows.
    """

    def __init__(
        self, target: str, wall_clock: Clock, sleep: Sleep = asyncio.sleep, sample: float = 1.0
    ) -> None:
        self.catch_up: Callable[[], None] = lambda: None
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._sample = sample
        self._due = 0.0
        self._writer = None if target == "off" else _Writer(target)
        self._lines: list[bytes] = []
        self._bytes = 0
        self._failing = False
        self.dropped_lines = 0

    @property
    def is_on(self) -> bool:
        """Whether records are written anywhere."""
        return self._writer is not None

    def record(self, record: AccessRecord) -> None:
        """Add a line for one request, or drop and count it when the buffer is full."""
        is_left_out = record.status < _FAILED and not self._is_sampled()
        if self._writer is None or is_left_out:
            return
        if self._bytes >= MAX_BUFFER_BYTES:
            self.dropped_lines += 1
            return
        self._add(encode_line(record, self._wall_clock()))

    def record_all(
        self,
        template: LineTemplate,
        answered: Iterable[Answered],
        now: float,
        usd_per_s: float = 0.0,
    ) -> None:
        """As `record` for each of these; `now` is what the clock of their times says.

        `usd_per_s` is what each cost while it lasted.
        """
        if self._writer is None:
            return
        offset_s = self._wall_clock() - now
        for each in answered:
            if self._sample < 1.0 and template.may_be_left_out and not self._is_sampled():
                continue
            if self._bytes >= MAX_BUFFER_BYTES:
                self.dropped_lines += 1
            else:
                self._add(template.line(each, offset_s, usd_per_s))

    def _is_sampled(self) -> bool:
        """Whether this one is: evenly spread."""
        self._due += self._sample
        if self._due < 1.0:
            return False
        self._due -= 1.0
        return True

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)

    async def run(self) -> None:
        """Write what was recorded every FLUSH_INTERVAL_S until cancelled; then the rest."""
        try:
            while True:
                await self._sleep(FLUSH_INTERVAL_S)
                await self._flush()
        finally:
            await self.close()

    async def close(self) -> None:
        """Write what is left, and close the file. Takes at most about two write time-outs."""
        await self._flush()
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)

    async def _flush(self) -> None:
        self.catch_up()
        if self._writer is None or not self._lines:
            return
        lines, self._lines, self._bytes = self._lines, [], 0
        clock = asyncio.get_running_loop().time
        error, written = await asyncio.to_thread(self._writer.write, lines, clock)
        self.dropped_lines += len(lines) - written
        if error is not None and not self._failing:
            _log.error("access log: lines are being lost: %s", error)
        elif error is None and self._failing:
            _log.warning("access log: written again; %d lines were lost so far", self.dropped_lines)
        self._failing = error is not None


def encode_line(record: AccessRecord, now: float) -> bytes:
    """One line of JSON, newline included; `now` is seconds since 1970. Accepts any text."""
    second = int(now)
    stamp = b'{"ts":"%b.%03dZ",' % (_second_text(second), (now - second) * 1000)
    return stamp + _encode(record)[1:] + b"\n"


def _encode(record: AccessRecord) -> bytes:
    try:
        return msgspec.json.encode(_cut(record))
    except UnicodeEncodeError:  # bytes of a header that are not UTF-8
        return msgspec.json.encode(_cut(_printable(record)))


@lru_cache(maxsize=2)  # formatting a date takes longer than encoding the line
def _second_text(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def _cut(record: AccessRecord) -> AccessRecord:
    if (
        len(record.request_id) <= MAX_TEXT_LENGTH
        and len(record.model) <= MAX_TEXT_LENGTH
        and (record.version is None or len(record.version) <= MAX_TEXT_LENGTH)
        and (record.tenant is None or len(record.tenant) <= MAX_TEXT_LENGTH)
        and (record.cause is None or len(record.cause) <= MAX_TEXT_LENGTH)
    ):
        return record
    texts = {name: getattr(record, name) for name in _CLIENT_TEXT}
    cut = {name: text and text[:MAX_TEXT_LENGTH] for name, text in texts.items()}
    return replace(record, **cut)


def _printable(record: AccessRecord) -> AccessRecord:
    texts = {name: getattr(record, name) for name in _CLIENT_TEXT}
    return replace(
        record,
        **{
            name: text.encode("utf-8", "backslashreplace").decode("utf-8")
            for name, text in texts.items()
            if text is not None
        },
    )


class _Writer:
    """Appends lines to stderr or a file from any thread, and never hangs on a pipe nobody reads."""

    def __init__(self, target: str) -> None:
        self._path = None if target == "stderr" else Path(target)
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


class _PlainFormatter(logging.Formatter):
    """`time level logger message`, times in UTC; one line each, whatever the message contains."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return super().formatMessage(record).translate(_CONTROL)


def configure_logging(level: str) -> None:
    """Send the process's own log events of `level` and above to stderr, as plain lines.

    Replaces what was configured before. Raises ValueError for a level that does not exist.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RepeatLimit())
    handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
