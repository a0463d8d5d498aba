"""Samples of a file: what `quality.keep` has written, or pairs of request and response bodies.

They are run through what watches a live model, in the order of the file. Raises BaselineError for
what cannot be read.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from math import nan
from random import Random
from typing import Any, NamedTuple

from router.domain.request import AnswerForm
from router.quality.drift import Alarm, Baseline
from router.quality.features import Features
from router.quality.files import BaselineError
from router.quality.samples import QualityParams, seen
from router.quality.subject import Subject
from router.quality.tensors import Answer, UnreadableAnswerError, inputs_of, outputs_of
from router.quality.text import read_text

_SEED = 1


class KeptSample(NamedTuple):
    """What a line says of a sample."""

    model: str
    version: str
    at: float
    features: Features


def samples_in(
    lines: Iterable[tuple[int, Mapping[str, Any]]], params: QualityParams
) -> Iterator[KeptSample]:
    """The samples of lines, each with its number. Raises BaselineError."""
    rng = Random(_SEED)  # noqa: S311  picks rows, guards nothing
    for number, line in lines:
        try:
            features = _features(line, params, rng.getrandbits(48))
        except (UnreadableAnswerError, ValueError, TypeError, KeyError) as error:
            raise BaselineError(f"line {number}: {error}") from error
        at = line.get("at", float(number))
        if not isinstance(at, int | float) or not abs(at) < 1e12:
            raise BaselineError(f"line {number}: at is not a time in seconds")
        yield KeptSample(
            str(line.get("model", ""))[:200], str(line.get("version", ""))[:50], float(at), features
        )


def _features(line: Mapping[str, Any], params: QualityParams, chosen: int) -> Features:
    given = line.get("features")
    if isinstance(given, dict):
        items = list(given.items())[: params.max_features]
        return {str(name): nan if value is None else float(value) for name, value in items}
    request, response = json.dumps(line["request"]).encode(), json.dumps(line["response"]).encode()
    answer = Answer(200, {}, response)
    form = _form(line["request"])
    if form is AnswerForm.TEXT:
        return read_text(request, answer)[0]
    inputs, outputs = inputs_of(form, {}, request), outputs_of(form, answer)
    return seen(inputs, outputs, params, chosen).features


def _form(request: object) -> AnswerForm:
    if not isinstance(request, dict):
        raise BaselineError("request is not an object")
    if "inputs" in request:
        return AnswerForm.TENSORS
    return AnswerForm.PREDICTIONS if "instances" in request else AnswerForm.TEXT


class Watched(NamedTuple):
    """What a version's samples have shown."""

    subject: Subject
    alarms: list[Alarm]


def watch(
    samples: Iterable[KeptSample],
    params: Mapping[str, QualityParams],
    given: Mapping[str, Baseline],
) -> dict[tuple[str, str], Watched]:
    """What watching would have found, by model and version; only of models with settings.

    `given` are the baselines that do not come from the first samples, by model.
    """
    found: dict[tuple[str, str], Watched] = {}
    for sample in samples:
        wanted = params.get(sample.model)
        if wanted is None:
            continue
        key = sample.model, sample.version
        if key not in found:
            found[key] = Watched(Subject(wanted, given.get(sample.model), sample.at), [])
        watched = found[key]
        watched.alarms.extend(watched.subject.sample(sample.features, sample.at))
    return found
