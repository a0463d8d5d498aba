"""What the policy is held to, and whether the results meet it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.results.cases import ADVERSARY
from tests.results.summary import (
    Measured,
    pooled_ratio,
    replayed_ratio,
    saving_ratio,
    static_excess,
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


def verdicts(results: Sequence[Measured]) -> list[Verdict]:
    """All targets that there are results for."""
    of = {
        regime: [measured for measured in results if measured.case.regime == regime]
        for regime in ("A", "B", "C", ADVERSARY)
    }
    found: list[Verdict] = []
    if of["A"]:
        found += _cpu(of["A"])
    public = [*of["A"], *of["B"], *of["C"]]
    if public:
        excess, name = static_excess(public)[0]
        found.append(
            Verdict("every endpoint: bill / best static choice", 1.03, excess, note=f"most: {name}")
        )
    if of["B"]:
        ratio = pooled_ratio(of["B"], "cost_usd", "optimum_usd")
        found.append(Verdict("B: bill / optimum, pooled", 1.20, ratio))
        found.append(
            Verdict("B: the same with forecasts of noise", 1.6, ratio, note="no forecast is used")
        )
    if of[ADVERSARY]:
        ratio, name = _highest(of[ADVERSARY])
        found.append(Verdict("adversary: bill / optimum", 3.0, ratio, note=f"most: {name}"))
    return found


def _cpu(cases: Sequence[Measured]) -> list[Verdict]:
    highest, name = _highest(cases)
    slowest = max(cases, key=lambda measured: measured.worst("p99_ms") / measured.objective_ms)
    worst = max(cases, key=lambda measured: measured.mean("violations_ratio"))
    return [
        Verdict("A: bill / schedule in hindsight, replayed; pooled", 1.04, replayed_ratio(cases)),
        Verdict("A: bill / optimum, pooled", 1.08, pooled_ratio(cases, "cost_usd", "optimum_usd")),
        Verdict("A: bill / optimum, every trace", 1.15, highest, note=f"most: {name}"),
        Verdict(
            "A: requests that missed the objective", 0.001, violations_ratio(cases), "{:.3%}",
            f"most: {worst.case.name}, {worst.mean('violations_ratio'):.3%}",
        ),
        Verdict(
            "A: p99 / objective, every trace", 1.0,
            slowest.worst("p99_ms") / slowest.objective_ms, note=f"most: {slowest.case.name}",
        ),
        *(
            Verdict(
                f"A: cheaper than {title}", 0.25, saving_ratio(cases, baseline), "{:.1%}",
                at_least=True,
            )
            for baseline, title in (
                ("hpa_overflow", "HPA with overflow to functions (as Spock)"), ("mark", "MArk")
            )
        ),
    ]  # fmt: skip


def _highest(cases: Iterable[Measured]) -> tuple[float, str]:
    """The highest mean of bill over optimum, and whose it is."""
    return max((measured.mean("optimum_ratio"), measured.case.name) for measured in cases)
