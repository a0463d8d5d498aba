"""What is kept of an answer until its label comes: the few numbers that the metrics need. Pure."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from router.quality.features import rows_of
from router.quality.scores import Classified, Scores
from router.quality.tensors import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

MAX_ROWS = 32
"""Predictions kept of one answer; labels of later rows of its batch find none."""
MAX_CLASSES = 32
"""Of more classes only the likeliest is kept, and no log loss or Brier score is known."""
MAX_LABEL = 64


class Task(StrEnum):
    """What a model's answers are, and so what a label says about them."""

    NONE = "none"
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class Prediction(NamedTuple):
    """What a model said of one row: a class or a number.

    `confidence` is the class's probability, `probabilities` those of all classes, as float32.
    """

    label: str = ""
    value: float = 0.0
    confidence: float | None = None
    probabilities: "array[float] | None" = None  # arrays take no [] before Python 3.12


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model's output is understood.

    `output` empty: the only output, or the first by name. `classes` name what indices stand for.
    `tolerance` is the error up to which a number is right.
    """

    task: Task = Task.NONE
    output: str = ""
    classes: tuple[str, ...] = ()
    tolerance: float = 0.0


class LabelError(ValueError):
    """A label that does not fit the model's answers."""


def predictions_of(reading: Reading, outputs: Mapping[str, Tensor]) -> list[Prediction]:
    """What an answer says, row by row; nothing where it has not the form that was configured."""
    name = reading.output or min(outputs, default="")
    tensor = outputs.get(name)
    rows = rows_of(tensor) if tensor is not None else 0
    if tensor is None or not rows or reading.task is Task.NONE:
        return []
    width = len(tensor.data) // rows
    parts = [tensor.data[at * width : (at + 1) * width] for at in range(min(rows, MAX_ROWS))]
    if reading.task is Task.REGRESSION:
        found = [_number(part) for part in parts]
    else:
        found = [_class(part, reading.classes) for part in parts]
    return [each for each in found if each is not None] if None not in found else []


def _number(row: Array | list[bytes]) -> Prediction | None:
    if isinstance(row, list) or len(row) != 1 or not np.isfinite(row[0]):
        return None
    return Prediction(value=float(row[0]))


def _class(row: Array | list[bytes], classes: tuple[str, ...]) -> Prediction | None:
    if isinstance(row, list):
        return Prediction(row[0].decode(errors="replace")[:MAX_LABEL]) if len(row) == 1 else None
    if not len(row) or not np.all(np.isfinite(row)):
        return None
    if len(row) == 1 and not np.issubdtype(row.dtype, np.floating):
        return Prediction(class_name(int(row[0]), classes))
    given = row.astype(np.float64)
    if len(given) == 1:
        positive = float(given[0])
        if not 0 <= positive <= 1:
            return None
        given = np.array([1 - positive, positive])
    shares = as_probabilities(given)
    best = int(np.argmax(shares))
    kept = array("f", shares) if len(shares) <= MAX_CLASSES else None
    return Prediction(class_name(best, classes), 0.0, float(shares[best]), kept)


def as_probabilities(scores: Array) -> Array:
    """The scores if they are probabilities, else their softmax."""
    if scores.min() >= 0 and abs(scores.sum() - 1) < 1e-3:
        return np.minimum(scores, 1.0)
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()  # type: ignore[no-any-return]


def class_name(index: int, classes: tuple[str, ...]) -> str:
    """What a class is called; its index where it has no name."""
    return classes[index] if 0 <= index < len(classes) else str(index)


def truth_of(reading: Reading, label: object) -> str | float:
    """What a label says: the name of a class or a number.

    Raises LabelError for one that says nothing about such a model's answers.
    """
    if reading.task is Task.NONE:
        raise LabelError("this model has no task that labels fit: send a score, or correct")
    if reading.task is Task.REGRESSION:
        if isinstance(label, bool) or not isinstance(label, int | float):
            raise LabelError("the label of this model is a number")
        return _finite(label)
    if not isinstance(label, str | int):
        raise LabelError("the label of this model is the name or the index of a class")
    return _label_name(label, reading.classes)


def judge(reading: Reading, prediction: Prediction, truth: str | float, scores: Scores) -> float:
    """Count a prediction and what was true; returns the loss (0 right, 1 wrong)."""
    if isinstance(truth, float):
        scores.predicted(truth, prediction.value, reading.tolerance)
        return float(abs(truth - prediction.value) > reading.tolerance)
    scores.classified(_classified(truth, prediction, reading.classes))
    return float(truth != prediction.label)


def _finite(label: float) -> float:
    try:
        truth = float(label)
    except OverflowError:
        truth = float("inf")
    if not abs(truth) < 1e150:  # also of NaN; its square is finite
        raise LabelError("the label is not a finite number")
    return truth


def _label_name(label: str | int, classes: tuple[str, ...]) -> str:
    if isinstance(label, str):
        return label[:MAX_LABEL]
    if not -(2**63) <= label < 2**64:
        raise LabelError("the label is not the index of a class")
    return class_name(int(label), classes)


def _classified(truth: str, prediction: Prediction, classes: tuple[str, ...]) -> Classified:
    found = Classified(truth, prediction.label, prediction.confidence)
    shares = prediction.probabilities
    if shares is None:
        return found
    names = [class_name(index, classes) for index in range(len(shares))]
    squares = sum(share * share for share in shares)
    p_truth = shares[names.index(truth)] if truth in names else 0.0
    if len(shares) != 2:
        return found._replace(p_truth=p_truth, squares=squares)
    return found._replace(
        p_truth=p_truth, squares=squares, p_positive=shares[1], is_positive=truth == names[1]
    )
