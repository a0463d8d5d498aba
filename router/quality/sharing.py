"""What all gateways together know: the others' words added to what is known here. Pure.

Sums are believed as far as they fit what is compared here.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from router.quality.monitor import Monitor
from router.quality.scores import Scores
from router.quality.subject import Subject
from router.quality.words import (
    MAX_BYTES,
    RolloutForm,
    SubjectForm,
    WordForm,
    name_of,
    scores_form,
    scores_from,
)

Array = np.ndarray[Any, np.dtype[Any]]


def word_of(monitor: Monitor) -> bytes:
    """What this gateway tells the others; as much of it as fits."""
    subjects = [_subject_form(*key, each) for key, each in monitor.subjects.items()]
    rollouts = [
        RolloutForm(
            rule, each.epoch, {side: (has.count, has.total) for side, has in each.losses.items()}
        )
        for rule, each in monitor.rollouts.items()
    ]
    while True:
        text = zlib.compress(msgspec.json.encode(WordForm(subjects, rollouts)), 1)
        if len(text) <= MAX_BYTES or not subjects:
            return text
        subjects = subjects[: len(subjects) // 2]


def latest_of(subject: Subject, forms: Iterable[SubjectForm]) -> tuple[dict[str, Array], int]:
    """The last windows of all gateways with this baseline together, and how many they are."""
    window = subject.window
    if window is None:
        return {}, 0
    total = {name: np.array(counts) for name, counts in window.latest.items()}
    gateways = 1 if total else 0
    for form in forms:
        if form.baseline != name_of(window.baseline) or not form.latest:
            continue
        gateways += 1
        for name, known in window.baseline.features.items():
            counts = np.array(form.latest.get(name, []), np.int64)
            if counts.shape == known.counts.shape:
                total[name] = total.get(name, 0) + counts
    return total, gateways


def _subject_form(model: str, version: str, subject: Subject) -> SubjectForm:
    window = subject.window
    latest = window.latest if window is not None else {}
    return SubjectForm(
        model, version, subject.samples, name_of(subject.baseline),
        {name: counts.tolist() for name, counts in latest.items()},
        list(subject.drifting),
        {side: scores_form(scores) for side, scores in subject.by_side.items()},
    )  # fmt: skip


def sides_of(subject: Subject, forms: Iterable[SubjectForm]) -> Mapping[str, Scores]:
    """The scores of all gateways by side."""
    total: dict[str, Scores] = {}
    for side, scores in subject.by_side.items():
        total.setdefault(side, Scores()).merge(scores)
    for form in forms:
        for side, scores_said in form.by_side.items():
            total.setdefault(side, Scores()).merge(scores_from(scores_said))
    return total
