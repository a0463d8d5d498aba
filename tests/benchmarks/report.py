"""A run as Markdown: the targets, a table for each scenario, the other figures, the machine."""

from collections.abc import Iterable, Sequence

from tests.benchmarks.results import (
    Results,
    Row,
    ScenarioResult,
    Summary,
    middle,
    ratio,
    summary,
)
from tests.benchmarks.targets import OURS, WITH_KEYS, Verdict, verdicts
from tests.benchmarks.workers import OURS as OUR_WORKER

_NONE = "-"
_RIVALS = ("nginx", "envoy")


def _columns(reference: str) -> tuple[str, ...]:
    return (
        "system", "CPU us/req", f"to {reference}", "rps", f"rps to {reference}", "p50 ms", "p99 ms",
        "p99.9 ms", "RSS MB", "core %", "errors",
    )  # fmt: skip


def markdown(results: Results) -> str:
    """The whole report."""
    parts = [_overview(results), _targets(results)]
    parts += [_scenario(result) for result in results.scenarios]
    parts += [_findings(results), _absent(results), _origin(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _overview(results: Results) -> str:
    """The gateway in every scenario, a line for each, beside the two that it is compared with."""
    judged = verdicts(results)
    rows = [
        _line(result, row, [v for v in judged if (v.scenario, v.system) == _place(result, row)])
        for result in results.scenarios
        for row in result.rows
        if row.system in (OURS, WITH_KEYS)
    ]
    columns = (
        "work", "CPU us/req", *(f"to {rival}" for rival in _RIVALS),
        *(f"{name} ms (nginx, Envoy)" for name in ("p50", "p99", "p99.9")), "targets met",
    )  # fmt: skip
    return _section("The gateway, row by row", _table(columns, rows)) if rows else ""


def _place(result: ScenarioResult, row: Row) -> tuple[str, str]:
    return result.scenario, row.system


def _line(result: ScenarioResult, row: Row, judged: Sequence[Verdict]) -> list[str]:
    rivals = [result.row(name) for name in _RIVALS]
    ratios = [_short(ratio(row, rival, "cpu_us")) for rival in rivals]
    times = [
        f"{_middle(row, name)} ({', '.join(_middle(rival, name) for rival in rivals)})"
        for name in ("p50_ms", "p99_ms", "p999_ms")
    ]
    met = sum(verdict.met for verdict in judged)
    share = f"{met} of {len(judged)}" if judged else _NONE
    verdict = f"**{share}**" if met < len(judged) else share
    return [
        result.title, _middle(row, "cpu_us"), *ratios, *times,
        "failed" if row.failed else verdict,
    ]  # fmt: skip


def _middle(row: Row | None, quantity: str) -> str:
    return _short(middle(row, quantity)) if row is not None and row.measured else _NONE


def _targets(results: Results) -> str:
    rows = [
        (v.title, f"<= {v.limit:g}", _short(v.measured), "yes" if v.met else "**no**")
        for v in verdicts(results)
    ]
    return _section("Targets", _table(("target", "limit", "measured", "met"), rows)) if rows else ""


def _scenario(result: ScenarioResult) -> str:
    reference = result.row(result.reference)
    ranked = sorted(result.rows, key=lambda row: _rank(summary(row, reference)))
    rows = [_cells(row, summary(row, reference)) for row in ranked]
    notes = [f"- {row.system}: {why}" for row in result.rows for why in row.failures]
    return _section(
        result.title,
        "\n".join([_table(_columns(result.reference), rows), *([""] if notes else []), *notes]),
    )


def _rank(found: Summary | None) -> float:
    return found.cpu_us if found is not None else float("inf")


def _cells(row: Row, found: Summary | None) -> list[str]:
    name = f"**{row.system}**" if row.system.startswith((OURS, OUR_WORKER)) else row.system
    failed = "failed" if row.failures else f"**{row.errors}**" if row.errors else "0"
    if found is None:
        return [name, *[_NONE] * (len(_columns("")) - 2), failed]
    return [
        name, _short(found.cpu_us), _short(found.cpu_ratio), f"{found.rps:,.0f}",
        _short(found.rps_ratio), f"{found.p50_ms:.2f}", f"{found.p99_ms:.2f}",
        f"{found.p999_ms:.2f}", f"{found.rss_mb:.0f}", f"{found.core_percent:.0f}", failed,
    ]  # fmt: skip


def _findings(results: Results) -> str:
    rows = [(item.title, f"{_short(item.value)} {item.unit}".strip()) for item in results.findings]
    return _section("Other figures", _table(("what", "value"), rows)) if rows else ""


def _absent(results: Results) -> str:
    absent = {**results.missing, **results.broken}
    lines = [f"- {name}: {why}" for name, why in absent.items()]
    return _section("Not measured", "\n".join(lines)) if lines else ""


def _origin(results: Results) -> str:
    facts = {
        "taken": results.taken_at,
        "command": f"`{results.command}`",
        **results.machine,
        "core under test used by others": f"{results.others_percent:.0f} % (median)",
    }
    rows = [*facts.items(), *results.versions.items()]
    return _section("Machine and versions", _table(("what", "value"), rows))


def _section(title: str, content: str) -> str:
    return f"### {title}\n\n{content}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: float | None) -> str:
    """Three digits that matter, or a dash."""
    if value is None:
        return _NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
