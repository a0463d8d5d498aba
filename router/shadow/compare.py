"""Whether two models gave the same answer: numbers within a tolerance, everything else exactly.

Names, versions, ids and parameters of an answer say nothing about the model and are not compared.
Pure, and for large answers slow: not for the event loop.
"""

from typing import Any, NamedTuple

import numpy as np

from router.domain.request import AnswerForm
from router.quality.tensors import Answer, Array, Tensor, UnreadableAnswerError, outputs_of


class Comparison(NamedTuple):
    """`max_difference` is the largest difference of two finite numbers; `text` tells a mismatch."""

    is_match: bool
    max_difference: float
    text: str = ""


def compare(form: AnswerForm, answer: Answer, shadow: Answer, tolerance: float) -> Comparison:
    """Compare what the client got with what the shadow answered.

    What cannot be read as tensors is the same only byte by byte.
    """
    if answer.status != shadow.status:
        return Comparison(False, 0.0, f"status {shadow.status} instead of {answer.status}")
    try:
        ours, theirs = outputs_of(form, answer), outputs_of(form, shadow)
    except UnreadableAnswerError:
        is_match = answer.body == shadow.body
        return Comparison(is_match, 0.0, "" if is_match else "the bodies differ")
    if ours.keys() != theirs.keys():
        return Comparison(False, 0.0, f"outputs {sorted(theirs)} instead of {sorted(ours)}"[:500])
    found = [_compared(name, ours[name], theirs[name], tolerance) for name in ours]
    largest = max((each.max_difference for each in found), default=0.0)
    differing = next((each for each in found if not each.is_match), None)
    return Comparison(differing is None, largest, differing.text if differing is not None else "")


def _compared(name: str, ours: Tensor, theirs: Tensor, tolerance: float) -> Comparison:
    named = f"output {name[:100]!r}"
    if (ours.datatype, ours.shape) != (theirs.datatype, theirs.shape):
        text = f"{named} is {theirs.datatype}{theirs.shape}, not {ours.datatype}{ours.shape}"
        return Comparison(False, 0.0, text[:500])
    if isinstance(ours.data, list) or isinstance(theirs.data, list):
        is_match = ours.data == theirs.data
        return Comparison(is_match, 0.0, "" if is_match else f"{named} differs")
    if ours.data.size != theirs.data.size:
        return Comparison(False, 0.0, f"{named} has {theirs.data.size} numbers")
    return _numbers(named, ours.data, theirs.data, tolerance)


def _numbers(named: str, ours: Array, theirs: Array, tolerance: float) -> Comparison:
    if np.array_equal(ours, theirs):
        return Comparison(True, 0.0)
    # Differences of unsigned numbers wrap around, and those of halves overflow.
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    same = np.isclose(b, a, rtol=tolerance, atol=tolerance, equal_nan=True)
    if np.issubdtype(ours.dtype, np.bool_):
        same = ours == theirs
    differing = int(same.size - np.count_nonzero(same))
    if not differing:
        return Comparison(True, _largest(a, b))
    largest = _largest(a, b)
    text = f"{named}: {differing} of {same.size} numbers differ, by up to {largest:.3g}"
    return Comparison(False, largest, text)


def _largest(a: Any, b: Any) -> float:  # noqa: ANN401 - arrays of float64
    both = np.isfinite(a) & np.isfinite(b)
    with np.errstate(over="ignore"):
        return float(np.max(np.abs(a[both] - b[both]), initial=0.0))
