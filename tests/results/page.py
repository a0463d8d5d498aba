"""The results as Markdown: targets, a table for each regime, the other policies, the commands."""

from collections.abc import Iterable, Sequence

from tests.results.cases import ADVERSARY
from tests.results.runs import command
from tests.results.summary import Measured
from tests.results.targets import Verdict, verdicts

_REGIMES = {
    "A": "Regime A: one vCPU, a function costs 2.3 or 3.1 times a full replica",
    "B": "Regime B: GPUs, a function costs 6 times a full replica, which takes minutes to start",
    "C": "Regime C: fleets of sparse endpoints; a cold call now and then is accepted",
    ADVERSARY: "Adversary",
}
_COLUMNS = (
    "case", "requests", "x limit", "x in hindsight", "x optimum", "missed", "p50 ms", "p99 ms",
    "p99.9 ms", "spilled", "on function", "cold", "starts/h",
)  # fmt: skip
_POLICIES = (
    "always_serverless", "static_split", "peak_warm", "hpa", "hpa_overflow", "kpa", "mark", "libra"
)  # fmt: skip
_NONE = "-"


def markdown(results: Sequence[Measured], about: str) -> str:
    """The generated part of the page."""
    sections = [_section("Targets", _targets(verdicts(results)))]
    for regime, title in _REGIMES.items():
        cases = [measured for measured in results if measured.case.regime == regime]
        if cases:
            sections.append(_section(title, _table(_COLUMNS, map(_row, cases))))
    sections.append(_section("Other policies: bill / optimum (missed)", _others(results)))
    sections.append(_section("Commands", _commands(results)))
    sections.append(about)
    return "\n\n".join(sections) + "\n"


def _targets(found: Iterable[Verdict]) -> str:
    rows = [
        (
            verdict.title,
            f"{'>=' if verdict.at_least else '<='} {_short(verdict, verdict.limit)}",
            verdict.form.format(verdict.measured),
            "yes" if verdict.met else "**no**",
            verdict.note,
        )
        for verdict in found
    ]
    return _table(("target", "limit", "measured", "met", ""), rows)


def _short(verdict: Verdict, limit: float) -> str:
    return f"{limit:.3g}" if "%" not in verdict.form else f"{100 * limit:g}%"


def _row(measured: Measured) -> tuple[str, ...]:
    return (
        f"{measured.case.title} (`{measured.case.name}`)",
        f"{measured.mean('requests'):,.0f}",
        _spread(measured, "limit_ratio", "{:.3f}"),
        _spread(measured, "replayed_optimum_ratio", "{:.3f}"),
        _spread(measured, "optimum_ratio", "{:.3f}"),
        _spread(measured, "violations_ratio", "{:.3%}"),
        _spread(measured, "p50_ms", "{:.0f}"),
        _spread(measured, "p99_ms", "{:.0f}"),
        _spread(measured, "p999_ms", "{:.0f}"),
        _spread(measured, "spill_ratio", "{:.1%}"),
        _spread(measured, "serverless_ratio", "{:.1%}"),
        _spread(measured, "cold_ratio", "{:.3%}"),
        _spread(measured, "replica_starts_per_hour", "{:.1f}"),
    )


def _spread(measured: Measured, key: str, form: str) -> str:
    """The mean, and the worst seed's where that reads differently."""
    mean, worst = (form.format(value) for value in (measured.mean(key), measured.worst(key)))
    if mean == "nan":
        return _NONE
    return mean if mean == worst else f"{mean} ({worst})"


def _others(results: Sequence[Measured]) -> str:
    names = ("case", "this router", *(policy.replace("_", " ") for policy in _POLICIES))
    rows = []
    for measured in results:
        if not measured.baselines:
            continue
        figures = [measured.seeds[0], *(measured.baselines.get(policy) for policy in _POLICIES)]
        rows.append((f"`{measured.case.name}`", *map(_other, figures)))
    return _table(names, rows)


def _other(figures: dict[str, float] | None) -> str:
    if figures is None or figures["optimum_ratio"] is None:
        return _NONE
    return f"{figures['optimum_ratio']:.2f} ({figures['violations_ratio']:.2%})"


def _commands(results: Sequence[Measured]) -> str:
    lines = ["```sh"]
    for measured in results:
        lines += [
            f"# {measured.case.name}",
            command(measured.case, 1, with_baselines=bool(measured.baselines)),
        ]
    return "\n".join([*lines, "```"])


def _section(title: str, content: str) -> str:
    return f"### {title}\n\n{content}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
