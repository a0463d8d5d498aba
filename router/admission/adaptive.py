"""How many requests one server works on at once, learned from how long they take. Pure arithmetic.

A server that is asked for more than it can do at once makes the rest wait, so answers take longer
in proportion: a limit of L at a server of capacity C stretches them to L / C (Little's law). The
limit follows that gradient; what an answer takes without waiting is measured anew now and then, at
a lower limit. Enforces nothing.
"""

from dataclasses import dataclass

_WINDOW = 30
"""Answers looked at together, or four for each slot if those are more."""
_SLACK = 1.15
"""Stretch that is taken for noise."""
_STEEPEST = 0.5
_SMOOTHING = 0.5
_BUSY_SHARE = 0.8
_GROWTH = 0.4
"""Of the limit, tried beyond it while answers are not stretched."""
_HEADROOM = 0.02
_LEAST_HEADROOM = 0.5
_REMEASURE_EVERY = 60
_REFUSED = 0.7


@dataclass(frozen=True, slots=True)
class AdaptiveParams:
    """Bounds of the limit, both included."""

    minimum: int
    maximum: int


class _Mean:
    """The mean of a few durations."""

    __slots__ = ("count", "total_s")

    def __init__(self) -> None:
        self.count = 0
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one answer, by the seconds that it took."""
        self.count += 1
        self.total_s += seconds


class AdaptiveLimit:
    """The limit of one server. `kind` tells requests apart that take differently long."""

    __slots__ = ("_busy", "_count", "_estimate", "_is_measuring", "_resume_at",
                 "_seen", "_unstretched", "_windows", "current", "params")  # fmt: skip

    def __init__(self, params: AdaptiveParams) -> None:
        self.params = params
        self.current = params.minimum
        self._estimate = float(params.minimum)
        self._unstretched: dict[int, float] = {}
        self._is_measuring = True
        self._resume_at = float(params.minimum)
        self._windows = 0
        self._begin_window()

    def observe(self, kind: int, seconds: float, in_flight: int) -> bool:
        """Learn one good answer, given while so many were in flight; whether `current` changed."""
        self._seen.setdefault(kind, _Mean()).add(seconds)
        self._count += 1
        self._busy += in_flight >= _BUSY_SHARE * self.current
        if self._count < max(_WINDOW, 4 * self.current):
            return False
        before = self.current
        self._end_window()
        return self.current != before

    def refused(self) -> None:
        """The server turned a request away, or failed it."""
        self._resume_at *= _REFUSED
        self._set(self._estimate * _REFUSED)
        self._begin_window()

    def _begin_window(self) -> None:
        self._count = self._busy = 0
        self._seen: dict[int, _Mean] = {}

    def _end_window(self) -> None:
        stretch, was_busy = self._stretch(), self._busy > self._count / 2
        if self._is_measuring:
            self._measure()
            self._is_measuring = False
            self._set(self._resume_at)
        elif stretch is None or not was_busy:
            self._measure()
        else:
            self._follow(stretch)
        self._windows += 1
        if self._windows % _REMEASURE_EVERY == 0:
            self._is_measuring, self._resume_at = True, self._estimate
            self._set(self._estimate / 2)
        self._begin_window()

    def _stretch(self) -> float | None:
        """How many times longer than unstretched the window's answers took."""
        known = [(m, self._unstretched[k]) for k, m in self._seen.items() if k in self._unstretched]
        expected_s = sum(mean.count * usual_s for mean, usual_s in known)
        return sum(mean.total_s for mean, _ in known) / expected_s if expected_s > 0 else None

    def _measure(self) -> None:
        for kind, mean in self._seen.items():
            self._unstretched[kind] = mean.total_s / mean.count

    def _follow(self, stretch: float) -> None:
        gradient = max(_STEEPEST, min(1.0, _SLACK / stretch))
        # Something waits at the server, so that it is never idle and room for more is noticed.
        share = _GROWTH if gradient == 1.0 else _HEADROOM
        headroom = max(_LEAST_HEADROOM, share * self._estimate)
        target = self._estimate * gradient + headroom
        self._set(self._estimate + _SMOOTHING * (target - self._estimate))

    def _set(self, estimate: float) -> None:
        params = self.params
        self._estimate = min(max(estimate, params.minimum), params.maximum)
        self.current = int(self._estimate)
