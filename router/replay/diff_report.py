"""What a new configuration changes, for people and for programs."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.replay.compare import Change, Compared, total_of
from router.replay.report import digits, milliseconds, ratio, table, usd

Figures = dict[str, Any]


def diff_document(compared: Compared) -> Figures:
    """All figures, in total and by model."""
    return {
        **_figures(total_of(compared.changes)),
        "models": {name: _figures(change) for name, change in sorted(compared.changes.items())},
        "horizon_s": compared.horizon_s,
        "rows_left_out": dict(compared.dropped.counts),
    }


def _figures(change: Change) -> Figures:
    sides = {"old": change.old, "new": change.new}
    return {
        "requests": change.old.requests,
        "moved": change.moved,
        "moved_to_pool": change.to_pool,
        "moved_to_serverless": change.to_serverless,
        "newly_refused": change.newly_refused,
        "newly_served": change.newly_served,
        "slower": change.slower,
        "faster": change.faster,
        **{
            side: {
                "cost_usd": digits(sums.cost_usd),
                "violations_ratio": ratio(sums.violations, sums.requests),
                "p50_ms": milliseconds(sums.percentile_s(50)),
                "p99_ms": milliseconds(sums.percentile_s(99)),
                "serverless_ratio": ratio(sums.serverless, sums.requests),
                "cold_ratio": ratio(sums.cold, sums.requests),
                "replica_starts": sums.replica_starts,
            }
            for side, sums in sides.items()
        },
    }


def show_diff(report: Figures, console: Console) -> None:
    """The sentence, the directions, and the models that change."""
    console.print(
        f"{report['moved']:,} of {report['requests']:,} requests would move:"
        f" {report['moved_to_pool']:,} to the pool, {report['moved_to_serverless']:,} to"
        f" serverless, {report['newly_refused']:,} newly refused, {report['newly_served']:,} newly"
        f" served. {report['slower']:,} would be slower, {report['faster']:,} faster."
    )
    console.print(_totals(report))
    changed = {name: row for name, row in report["models"].items() if row["moved"]}
    if len(report["models"]) > 1 and changed:
        console.print(_models(changed))
    for reason, count in report["rows_left_out"].items():
        console.print(f"{count:,} rows left out: {reason}", style="yellow", markup=False)


def _totals(report: Figures) -> Table:
    shown = table("", "", ("old", "new", "change"))
    for label, key, form in (
        ("bill, USD", "cost_usd", "{:,.4g}"),
        ("missed, %", "violations_ratio", "{:.3f}"),
        ("p50, ms", "p50_ms", "{:.0f}"),
        ("p99, ms", "p99_ms", "{:.0f}"),
        ("on serverless, %", "serverless_ratio", "{:.2f}"),
        ("cold, %", "cold_ratio", "{:.3f}"),
        ("replica starts", "replica_starts", "{:,.0f}"),
    ):
        times = 100 if key.endswith("ratio") else 1
        old, new = report["old"][key], report["new"][key]
        if old is None or new is None:
            continue
        change = form.replace(":", ":+").format((new - old) * times)
        shown.add_row(label, form.format(old * times), form.format(new * times), change)
    return shown


def _models(changed: dict[str, Figures]) -> Table:
    shown = table("models that change", "model", ("requests", "moved", "old USD", "new USD"))
    for name, row in sorted(changed.items(), key=lambda item: -item[1]["moved"])[:20]:
        bills = (usd(row[side]["cost_usd"]) for side in ("old", "new"))
        shown.add_row(Text(name), f"{row['requests']:,}", f"{row['moved']:,}", *bills)
    return shown
