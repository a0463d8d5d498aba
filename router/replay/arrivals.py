"""Stretches of a trace as columns: how they are put in order, scaled, cut and named.

Works on blocks of bounded size; knows no file format. What is left out is counted and named.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from router.replay.distributions import Floats, Ints

UNNAMED = "*"
"""The model of traces that name none."""

BLOCK_ROWS = 1 << 16
MAX_MODELS = 10_000
_MAX_NAMED = 20


class TraceError(Exception):
    """The trace cannot be read at all; the message says why."""


@dataclass(slots=True)
class Dropped:
    """Rows that were left out, by reason, with the line of the first one."""

    counts: dict[str, int] = field(default_factory=dict)
    first_lines: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, line: int = 0, rows: int = 1) -> None:
        """Count rows; reasons beyond a bound are counted together."""
        if reason not in self.counts and len(self.counts) >= _MAX_NAMED:
            reason = "other reasons"
        self.counts[reason] = self.counts.get(reason, 0) + rows
        if line:
            self.first_lines.setdefault(reason, line)

    @property
    def total(self) -> int:
        """All rows that were left out."""
        return sum(self.counts.values())

    def told(self) -> list[str]:
        """One line for each reason."""
        return [
            f"{count:,} rows left out: {reason}"
            + (f" (first in line {line})" if (line := self.first_lines.get(reason)) else "")
            for reason, count in self.counts.items()
        ]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests as columns. `at` is in seconds; unknown is -1 for sizes, NaN for the others.

    `model` and `sender` index into `Names`; `deadline_s` counts from the arrival; `draw` in
    [0, 1) is what weighted rules go by, where the trace tells it.
    """

    at: Floats
    model: Ints
    payload_bytes: Ints
    deadline_s: Floats
    sender: Ints
    draw: Floats

    def __len__(self) -> int:
        return len(self.at)

    def take(self, chosen: "Ints | slice") -> "Arrivals":
        """The chosen rows, in that order."""
        return Arrivals(
            self.at[chosen],
            self.model[chosen],
            self.payload_bytes[chosen],
            self.deadline_s[chosen],
            self.sender[chosen],
            self.draw[chosen],
        )


@dataclass(frozen=True, slots=True)
class Sender:
    """What rules may ask of a request besides model and size."""

    tenant: str | None = None
    version: str | None = None


@dataclass(slots=True)
class Names:
    """Models and senders that a trace has named so far, and their numbers."""

    models: dict[str, int] = field(default_factory=dict)
    senders: dict[Sender, int] = field(default_factory=lambda: {Sender(): 0})

    def model(self, name: str) -> int:
        """The model's number. Raises TraceError when there are too many."""
        number = self.models.get(name)
        if number is None:
            if len(self.models) >= MAX_MODELS:
                raise TraceError(f"the trace names more than {MAX_MODELS} models")
            number = self.models[name] = len(self.models)
        return number

    def sender(self, tenant: str | None, version: str | None) -> int:
        """The sender's number; those beyond a bound count as unknown."""
        sender = Sender(tenant, version)
        if len(self.senders) >= MAX_MODELS:
            return self.senders.get(sender, 0)
        return self.senders.setdefault(sender, len(self.senders))


def bare(at: Floats, model: Ints | int) -> Arrivals:
    """Arrivals of which nothing but time and model is known."""
    rows = len(at)
    models = np.full(rows, model) if isinstance(model, int) else model
    unknown = np.full(rows, np.nan)
    return Arrivals(at, models, np.full(rows, -1), unknown, np.zeros(rows, np.int64), unknown)


def joined(parts: list[Arrivals]) -> Arrivals:
    """One stretch of several."""
    return Arrivals(
        np.concatenate([part.at for part in parts]),
        np.concatenate([part.model for part in parts]),
        np.concatenate([part.payload_bytes for part in parts]),
        np.concatenate([part.deadline_s for part in parts]),
        np.concatenate([part.sender for part in parts]),
        np.concatenate([part.draw for part in parts]),
    )


def ordered(blocks: Iterable[Arrivals], slack_s: float, dropped: Dropped) -> Iterator[Arrivals]:
    """Rows sorted by time; those more than `slack_s` out of place are dropped and counted."""
    waiting: list[Arrivals] = []
    rows_waiting = 0  # counted: blocks may be tiny and many
    newest, released = -np.inf, -np.inf
    for block in blocks:
        timely = block.at >= released
        if not timely.all():
            dropped.add(f"out of order by more than {slack_s:g} s", rows=int((~timely).sum()))
            block = block.take(np.flatnonzero(timely))  # noqa: PLW2901
        if not len(block):
            continue
        waiting.append(block)
        rows_waiting += len(block)
        newest = max(newest, float(block.at.max()))
        if rows_waiting < BLOCK_ROWS:
            continue
        rows = _sorted(waiting)
        cut = int(np.searchsorted(rows.at, newest - slack_s, side="right"))
        if cut:
            released = newest - slack_s
            yield rows.take(slice(0, cut))
        waiting, rows_waiting = [rows.take(slice(cut, None))], len(rows) - cut
    if rows_waiting:
        yield _sorted(waiting)


def _sorted(parts: list[Arrivals]) -> Arrivals:
    rows = joined(parts) if len(parts) > 1 else parts[0]
    return rows.take(np.argsort(rows.at, kind="stable"))


def multiplied(
    blocks: Iterable[Arrivals], scale: float, generator: np.random.Generator
) -> Iterator[Arrivals]:
    """Every request `scale` times on average; copies follow within a second."""
    whole, rest = divmod(scale, 1.0)
    for block in blocks:
        copies = int(whole) + (generator.random(len(block)) < rest)
        rows = np.repeat(np.arange(len(block)), copies)
        scaled = block.take(rows)
        is_copy = np.concatenate([[False], rows[1:] == rows[:-1]]) if len(rows) else rows == 0
        later = scaled.at + np.where(is_copy, generator.random(len(rows)), 0.0)
        yield Arrivals(later, *_others(scaled))


def _others(block: Arrivals) -> tuple[Ints, Ints, Floats, Ints, Floats]:
    return block.model, block.payload_bytes, block.deadline_s, block.sender, block.draw


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a trace is meant: seconds from its first arrival, or the trace's own time."""

    start_s: float = -np.inf
    end_s: float = np.inf
    is_absolute: bool = False


@dataclass(slots=True)
class Wanted:
    """From when on arrivals are of interest; readers may leave out what comes before."""

    from_s: float = -np.inf


def within(blocks: Iterable[Arrivals], span: Span, wanted: Wanted) -> Iterator[Arrivals]:
    """The part in the span, with times counted from its start (or from the first arrival).

    `wanted` is told where that is, once it is known.
    """
    if span.is_absolute:
        wanted.from_s = span.start_s
    bounds: tuple[float, float] | None = None
    for block in blocks:
        if not len(block):
            continue
        if bounds is None:
            first_at = float(block.at[0])
            offset = 0.0 if span.is_absolute else first_at
            starts = np.isfinite(span.start_s)
            bounds = span.start_s + offset if starts else first_at, span.end_s + offset
            wanted.from_s = bounds[0]
        start, end = bounds
        first, last = np.searchsorted(block.at, [start, end])
        if first < last:
            part = block.take(slice(first, last))
            yield Arrivals(part.at - start, *_others(part))
        if last < len(block):
            return
