"""Traces that tell how many requests came in an interval: arrivals are drawn inside it.

Counts become Poisson arrivals in their interval, or burstier ones if asked, rates become renewal
processes. The same seed draws the same arrivals.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from router.replay.arrivals import (
    UNNAMED,
    Arrivals,
    Dropped,
    Names,
    TraceError,
    Wanted,
    bare,
)
from router.replay.distributions import Floats

MAX_COUNT = 1_000_000_000
_PART_ROWS = 1 << 18
_GATHERED_ROWS = 1 << 12
_MAX_CELLS = 20_000_000
_MINUTE_S = 60.0
_SERVEGEN_WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class Source:
    """What a reader works on; every rate is multiplied by `scale`.

    `burstiness` is the coefficient of variation of the gaps between the arrivals of an interval of
    which only the count is known: they are Gamma, and Poisson arrivals at 1.

    Intervals that are over before what is `wanted` need no arrivals.
    """

    lines: Iterator[str]
    names: Names
    dropped: Dropped
    scale: float
    generator: np.random.Generator
    wanted: Wanted
    burstiness: float = 1.0

    def is_wanted(self, at: float, width_s: float) -> bool:
        """Whether arrivals of that interval are of interest."""
        return at + width_s > self.wanted.from_s

    def scaled(self, count: float) -> int:
        """A whole number that is `count * scale` on average."""
        whole, rest = divmod(count * self.scale, 1.0)
        return int(whole) + (rest > 0 and float(self.generator.random()) < rest)


Read = tuple[Iterator[Arrivals], float]
"""The blocks, and by how many seconds rows may be out of place."""


class CountFormat(NamedTuple):
    """A format: the columns it is known by, and its reader."""

    columns: frozenset[str]
    read: Callable[[Source], Read]


_Drawn = tuple[Floats, int]
"""Times of arrivals, and their model."""


def _gathered(source: Source, drawn: Iterator[_Drawn]) -> Iterator[Arrivals]:
    """Blocks of many rows: intervals of a fleet's models hold few arrivals each."""
    times: list[Floats] = []
    models: list[int] = []
    rows = 0
    for at, model in drawn:
        times.append(at)
        models.append(model)
        rows += len(at)
        # Reading on before it is known what is wanted would draw what nobody needs.
        if rows >= _GATHERED_ROWS or source.wanted.from_s == -math.inf:
            yield _block(times, models)
            times, models, rows = [], [], 0
    if times:
        yield _block(times, models)


def _block(times: list[Floats], models: list[int]) -> Arrivals:
    return bare(np.concatenate(times), np.repeat(models, [len(at) for at in times]))


def _spread(source: Source, at: float, width_s: float, count: int, model: int) -> Iterator[_Drawn]:
    """`count` arrivals at random times of an interval, in parts of bounded size."""
    parts = max(1, math.ceil(count / _PART_ROWS))
    if parts == 1:
        counts = [count]
    else:
        counts = source.generator.multinomial(count, [1 / parts] * parts).tolist()
    for part, rows in enumerate(counts):
        if rows:
            start = at + part * width_s / parts
            yield start + _within(source, rows) * (width_s / parts), model


def _within(source: Source, count: int) -> Floats:
    """The times of so many arrivals in an interval of length 1, in order."""
    if source.burstiness == 1:
        # Given their number, Poisson arrivals are as independent as can be.
        times: Floats = np.sort(source.generator.random(count))
        return times
    gaps = source.generator.gamma(source.burstiness**-2, size=count + 1)
    # The interval may begin anywhere within a gap.
    arrived = np.cumsum(gaps) - gaps[0] * source.generator.random()
    bursty: Floats = np.minimum(arrived[:-1] / max(float(gaps.sum()), 1e-300), 1.0)
    return bursty


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count <= MAX_COUNT:
        raise ValueError("count is out of range")
    return count


# -- t_s,model,count -----------------------------------------------------------------------------


def _counts(source: Source) -> Read:
    rows = _count_rows(source)
    ahead = []
    for row in rows:
        ahead.append(row)
        if row[0] > ahead[0][0]:
            break
        if len(ahead) > _MAX_CELLS:
            raise TraceError("t_s never changes: the length of an interval cannot be found out")
    width_s = ahead[-1][0] - ahead[0][0] if len(ahead) > 1 else 0.0
    width_s = width_s if width_s > 0 else _MINUTE_S

    def drawn() -> Iterator[_Drawn]:
        for pending in (ahead, rows):
            for at, model, count in pending:
                number = source.names.model(model)
                if not source.is_wanted(at, width_s):
                    continue
                yield from _spread(source, at, width_s, source.scaled(count), number)

    return _gathered(source, drawn()), 2 * width_s


def _count_rows(source: Source) -> Iterator[tuple[float, str, int]]:
    rows = csv.DictReader(source.lines)
    for row in rows:
        try:
            at = float(row["t_s"])
            if not math.isfinite(at):
                raise ValueError("t_s is not finite")  # noqa: TRY301
            yield at, row["model"] or UNNAMED, _count(row["count"])
        except (ValueError, TypeError, KeyError) as error:
            source.dropped.add(f"not a count: {type(error).__name__}", rows.line_num)


# -- WorldCup98 (period,count) -------------------------------------------------------------------


def _worldcup(source: Source) -> Read:
    return _gathered(source, _worldcup_drawn(source)), 2 * _MINUTE_S


