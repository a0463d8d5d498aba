"""Baselines and samples as files, and as they travel between gateways.

Whatever a file or a peer says is checked; raises nothing but BaselineError.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from router.quality.bins import Bins, Scale
from router.quality.drift import MAX_BASELINE, Baseline, Columns, Counted, baseline_of
from router.quality.features import Features

MAX_FILE_BYTES = 16 << 20
MAX_FEATURES = 1000
MAX_LINE_BYTES = 4 << 20

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
_Points = Annotated[list[float], msgspec.Meta(max_length=64)]


class BaselineError(ValueError):
    """A baseline that cannot be read or believed; the message says why."""


class CountedForm(msgspec.Struct, forbid_unknown_fields=True):
    """One feature of a baseline, as JSON."""

    scale: Scale
    points: _Points
    low: float
    high: float
    counts: Annotated[list[_Count], msgspec.Meta(max_length=70)]


class BaselineForm(msgspec.Struct, forbid_unknown_fields=True):
    """A baseline, as JSON."""

    source: Annotated[str, msgspec.Meta(max_length=500)]
    made_at: float
    samples: _Count
    features: Annotated[dict[_Name, CountedForm], msgspec.Meta(max_length=MAX_FEATURES)]


_BASELINE = msgspec.json.Decoder(BaselineForm)


def form_of(baseline: Baseline) -> BaselineForm:
    """A baseline as it is written."""
    features = {
        name: CountedForm(
            known.bins.scale, list(known.bins.points), known.bins.low, known.bins.high,
            known.counts.tolist(),
        )
        for name, known in baseline.features.items()
    }  # fmt: skip
    return BaselineForm(baseline.source, baseline.made_at, baseline.samples, features)


def baseline_from(form: BaselineForm) -> Baseline:
    """The baseline of what was written. Raises BaselineError."""
    features = {name: _counted(name, each) for name, each in form.features.items()}
    return Baseline(form.source, form.made_at, form.samples, features)


def _counted(name: str, form: CountedForm) -> Counted:
    bins = Bins(form.scale, tuple(form.points), form.low, form.high)
    numbers = np.array([*form.points, form.low, form.high])
    in_order = all(a < b for a, b in zip(form.points, form.points[1:], strict=False))
    if len(form.counts) != bins.size or not np.isfinite(numbers).all() or not in_order:
        raise BaselineError(f"feature {name[:100]!r} does not fit its cells")
    return Counted(bins, np.array(form.counts, np.int64))


def encode(baseline: Baseline) -> bytes:
    """A baseline as JSON."""
    return msgspec.json.encode(form_of(baseline))


def decode(text: bytes) -> Baseline:
    """The baseline of JSON. Raises BaselineError."""
    try:
        return baseline_from(_BASELINE.decode(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BaselineError(f"it is not a baseline: {error}") from error


def read_baseline(path: Path) -> Baseline:
    """The baseline of a file. Raises BaselineError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BaselineError(f"{path}: {error.strerror}") from error
    if len(text) > MAX_FILE_BYTES:
        raise BaselineError(f"{path}: over {MAX_FILE_BYTES} bytes")
    return decode(text)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline, whole or not at all. Raises OSError."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(encode(baseline))
    partial.replace(path)


def lines_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The JSON objects of a file's lines, with their numbers. Raises BaselineError."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
    except OSError as error:
        raise BaselineError(f"{path}: {error.strerror}") from error


def _object(line: bytes, where: str) -> Mapping[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise BaselineError(f"{where}: over {MAX_LINE_BYTES} bytes")
    try:
        found = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BaselineError(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BaselineError(f"{where}: not an object")
    return found


def baseline_from_samples(
    samples: Iterator[Features], source: str, made_at: float, most_features: int
) -> Baseline:
    """The baseline of samples, MAX_BASELINE of them spread over all. Raises BaselineError."""
    kept: list[Features] = []
    step = 1
    for number, features in enumerate(samples):
        if number % step == 0:
            kept.append(features)
        if len(kept) >= 2 * MAX_BASELINE:
            kept, step = kept[::2], step * 2
    columns = Columns(most_features)
    for features in kept:
        columns.add(features)
    if not columns.samples:
        raise BaselineError(f"{source}: no sample in it")
    return baseline_of(columns, source, made_at)
