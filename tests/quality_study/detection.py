"""After how many samples a shift of the demo models' inputs is found, and what chance finds."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import onnxruntime

from router.quality.drift import Columns, DriftParams, alarms, baseline_of, counts_of
from router.quality.features import Features
from router.quality.predictions import Reading, Task
from router.quality.samples import QualityParams, seen
from router.quality.subject import Subject
from router.quality.tensors import Tensor
from tests.quality_study.inputs import files, pictures, sentences
from workers.demo.inputs import Arrays
from workers.demo.wordpiece import load_wordpiece

BASELINE = 500
WINDOW = 100
_TYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Experiment:
    """A model, its ordinary inputs, shifted ones, and in words what was done to them."""

    model: str
    shift: str
    usual: Iterator[Arrays]
    shifted: Iterator[Arrays]
    reading: Reading


def experiments(models: Path, catalogues: list[Path]) -> Iterator[Experiment]:
    """One for each demo model; without catalogues of messages, none of minilm."""
    yield Experiment(
        "magika", "bytecode instead of sources, of Python's own library",
        files(".py", Random(1)), files(".pyc", Random(2)),
        Reading(Task.CLASSIFICATION, "target_label"),
    )  # fmt: skip
    if catalogues:
        tokens = load_wordpiece(models / "minilm/1/tokenizer.json")
        yield Experiment(
            "minilm", "messages in German instead of English",
            sentences(catalogues, Random(1), tokens, translated=False),
            sentences(catalogues, Random(2), tokens, translated=True),
            Reading(),
        )  # fmt: skip
    yield Experiment(
        "textdet", "pictures blurred over 5 pixels", pictures(Random(1)),
        pictures(Random(2), blur=5), Reading(),
    )  # fmt: skip


class Model:
    """A demo model, run in this process."""

    def __init__(self, models: Path, name: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = models / name / "1/model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def features(self, inputs: Arrays, params: QualityParams, chosen: int) -> Features:
        """What the gateway would watch of a request with these inputs, and its answer."""
        answers = self._session.run(self._outputs, dict(inputs))
        outputs = dict(zip(self._outputs, answers, strict=True))
        found = seen(_tensors(inputs), _tensors(outputs), params, chosen)
        return found.features


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {
        name: Tensor(_TYPES.get(str(each.dtype), "FP32"), each.shape, each.reshape(-1))
        for name, each in arrays.items()
    }


@dataclass(frozen=True)
class Detection:
    """What came of one experiment. `shares` of shifted requests, and the samples each needed."""

    model: str
    shift: str
    features: int
    false_looks: int
    looks: int
    needed: dict[float, int | None]
    named: list[str]


def detect(
    experiment: Experiment, models: Path, usual: int, shares: tuple[float, ...]
) -> tuple[Detection, list[Features]]:
    """Run one experiment; also the features of the usual requests, for simulations."""
    params = QualityParams(
        reading=experiment.reading, first=BASELINE, drift=DriftParams(samples=WINDOW)
    )
    model, rng = Model(models, experiment.model), Random(3)
    before = [
        model.features(next(experiment.usual), params, rng.getrandbits(48))
        for _ in range(BASELINE + usual)
    ]
    after = [
        model.features(next(experiment.shifted), params, rng.getrandbits(48))
        for _ in range(3 * WINDOW)
    ]
    subject, false_looks = Subject(params, None, 0.0), 0
    for at, features in enumerate(before):
        false_looks += bool(subject.sample(features, at * _HOUR_S / WINDOW))
    needed: dict[float, int | None] = {}
    named: list[str] = []
    for share in shares:
        needed[share], first = _needed(params, before, after, share)
        named = first or named
    looks = subject.window.looks if subject.window is not None else 0
    counted = len(subject.baseline.features) if subject.baseline is not None else 0
    detection = Detection(
        experiment.model, experiment.shift, counted, false_looks, looks, needed, named
    )
    return detection, before


def _needed(
    params: QualityParams, before: list[Features], after: list[Features], share: float
) -> tuple[int | None, list[str]]:
    """Samples until the alarm, when such a share of the requests is shifted; None: not found."""
    rng, subject = Random(4), Subject(params, None, 0.0)
    for at, features in enumerate(before[:BASELINE]):
        subject.sample(features, at * _HOUR_S / WINDOW)
    mixed = [
        rng.choice(after) if rng.random() < share else rng.choice(before[BASELINE:])
        for _ in range(20 * WINDOW)
    ]
    for at, features in enumerate(mixed, 1):
        found = subject.sample(features, (BASELINE + at) * _HOUR_S / WINDOW)
        if found:
            return at, [alarm.feature for alarm in sorted(found, key=lambda alarm: alarm.p)][:3]
    return None, []


def false_weeks(
    usual: list[Features], weeks: int, per_week: float, least_psi: float, seed: int
) -> tuple[int, int]:
    """Weeks with an alarm, and alarms, of weeks whose requests are drawn from the same ones.

    Each week has a baseline of its own, and a look an hour.
    """
    rng = np.random.default_rng(seed)
    table = _table(usual)
    bad_weeks = all_alarms = 0
    for _ in range(weeks):
        baseline = baseline_of(_drawn(table, BASELINE, rng), "", 0.0)
        found = 0
        for _ in range(168):
            counts = counts_of(baseline, _drawn(table, WINDOW, rng))
            found += len(alarms(baseline, counts, per_week / 168, least_psi, 0.0))
        bad_weeks += bool(found)
        all_alarms += found
    return bad_weeks, all_alarms


def _table(usual: list[Features]) -> Columns:
    table = Columns(1000)
    for features in usual:
        table.add(features)
    return table


def _drawn(table: Columns, number: int, rng: np.random.Generator) -> Columns:
    rows = rng.integers(0, table.samples, number)
    drawn = Columns(1000, number)
    for name, column in table.values.items():
        values = np.frombuffer(column, np.float64)[rows]
        drawn.values[name] = _array(values)
    return drawn


def _array(values: np.ndarray) -> "array[float]":
    return array("d", values.tobytes())
