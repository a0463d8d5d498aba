"""What the policy is held to, and whether the results meet it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.results.cases import ADVERSARY, SHARED
from tests.results.summary import (
    Measured,
    pooled_ratio,
    replayed_ratio,
    saving_ratio,
    violations_ratio,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside what was measured. `at_least` turns the comparison round."""

    title: str
    limit: float
    measured: float
    form: str = "{:.3f}"
    note: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is kept."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


_WELL_SAMPLED = 50_000
"""So many requests make a share of one in a thousand tell something."""
_RIVALS = ("libra", "static_split", "mark", "hpa_overflow")


def verdicts(results: Sequence[Measured]) -> list[Verdict]:
    """All targets that there are results for."""
    of = {
        regime: [measured for measured in results if measured.case.regime == regime]
        for regime in ("A", "B", "C", ADVERSARY)
    }
    found: list[Verdict] = []
    for regime, hindsight, limit in (("A", 1.02, 1.05), ("B", 1.08, 1.08)):
        if cases := of[regime]:
            ratio = pooled_ratio(cases, "cost_usd", "limit_usd")
            found.append(Verdict(f"{regime}: bill / request-level limit, pooled", limit, ratio))
            ratio = replayed_ratio(cases)
            title = f"{regime}: bill / schedule in hindsight replayed, pooled"
            found.append(Verdict(title, hindsight, ratio))
    for one in of["C"]:
        if one.case.name == SHARED:
            title = f"{SHARED}: bill / sum of the optima of replicas of their own"
            found.append(Verdict(title, 1.05, one.mean("optimum_ratio")))
    if public := [*of["A"], *of["B"], *of["C"]]:
        found += _service(public)
        found += _rivals(public)
    if of[ADVERSARY]:
        ratio, name = _highest(of[ADVERSARY])
        found.append(Verdict("adversary: bill / optimum", 3.0, ratio, note=f"most: {name}"))
    return found


def _service(cases: Sequence[Measured]) -> list[Verdict]:
    """What clients notice, on traces long enough to tell."""
    judged = [one for one in cases if one.mean("requests") >= _WELL_SAMPLED]
    if not judged:
        return []
    worst = max(judged, key=lambda measured: measured.mean("violations_ratio"))
    slowest = max(judged, key=lambda measured: measured.worst("p99_ms") / measured.objective_ms)
    return [
        Verdict(
            "missed, all traces pooled", 0.001, violations_ratio(judged), "{:.3%}"
        ),
        Verdict(
            "missed, every trace of 50,000 requests", 0.001, worst.mean("violations_ratio"),
            "{:.3%}", f"most: {worst.case.name}",
        ),
        Verdict(
            "p99 / objective, every such trace", 1.0,
            slowest.worst("p99_ms") / slowest.objective_ms, note=f"most: {slowest.case.name}",
        ),
    ]  # fmt: skip


def _rivals(cases: Sequence[Measured]) -> list[Verdict]:
    """What the other policies pay, on the first seed."""
    compared = [measured for measured in cases if measured.baselines]
    dearest, name = max(
        (
            measured.seeds[0]["cost_usd"]
            / min(measured.baselines[rival]["cost_usd"] for rival in _RIVALS),
            measured.case.name,
        )
        for measured in compared
    )
    return [
        Verdict(
            "bill / best of LIBRA, static split, MArk, HPA with overflow; every trace", 1.01,
            dearest, note=f"most: {name}",
        ),
        *(
            Verdict(
                f"cheaper than {title}, pooled", 0.25, saving_ratio(compared, baseline), "{:.1%}",
                at_least=True,
            )
            for baseline, title in (
                ("hpa_overflow", "HPA with overflow to functions (as Spock)"),
                ("always_serverless", "always serverless"),
            )
        ),
    ]  # fmt: skip


def _highest(cases: Iterable[Measured]) -> tuple[float, str]:
    """The highest mean of bill over optimum, and whose it is."""
    return max((measured.mean("optimum_ratio"), measured.case.name) for measured in cases)
