"""One version of a model: its baseline, what it does now, and how good its answers were.

A state machine over what was read of samples and labels; told the time (seconds since 1970). Pure.
"""

from collections import deque
from typing import NamedTuple

from router.quality.drift import (
    MAX_BASELINE,
    Alarm,
    Baseline,
    Columns,
    Window,
    baseline_of,
)
from router.quality.features import Features
from router.quality.predictions import Prediction, judge
from router.quality.samples import CONFIDENCE, SHADOW, VALUE, QualityParams
from router.quality.scores import Scores
from router.quality.stream import Adwin

HOUR_S = 3600.0
HOURS = 24
MAX_TENANTS = 20
_SHOWN_ALARMS = 20
_STREAM_DELTA = 1e-4
_LOSSES = "labels"


class Change(NamedTuple):
    """A stream of numbers whose mean is another since about then."""

    at: float
    stream: str
    mean: float


class Opinion(NamedTuple):
    """What somebody says of an answer: the truth, or how good it was (1 right, 0 wrong)."""

    truth: str | float | None = None
    score: float | None = None


class Subject:
    """One version of one model."""

    def __init__(self, params: QualityParams, baseline: Baseline | None, now: float) -> None:
        self._params = params
        self._learning = Columns(params.max_features)
        self.window: Window | None = None
        self.alarms: deque[Alarm] = deque(maxlen=_SHOWN_ALARMS)
        self.drifting: tuple[str, ...] = ()
        self.alarm_counts: dict[str, int] = {}
        self.changes: deque[Change] = deque(maxlen=_SHOWN_ALARMS)
        self.samples = 0
        self.by_side: dict[str, Scores] = {}
        self.by_tenant: dict[str, Scores] = {}
        self.by_hour: dict[int, Scores] = {}
        self._streams: dict[str, Adwin] = {}
        if baseline is not None:
            self.compare_with(baseline, now)

    @property
    def baseline(self) -> Baseline | None:
        """What it is compared with; None while that is being learned."""
        return self.window.baseline if self.window is not None else None

    @property
    def learned(self) -> int:
        """Samples of a baseline that is not complete yet."""
        return self._learning.samples

    def compare_with(self, baseline: Baseline, now: float) -> None:
        """Compare with that baseline from now on."""
        self.window = Window(self._params.drift, baseline, now)
        self._learning = Columns(self._params.max_features)
        self.drifting = ()

    def learn_anew(self) -> None:
        """Make a baseline of what comes next."""
        self.window, self.drifting = None, ()
        self._learning = Columns(self._params.max_features)

    def sample(self, features: Features, now: float, gateways: int = 1) -> list[Alarm]:
        """Take what was read of one sample; what has changed, if a window is complete."""
        self.samples += 1
        for name in (CONFIDENCE, VALUE):
            if name in features:
                self._stream(name, features[name], now)
        if self.window is None:
            self._learn(features, now)
            return []
        self.window.add(features)
        if not self.window.is_full(now):
            return []
        found = self.window.close(now, gateways)
        self.drifting = tuple(alarm.feature for alarm in found)
        for alarm in found:
            self.alarms.append(alarm)
            self.alarm_counts[alarm.test] = self.alarm_counts.get(alarm.test, 0) + 1
        return found

    def _learn(self, features: Features, now: float) -> None:
        self._learning.add(features)
        first = min(self._params.first, MAX_BASELINE)
        if self._learning.samples >= first:
            source = f"first {self._learning.samples} samples"
            self.compare_with(baseline_of(self._learning, source, now), now)

    def opinion(
        self, side: str, tenant: str, prediction: Prediction | None, said: Opinion, at: float
    ) -> float:
        """Count what somebody says of an answer of then; returns the loss (0 right, 1 wrong)."""
        hour = int(at // HOUR_S)
        places = [
            self.by_side.setdefault(side, Scores()),
            self.by_hour.setdefault(hour, Scores()),
        ]
        if tenant in self.by_tenant or len(self.by_tenant) < MAX_TENANTS:
            places.append(self.by_tenant.setdefault(tenant, Scores()))
        while len(self.by_hour) > HOURS:
            del self.by_hour[min(self.by_hour)]
        loss = 0.0
        for scores in places:
            if said.truth is not None and prediction is not None:
                loss = judge(self._params.reading, prediction, said.truth, scores)
            elif said.score is not None:
                scores.reward(said.score)
                loss = 1 - said.score
        if side != SHADOW:
            self._stream(_LOSSES, loss, at)
        return loss

    def _stream(self, name: str, value: float, now: float) -> None:
        if name == VALUE:  # into 0..1 by its place among those of the baseline
            known = self.baseline.features.get(VALUE) if self.baseline is not None else None
            if known is None:
                return
            before = known.bins.count_at_most(value, known.counts)
            value = before / max(1, int(known.counts.sum()))
        stream = self._streams.setdefault(name, Adwin(_STREAM_DELTA))
        if 0 <= value <= 1 and stream.add(value):
            self.changes.append(Change(now, name, stream.mean))
