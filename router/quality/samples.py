"""One sampled request: its bytes, whose it was, and what is read of it. Pure.

Not for the event loop: large bodies take long. They are read once and dropped; numbers stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from router.domain.request import AnswerForm
from router.policy.rollback import RollbackParams
from router.quality.drift import DriftParams
from router.quality.features import Features, features_of
from router.quality.predictions import Prediction, Reading, Task, predictions_of
from router.quality.tensors import Answer, Tensor, answer_of, inputs_of
from router.quality.text import read_text

MAX_ID = 200
MAX_VERSION = 50
CLASS = "out:class"
CONFIDENCE = "out:confidence"
VALUE = "out:value"
SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Place:
    """A request's place in a canary's trial: `epoch` changes when the trial begins anew."""

    rule: str
    side: str
    epoch: str
    rollback: RollbackParams | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose answer it was. `version` is what the request named; `place` None outside of trials.

    `is_shadow`: nobody but us has seen it.
    """

    model: str
    version: str
    tenant: str | None = None
    place: Place | None = None
    is_shadow: bool = False

    @property
    def side(self) -> str:
        """The side of a canary, SHADOW, or empty."""
        return SHADOW if self.is_shadow else self.place.side if self.place is not None else ""


@dataclass(frozen=True, slots=True)
class Sample:
    """A request that was answered, as it came and went. `at` is seconds since 1970."""

    origin: Origin
    request_id: str
    form: AnswerForm
    headers: Mapping[str, str]
    body: bytes
    answer: Answer
    at: float

    @property
    def size(self) -> int:
        """The bytes that it holds."""
        return len(self.body) + len(self.answer.body)


@dataclass(frozen=True, slots=True)
class QualityParams:
    """How one model is watched; `share` of its requests (0..1), each of at most `max_bytes`,
    and at most `max_per_s` of them a second.

    `first` requests of a version make its baseline where `baseline_file` is empty. A version
    keeps at most `max_pending` answers for `ttl_s` until their labels come.
    """

    share: float = 0.05
    max_per_s: float = 50.0
    max_bytes: int = 262_144
    max_features: int = 64
    reading: Reading = field(default_factory=Reading)
    drift: DriftParams = field(default_factory=DriftParams)
    first: int = 1000
    baseline_file: str = ""
    ttl_s: float = 86_400.0
    max_pending: int = 20_000
    keep: "KeepParams | None" = None


@dataclass(frozen=True, slots=True)
class KeepParams:
    """Where samples are kept as they are read, how much and for how long; `mask` names tensors."""

    folder: str
    max_bytes: int
    max_age_s: float
    mask: frozenset[str] = frozenset()


class Seen(NamedTuple):
    """What was read of a sample; `answer_id` and `version` are what the answer says of itself."""

    features: Features
    predictions: list[Prediction]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    answer_id: str = ""
    version: str = ""


def read(sample: Sample, params: QualityParams, chosen: int) -> Seen:
    """The features and predictions of a sample. Raises UnreadableAnswerError."""
    if sample.form is AnswerForm.TEXT:
        features, answer_id = read_text(sample.body, sample.answer)
        return Seen(features, [], {}, {}, answer_id)
    inputs = inputs_of(sample.form, sample.headers, sample.body)
    answer = answer_of(sample.form, sample.answer)
    found = seen(inputs, answer.outputs, params, chosen)
    return found._replace(answer_id=answer.id[:MAX_ID], version=answer.version[:MAX_VERSION])


def seen(
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    params: QualityParams,
    chosen: int,
) -> Seen:
    """What tensors show."""
    # An overflow in what a model computed is a finding, not a warning of ours.
    with np.errstate(all="ignore"):
        predictions = predictions_of(params.reading, outputs)
        features = _of_predictions(params.reading, predictions, chosen)
        room = params.max_features - len(features)
        features |= features_of(outputs, "out", chosen, (room + 1) // 2)
        features |= features_of(inputs, "in", chosen, params.max_features - len(features))
    return Seen(features, predictions, inputs, outputs)


def _of_predictions(reading: Reading, predictions: list[Prediction], chosen: int) -> Features:
    if not predictions:
        return {}
    found = predictions[chosen % len(predictions)]
    if reading.task is Task.REGRESSION:
        return {VALUE: found.value}
    features = {CLASS: class_number(found.label, reading.classes)}
    if found.confidence is not None:
        features[CONFIDENCE] = found.confidence
    return features


def class_number(label: str, classes: tuple[str, ...]) -> float:
    """A number that stands for a class: its index, or one made of its name."""
    if label in classes:
        return float(classes.index(label))
    if label.isdecimal() and len(label) < 10:
        return float(label)
    return float(int.from_bytes(label.encode()[:6]) + 2**48)
