"""The arithmetic on what was run: means and worst over seeds, pools over cases. Knows no files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tests.results.cases import Case

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """One case: its objective, and a document for each seed; the first one has the baselines."""

    case: Case
    objective_ms: float
    seeds: Sequence[Figures]

    @property
    def baselines(self) -> dict[str, Figures]:
        """The other policies, of the first seed."""
        found: dict[str, Figures] = self.seeds[0]["baselines"]
        return found

    def mean(self, key: str) -> float:
        """A figure's mean over the seeds, counting only those that have it."""
        return fmean(self._all(key) or [float("nan")])

    def worst(self, key: str) -> float:
        """A figure's highest value over the seeds."""
        return max(self._all(key) or [float("nan")])

    def _all(self, key: str) -> list[float]:
        return [figures[key] for figures in self.seeds if figures[key] is not None]


def pooled_ratio(cases: Iterable[Measured], part: str, whole: str) -> float:
    """All that a figure adds up to over cases and seeds, over all of another one."""
    documents = _documents(cases)
    return _sum(figures[part] for figures in documents) / _sum(
        figures[whole] for figures in documents
    )


def replayed_ratio(cases: Iterable[Measured]) -> float:
    """All bills over all bills of the best schedules in hindsight, replayed."""
    documents = _documents(cases)
    best_usd = _sum(figures["clairvoyant_replayed"]["cost_usd"] for figures in documents)
    return _sum(figures["cost_usd"] for figures in documents) / best_usd


def violations_ratio(cases: Iterable[Measured]) -> float:
    """Missed requests over all requests."""
    documents = _documents(cases)
    missed = _sum(figures["violations_ratio"] * figures["requests"] for figures in documents)
    return missed / _sum(figures["requests"] for figures in documents)


def saving_ratio(cases: Sequence[Measured], baseline: str) -> float:
    """How much cheaper than a baseline all cases together are: 0.25 is a quarter."""
    theirs_usd = _sum(measured.baselines[baseline]["cost_usd"] for measured in cases)
    return 1 - _sum(measured.seeds[0]["cost_usd"] for measured in cases) / theirs_usd


def _documents(cases: Iterable[Measured]) -> list[Figures]:
    return [figures for measured in cases for figures in measured.seeds]


def _sum(values: Iterable[float]) -> float:
    return float(sum(values))
