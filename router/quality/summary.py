"""What metrics show of each version: a few numbers, made where the rest is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.quality.drift import index_of
from router.quality.monitor import Monitor
from router.quality.samples import SHADOW
from router.quality.scores import Metric, Scores, share_of
from router.quality.subject import Subject


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One version. `rewards` is the share of right answers among those with labels, by side."""

    drifting: int = 0
    largest_psi: float = 0.0
    alarms: Mapping[str, int] = field(default_factory=dict)
    rewards: Mapping[str, Metric] = field(default_factory=dict)


Summary = Mapping[str, VersionSummary]
"""By version."""


def summary_of(monitor: Monitor) -> dict[str, Summary]:
    """All that is known, in short, by model and version."""
    found: dict[str, dict[str, VersionSummary]] = {}
    for (model, version), subject in monitor.subjects.items():
        found.setdefault(model, {})[version] = _version(subject)
    return dict(found)


def _version(subject: Subject) -> VersionSummary:
    window = subject.window
    largest = 0.0
    if window is not None:
        known = window.baseline.features
        indices = (index_of(known[name], counts) for name, counts in window.latest.items())
        largest = max(indices, default=0.0)
    return VersionSummary(
        len(subject.drifting),
        largest,
        dict(subject.alarm_counts),
        {
            side or "all": share_of(scores.rewards)
            for side, scores in subject.by_side.items()
            if scores.rewards.count
        },
    )


def merged_sides(by_side: Mapping[str, Scores]) -> Scores:
    """What clients got, whatever side of a canary it was; not what only shadows said."""
    total = Scores()
    for side, scores in by_side.items():
        if side != SHADOW:
            total.merge(scores)
    return total