def _worldcup_drawn(source: Source) -> Iterator[_Drawn]:
    model = source.names.model(UNNAMED)
    rows = csv.DictReader(source.lines)
    for row in rows:
        try:
            moment = datetime.fromisoformat(row["period"]).replace(tzinfo=UTC)
            count = _count(row["count"])
        except (ValueError, TypeError, KeyError) as error:
            source.dropped.add(f"not a count: {type(error).__name__}", rows.line_num)
            continue
        at = moment.timestamp()
        if source.is_wanted(at, _MINUTE_S):
            yield from _spread(source, at, _MINUTE_S, source.scaled(count), model)


# -- Azure Functions 2019 (a row for each function, a column for each minute) ---------------------


def _azure_functions(source: Source) -> Read:
    rows = csv.reader(source.lines)
    header = next(rows, [])
    minutes = [(index, int(name)) for index, name in enumerate(header) if name.isdigit()]
    name_at = header.index("HashFunction")
    counts: list[list[int]] = []
    models: list[int] = []
    for row in rows:
        try:
            counts.append([_count(row[index]) for index, _ in minutes])
            models.append(source.names.model(row[name_at]))
        except (ValueError, IndexError) as error:
            del counts[len(models) :]
            source.dropped.add(f"not a function's counts: {type(error).__name__}", rows.line_num)
        if len(counts) * len(minutes) > _MAX_CELLS:
            raise TraceError(f"more than {_MAX_CELLS} counts in one file")

    def drawn() -> Iterator[_Drawn]:
        for column, (_, minute) in enumerate(minutes):
            for row_counts, model in zip(counts, models, strict=True):
                if row_counts[column] and source.is_wanted(minute * _MINUTE_S, _MINUTE_S):
                    count = source.scaled(row_counts[column])
                    yield from _spread(source, minute * _MINUTE_S, _MINUTE_S, count, model)

    return _gathered(source, drawn()), 2 * _MINUTE_S


# -- ServeGen (a rate and a distribution of gaps for each client and window) ----------------------


class _Stream(NamedTuple):
    client: str
    rate_per_s: float
    gaps: str
    shape: float
    size: float


def _servegen(source: Source) -> Read:
    windows: dict[float, list[_Stream]] = {}
    rows = csv.DictReader(source.lines)
    for number, row in enumerate(rows):
        if number > _MAX_CELLS:
            raise TraceError(f"more than {_MAX_CELLS} rows in one file")
        try:
            rate = float(row["rate_rps"])
            shape, size = float(row["param1"] or 0), float(row["param2"] or 0)
            if not (0 <= rate < MAX_COUNT and math.isfinite(shape) and math.isfinite(size)):
                raise ValueError("out of range")  # noqa: TRY301
            stream = _Stream(row["client"], rate, row["arrival_dist"], shape, size)
            start = float(row["window_start_s"])
        except (ValueError, TypeError, KeyError) as error:
            source.dropped.add(f"not a window: {type(error).__name__}", rows.line_num)
            continue
        windows.setdefault(start, []).append(stream)

    def blocks() -> Iterator[Arrivals]:
        model = source.names.model(UNNAMED)
        for start in sorted(windows):
            if not source.is_wanted(start, _SERVEGEN_WINDOW_S):
                continue
            drawn = [_renewals(source, stream) for stream in windows[start] if stream.rate_per_s]
            times = np.sort(np.concatenate(drawn)) if drawn else np.empty(0)
            for first in range(0, len(times), _PART_ROWS):
                yield bare(start + times[first : first + _PART_ROWS], model)

    return blocks(), 0.0


def _renewals(source: Source, stream: _Stream) -> Floats:
    """Arrivals of one client in one window: gaps of its kind, scaled to its rate, then thinned."""
    copies = [1.0] * int(source.scale) + [source.scale % 1.0] * (source.scale % 1.0 > 0)
    parts = []
    for share in copies:
        times = _one_renewal(source.generator, stream)
        parts.append(times if share == 1 else times[source.generator.random(len(times)) < share])
    return np.concatenate(parts) if parts else np.empty(0)


def _one_renewal(generator: np.random.Generator, stream: _Stream) -> Floats:
    expected = stream.rate_per_s * _SERVEGEN_WINDOW_S
    parts: list[Floats] = []
    at = 0.0
    while at < _SERVEGEN_WINDOW_S:
        gaps = _gaps(generator, stream, max(16, int(expected * 1.1)))
        times = at + np.cumsum(gaps)
        parts.append(times)
        at = float(times[-1])
    times = np.concatenate(parts)
    # A renewal that starts with a gap at the window's edge would come too late on average.
    shift = generator.random() * _SERVEGEN_WINDOW_S
    inside = times[times < _SERVEGEN_WINDOW_S]
    return np.sort((inside + shift) % _SERVEGEN_WINDOW_S)


def _gaps(generator: np.random.Generator, stream: _Stream, count: int) -> Floats:
    mean = 1.0 / stream.rate_per_s
    usable = stream.shape > 0
    if usable and stream.gaps == "Gamma":
        drawn = generator.gamma(stream.shape, 1.0, count) / stream.shape
    elif usable and stream.gaps == "Weibull":
        drawn = generator.weibull(stream.shape, count) / math.gamma(1 + 1 / stream.shape)
    else:
        drawn = generator.exponential(1.0, count)
    gaps: Floats = np.maximum(drawn * mean, 1e-9)
    return gaps


OWN_GAPS = "servegen"
"""The format that says how the gaps between arrivals are distributed."""

FORMATS = {
    "counts": CountFormat(frozenset({"t_s", "model", "count"}), _counts),
    "worldcup": CountFormat(frozenset({"period", "count"}), _worldcup),
    "azure-functions": CountFormat(frozenset({"HashFunction", "Trigger"}), _azure_functions),
    OWN_GAPS: CountFormat(frozenset({"client", "window_start_s", "rate_rps"}), _servegen),
}
