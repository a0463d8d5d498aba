"""Trace files: which format one has, and its rows as blocks of arrivals.

Reads access logs, CSV and the published formats, plain or gzipped, in bounded memory. Bad rows are
counted and named. Never decides which rows are of interest.
"""

import csv
import gzip
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec
import numpy as np

from router.replay import count_traces
from router.replay.arrivals import (
    BLOCK_ROWS,
    UNNAMED,
    Arrivals,
    Dropped,
    Names,
    Span,
    TraceError,
    Wanted,
    multiplied,
    ordered,
    within,
)

Lines = Iterator[str]
OnProgress = Callable[[int], None]
"""Told the bytes of the file that have been read so far."""

MAX_LINE_CHARS = 1 << 20
_BYTES_PER_TOKEN = 4
_MAX_PAYLOAD_BYTES = 1 << 40


class _Row(NamedTuple):
    at: float
    model: str
    payload_bytes: int = -1
    deadline_s: float = float("nan")
    tenant: str | None = None
    version: str | None = None
    draw: float = float("nan")


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """What to read of a trace, and how often. `seed` is of all that is drawn while reading."""

    span: Span = field(default_factory=Span)
    scale: float = 1.0
    seed: int = 1
    burstiness: float = 1.0


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace file of a known format."""

    path: Path
    format: str
    options: TraceOptions

    @property
    def size_bytes(self) -> int:
        """The size of the file."""
        return self.path.stat().st_size

    @property
    def counts_only(self) -> bool:
        """Whether it tells how many requests came in an interval, but not when."""
        return self.format in count_traces.FORMATS and self.format != count_traces.OWN_GAPS

    def read(
        self, names: Names, dropped: Dropped, on_progress: OnProgress = lambda _bytes: None
    ) -> Iterator[Arrivals]:
        """Blocks in the order of time, from the start of the span; the same at every reading."""
        generator, wanted = np.random.default_rng([self.options.seed, 0]), Wanted()
        with opened(self.path, on_progress) as lines:
            if self.format in _ROW_FORMATS:
                form = _ROW_FORMATS[self.format]
                blocks = _blocks(form.rows(lines, dropped), names)
                if self.options.scale != 1:
                    blocks = multiplied(blocks, self.options.scale, generator)
                slack_s = form.slack_s
            else:
                scale, burstiness = self.options.scale, self.options.burstiness
                source = count_traces.Source(
                    lines, names, dropped, scale, generator, wanted, burstiness
                )
                blocks, slack_s = count_traces.FORMATS[self.format].read(source)
            yield from within(ordered(blocks, slack_s, dropped), self.options.span, wanted)


def open_trace(path: Path, options: TraceOptions, format: str | None = None) -> Trace:
    """The trace in a file; `format` None: found out. Raises TraceError."""
    try:
        with opened(path) as lines:
            first = next(lines, "")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    return Trace(path, format or _format_of(first, path), options)


def format_names() -> list[str]:
    """All formats."""
    return [*_ROW_FORMATS, *count_traces.FORMATS]


def _format_of(first_line: str, path: Path) -> str:
    if first_line.lstrip().startswith("{"):
        return "access-log"
    columns = set(next(csv.reader([first_line]), []))
    for name, needed in _columns().items():
        if needed <= columns:
            return name
    known = "; ".join(f"{name}: {','.join(sorted(need))}" for name, need in _columns().items())
    raise TraceError(
        f"{path}: not a known format. It should hold JSON lines of the access log, or begin with"
        f" a line naming the columns of one of: {known}"
    )


def _columns() -> dict[str, frozenset[str]]:
    rows = {name: form.columns for name, form in _ROW_FORMATS.items() if form.columns}
    return rows | {name: form.columns for name, form in count_traces.FORMATS.items()}


@contextmanager
def opened(path: Path, on_progress: OnProgress = lambda _bytes: None) -> Iterator[Lines]:
    """The lines of a file, plain or gzipped. Raises OSError and EOFError, also while reading."""
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        binary = gzip.GzipFile(fileobj=raw) if is_gzip else raw
        text = io.TextIOWrapper(
            io.BufferedReader(binary) if is_gzip else binary,
            encoding="utf-8-sig", errors="replace", newline="",
        )  # fmt: skip
        yield _lines(text, raw, on_progress)
        text.detach()


def _lines(text: io.TextIOWrapper, raw: io.BufferedReader, on_progress: OnProgress) -> Lines:
    for number in itertools.count():
        line = text.readline(MAX_LINE_CHARS)
        if not line:
            return
        if number % 8192 == 0:
            on_progress(raw.tell())
        yield line


def _blocks(rows: Iterable[_Row], names: Names) -> Iterator[Arrivals]:
    while chunk := list(itertools.islice(rows, BLOCK_ROWS)):
        at, models, sizes, deadlines, tenants, versions, draws = zip(*chunk, strict=True)
        yield Arrivals(
            np.array(at),
            np.fromiter(map(names.model, models), np.int64, len(chunk)),
            np.array(sizes, np.int64),
            np.array(deadlines),
            np.fromiter(map(names.sender, tenants, versions), np.int64, len(chunk)),
            np.array(draws),
        )


def seconds(text: str) -> float:
    """A point in time: a number of seconds, or ISO 8601 (UTC where it says nothing).

    Raises ValueError.
    """
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not np.isfinite(number):
        raise ValueError(f"{text} is not a point in time")
    return number


# -- formats with one row for each request -------------------------------------------------------


class _LogLine(msgspec.Struct, gc=False):
    """What is used of a line of the access log."""

    ts: str
    request_id: str
    model: str
    payload_bytes: int
    outcome: str
    total_ms: float
    version: str | None = None
    tenant: str | None = None
    deadline_ms: float | None = None


_NOT_OFFERED = frozenset({"client_error", "rate_limited", "internal_error"})
"""Outcomes of requests that never came to a decision."""


def _access_log(lines: Lines, dropped: Dropped) -> Iterator[_Row]:
    decode = msgspec.json.Decoder(_LogLine).decode
    nan = float("nan")
    for number, line in enumerate(lines, 1):
        try:
            entry = decode(line)
            if entry.outcome in _NOT_OFFERED:
                dropped.add(f"outcome {entry.outcome}: never came to a decision", number)
                continue
            if not entry.payload_bytes:
                dropped.add("no body: a question about a model, not an inference", number)
                continue
            yield _Row(
                seconds(entry.ts) - entry.total_ms / 1000,
                entry.model,
                _size(entry.payload_bytes),
                nan if entry.deadline_ms is None else entry.deadline_ms / 1000,
                entry.tenant,
                entry.version,
                crc32(entry.request_id.encode()) / 2**32,
            )
        except (msgspec.DecodeError, ValueError) as error:
            if line.strip():
                dropped.add(f"not a line of the access log: {_short(error)}", number)


def _csv(lines: Lines, dropped: Dropped) -> Iterator[_Row]:
    rows = csv.DictReader(lines)
    for row in rows:
        try:
            deadline = row.get("deadline_ms") or ""
            yield _Row(
                seconds(row["timestamp"]),
                _named(row["model"]),
                _size(int(row["payload_bytes"])) if row.get("payload_bytes") else -1,
                float(deadline) / 1000 if deadline else float("nan"),
                row.get("tenant") or None,
            )
        except (ValueError, TypeError, KeyError) as error:
            dropped.add(f"not a request: {_short(error)}", rows.line_num)


def _azure_llm(lines: Lines, dropped: Dropped) -> Iterator[_Row]:
    rows = csv.DictReader(lines)
    for row in rows:
        try:
            size = int(row["ContextTokens"]) * _BYTES_PER_TOKEN
            yield _Row(seconds(row["TIMESTAMP"]), UNNAMED, _size(size))
        except (ValueError, TypeError, KeyError) as error:
            dropped.add(f"not a request: {_short(error)}", rows.line_num)


def _named(model: str | None) -> str:
    if model is None:
        raise ValueError("the row is too short")
    return model or UNNAMED


def _size(payload_bytes: int) -> int:
    if not 0 <= payload_bytes <= _MAX_PAYLOAD_BYTES:
        raise ValueError("payload_bytes is out of range")
    return payload_bytes


def _short(error: Exception) -> str:
    # Without the value, so that equal mistakes count as one reason.
    text = str(error).partition(":")[0]
    return f"{type(error).__name__}: {text}"[:100]


class _RowFormat(NamedTuple):
    columns: frozenset[str]
    rows: Callable[[Lines, Dropped], Iterator[_Row]]
    slack_s: float


_ROW_FORMATS = {
    # Lines are written when requests end, so they are out of place by what those took.
    "access-log": _RowFormat(frozenset(), _access_log, 300.0),
    "csv": _RowFormat(frozenset({"timestamp", "model"}), _csv, 60.0),
    "azure-llm": _RowFormat(frozenset({"TIMESTAMP", "ContextTokens"}), _azure_llm, 60.0),
}
