"""What is watched of a request and its answer: a few numbers by name, of one row.

One row of a batch, because those of one client's batch resemble each other, and tests of
distributions count on samples that do not. A small tensor gives its numbers, a large one what sums
it up and one number of it at random. Pure; never raises, whatever a tensor says of its shape.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any
from zlib import crc32

import numpy as np

from router.quality.tensors import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
Features = dict[str, float]

SMALL = 8
"""A row of at most so many numbers is watched number by number."""
MAX_NAME = 60


def features_of(tensors: Mapping[str, Tensor], side: str, chosen: int, most: int) -> Features:
    """At most so many features; `chosen` is a large random number, `side` tells in from out."""
    found: Features = {}
    for name in sorted(tensors):
        for feature, value in _features(tensors[name], chosen):
            if len(found) >= most:
                return found
            found[f"{side}:{name[:MAX_NAME]}{feature}"] = value
    return found


def _features(tensor: Tensor, chosen: int) -> Iterator[tuple[str, float]]:
    rows = rows_of(tensor)
    size = len(tensor.data)
    if not rows or not size:
        return
    width = size // rows
    at = chosen % rows
    row = tensor.data[at * width : (at + 1) * width]
    if isinstance(row, list):
        yield from _of_text(row[chosen % width])
    elif width <= SMALL:
        for index, value in enumerate(row.astype(np.float64)):
            yield ("" if width == 1 else f"[{index}]"), float(value)
    else:
        yield from _of_many(row.astype(np.float64), chosen)


def rows_of(tensor: Tensor) -> int:
    """How many rows a tensor has; 0 if its shape is not that of its numbers."""
    if any(each < 0 for each in tensor.shape) or prod(tensor.shape) != len(tensor.data):
        return 0
    return tensor.shape[0] if tensor.shape else 1


def _of_text(text: bytes) -> Iterator[tuple[str, float]]:
    yield "#bytes", float(len(text))
    is_foreign = np.frombuffer(text, np.uint8) > 127
    yield "#foreign", float(is_foreign.mean()) if text else 0.0
    yield "#hash", float(crc32(text))


def _of_many(row: Array, chosen: int) -> Iterator[tuple[str, float]]:
    is_finite = np.isfinite(row)
    finite = row if is_finite.all() else row[is_finite]
    yield "#nans", 1.0 - len(finite) / len(row)
    yield "#any", float(row[chosen % len(row)])
    if len(finite) < 2:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.std(finite))
        yield "#mean", float(np.mean(finite))
        yield "#std", spread
        yield "#min", float(np.min(finite))
        yield "#max", float(np.max(finite))
        yield "#zeros", 1.0 - float(np.count_nonzero(finite)) / len(finite)
        # How rough it is: blur makes neighbours alike.
        steps = float(np.mean(np.abs(np.diff(finite))))
        yield "#rough", steps / spread if spread > 0 else 0.0
