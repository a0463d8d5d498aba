"""All that is known of how good the models of one gateway are. Reads samples; slow.

Belongs to one thread: `quality` sees to it that nothing of it is called by two at once.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from router.policy.canary import Side
from router.policy.rollback import Finding
from router.quality.drift import Baseline
from router.quality.files import BaselineError, read_baseline
from router.quality.predictions import Prediction
from router.quality.rollout import Rollout
from router.quality.samples import Origin, QualityParams, Sample, Seen, read
from router.quality.store import SampleStore
from router.quality.subject import Opinion, Subject
from router.quality.words import WordForm, losses_of

_log = logging.getLogger(__name__)

MAX_VERSIONS = 8
"""Versions of a model that are told apart; what further ones answer is not looked at."""

Key = tuple[str, str]
"""A model and a version of it; empty where neither request nor answer names one."""


class Verdict(NamedTuple):
    """A finding about the canary of a rule, in the trial that had that epoch."""

    rule: str
    epoch: str
    finding: Finding


class Taken(NamedTuple):
    """What came of a sample: whose it was in the end, and what is kept of it."""

    origin: Origin
    predictions: list[Prediction]
    answer_id: str
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """An opinion about one row of an answer that was kept."""

    origin: Origin
    prediction: Prediction | None
    opinion: Opinion
    at: float


class Monitor:
    """The versions of all models that are watched, and the canaries on trial.

    `peers` is what other gateways say, by their ids.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._params: dict[str, QualityParams] = {}
        self._given: dict[str, Baseline] = {}
        self._stores: dict[str, SampleStore] = {}
        self.subjects: dict[Key, Subject] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.peers: dict[str, WordForm] = {}

    def configure(self, params: Mapping[str, QualityParams]) -> None:
        """Watch these models so; what is known of those that stay as they were is kept."""
        for name in self._params.keys() | params.keys():
            if self._params.get(name) != params.get(name):
                self._forget(name)
        self._params = dict(params)
        for name, wanted in params.items():
            if wanted.baseline_file and name not in self._given:
                self._read_baseline(name, wanted.baseline_file)
            if wanted.keep is not None and name not in self._stores:
                self._stores[name] = SampleStore(wanted.keep, name)

    def close(self) -> None:
        """Close what is open."""
        for store in self._stores.values():
            store.close()

    def _forget(self, name: str) -> None:
        self._given.pop(name, None)
        store = self._stores.pop(name, None)
        if store is not None:
            store.close()
        self.subjects = {key: each for key, each in self.subjects.items() if key[0] != name}

    def _read_baseline(self, name: str, path: str) -> None:
        try:
            self._given[name] = read_baseline(Path(path))
        except BaselineError as error:
            _log.error("quality of %s: its baseline is learned instead: %s", name, error)

    def take(self, sample: Sample) -> Taken | None:
        """Read a sample and learn from it; None if nothing watches it any more.

        Raises UnreadableAnswerError.
        """
        params = self._params.get(sample.origin.model)
        if params is None:
            return None
        chosen = self._rng.getrandbits(48)
        seen = read(sample, params, chosen)
        origin = _answered(sample.origin, seen)
        store = self._stores.get(origin.model)
        if store is not None:
            store.keep(origin, sample, seen)
        verdict = None
        subject = self._subject(origin, params, sample.at)
        if subject is not None and not origin.is_shadow:
            for alarm in subject.sample(seen.features, sample.at, 1 + len(self.peers)):
                _log.warning("quality of %s: %s", _named(origin), alarm.text)
            verdict = self._in_rollout(origin, seen, subject)
        return Taken(origin, seen.predictions, seen.answer_id, verdict)

    def opinion(self, said: Said) -> Verdict | None:
        """Count what somebody says of an answer."""
        origin = said.origin
        params = self._params.get(origin.model)
        subject = self._subject(origin, params, said.at) if params is not None else None
        if subject is None:
            return None
        tenant = origin.tenant or ""
        loss = subject.opinion(origin.side, tenant, said.prediction, said.opinion, said.at)
        rollout = self._rollout(origin)
        if rollout is None or origin.place is None:
            return None
        others = losses_of(self.peers.values(), origin.place.rule, rollout.epoch)
        return _verdict(origin, rollout.label(Side(origin.place.side), loss, others))

    def is_given(self, model: str) -> bool:
        """Whether a file says what the model is compared with."""
        return model in self._given

    def subject(self, model: str, version: str) -> Subject | None:
        """What is known of a version."""
        return self.subjects.get((model, version))

    def named(self, model: str) -> Iterator[tuple[str, Subject]]:
        """The versions of a model."""
        for (name, version), subject in self.subjects.items():
            if name == model:
                yield version, subject

    def _subject(self, origin: Origin, params: QualityParams, now: float) -> Subject | None:
        key = (origin.model, origin.version)
        found = self.subjects.get(key)
        if found is None and sum(name == origin.model for name, _ in self.subjects) < MAX_VERSIONS:
            found = Subject(params, self._given.get(origin.model), now)
            self.subjects[key] = found
        return found

    def _in_rollout(self, origin: Origin, seen: Seen, subject: Subject) -> Verdict | None:
        rollout, place = self._rollout(origin), origin.place
        if rollout is None or place is None:
            return None
        side = Side(place.side)
        stable = subject.baseline if side is Side.STABLE else None
        return _verdict(origin, rollout.sample(side, seen.features, stable))

    def _rollout(self, origin: Origin) -> Rollout | None:
        """The canary that the answer belongs to; None for one of a trial that is over."""
        place = origin.place
        if place is None or place.rollback is None or origin.is_shadow:
            return None
        found = self.rollouts.get(place.rule)
        if found is None or found.is_before(place.epoch):
            found = self.rollouts[place.rule] = Rollout(place.epoch, place.rollback)
        return found if found.epoch == place.epoch else None

    def keep_rollouts(self, rules: Mapping[str, str]) -> None:
        """Forget the canaries of other rules, and of other trials than those with that epoch."""
        self.rollouts = {
            rule: each for rule, each in self.rollouts.items() if rules.get(rule) == each.epoch
        }


def _answered(origin: Origin, seen: Seen) -> Origin:
    """The origin with the version that the answer names, where the request named none."""
    if origin.version or not seen.version:
        return origin
    return Origin(origin.model, seen.version, origin.tenant, origin.place, origin.is_shadow)


def _named(origin: Origin) -> str:
    return f"{origin.model} version {origin.version}" if origin.version else origin.model


def _verdict(origin: Origin, finding: Finding | None) -> Verdict | None:
    if finding is None or origin.place is None:
        return None
    return Verdict(origin.place.rule, origin.place.epoch, finding)
