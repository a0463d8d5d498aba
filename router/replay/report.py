"""The results of a replay for people and for programs: figures, a table, a timeline.

Puts sums into words and ratios; adds nothing up but models.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from router.replay.policies import CLAIRVOYANT, ROUTER
from router.replay.replay import ModelResult, Replayed
from router.replay.tally import Sums

Figures = dict[str, Any]

_DIGITS = 10
_MAX_MODEL_ROWS = 10
_TIMELINE = (
    "t_s", "model", "arrivals", "replicas_ready", "replicas_billed", "pool_requests",
    "serverless_requests", "cold_starts", "violations", "cost_usd",
)  # fmt: skip


def document(replayed: Replayed, about: Mapping[str, Any]) -> Figures:
    """Everything as a JSON-able document: the router's figures, then all it is compared with."""
    others = [name for name in replayed.policies if name not in (ROUTER, CLAIRVOYANT)]
    return {
        **_policy(replayed, ROUTER),
        "baselines": {name: _policy(replayed, name) for name in others},
        CLAIRVOYANT: _policy(replayed, CLAIRVOYANT),
        "pools": {name: _pool(replayed, name) for name in replayed.shared},
        **about,
        "horizon_s": replayed.horizon_s,
        "interval_s": replayed.interval_s,
        "rows_left_out": dict(replayed.dropped.counts),
    }


def total(results: Mapping[str, ModelResult]) -> Sums:
    """All models together."""
    sums = Sums()
    for result in results.values():
        sums.add(result.sums)
    return sums


def _policy(replayed: Replayed, policy: str) -> Figures:
    results, replays = replayed.policies[policy], replayed.policies[CLAIRVOYANT]
    sharing = {name for shared in replayed.shared.values() for name in shared.models}
    of_model = {
        name: Yardsticks(bound.usd, replayed.limits[name], replays[name].sums.cost_usd)
        for name, bound in replayed.bounds.items()
        if name not in sharing
    }
    of_all = Yardsticks(
        # What each model would pay at best with replicas of its own, whether it has any or not.
        sum(bound.usd for bound in replayed.bounds.values()),
        sum(one.limit_usd for one in of_model.values())
        + sum(one.limit_usd for one in replayed.shared.values()),
        total(replays).cost_usd,
    )
    return {
        **figures(total(results), of_all, replayed),
        "models": {
            name: figures(result.sums, of_model.get(name, _NO_YARDSTICKS), replayed)
            for name, result in sorted(results.items())
        },
    }


def _pool(replayed: Replayed, name: str) -> Figures:
    """Models that share replicas: their whole bill, and what it is compared with."""
    shared, results = replayed.shared[name], replayed.policies[ROUTER]
    bill = total({one: results[one] for one in (*shared.models, name)}).cost_usd
    alone_usd = sum(replayed.bounds[model].usd for model in shared.models)
    return {
        "models": len(shared.models),
        "cost_usd": digits(bill),
        "optimum_usd": digits(shared.optimum.usd),
        "optimum_ratio": ratio(bill, shared.optimum.usd),
        "limit_usd": digits(shared.limit_usd),
        "limit_ratio": ratio(bill, shared.limit_usd),
        "alone_optimum_usd": digits(alone_usd),
        "alone_optimum_ratio": ratio(bill, alone_usd),
    }


class Yardsticks(NamedTuple):
    """What bills are compared with, in USD: optimum, request-level limit, schedule replayed."""

    optimum_usd: float
    limit_usd: float
    replayed_usd: float


_NO_YARDSTICKS = Yardsticks(0.0, 0.0, 0.0)
"""Of a model that shares replicas, whose bill is not its own, and of those replicas."""


def figures(sums: Sums, yardsticks: Yardsticks, replayed: Replayed) -> Figures:
    """One set of figures. Ratios of requests are to all requests; None where undefined."""
    hours = replayed.horizon_s / 3600.0
    return {
        "requests": sums.requests,
        "cost_usd": digits(sums.cost_usd),
        "cost_per_million_usd": ratio(sums.cost_usd * 1e6, sums.requests),
        "cost_parts": {
            "warm_busy": digits(sums.warm_busy_usd),
            "warm_idle": digits(sums.warm_idle_usd),
            "serverless_compute": digits(sums.compute_usd),
            "init": digits(sums.init_usd),
            "request_fees": digits(sums.fees_usd),
        },
        "optimum_usd": digits(yardsticks.optimum_usd),
        "optimum_ratio": ratio(sums.cost_usd, yardsticks.optimum_usd),
        "limit_usd": digits(yardsticks.limit_usd),
        "limit_ratio": ratio(sums.cost_usd, yardsticks.limit_usd),
        "replayed_optimum_ratio": ratio(sums.cost_usd, yardsticks.replayed_usd),
        "violations_ratio": ratio(sums.violations, sums.requests),
        "allowed_cold_late_ratio": ratio(sums.allowed_cold_late, sums.requests),
        "refused_ratio": ratio(sums.refused, sums.requests),
        "p50_ms": milliseconds(sums.percentile_s(50)),
        "p99_ms": milliseconds(sums.percentile_s(99)),
        "p999_ms": milliseconds(sums.percentile_s(99.9)),
        "serverless_ratio": ratio(sums.serverless, sums.requests),
        "spill_ratio": ratio(sums.spilled, sums.requests),
        "cold_ratio": ratio(sums.cold, sums.requests),
        "throttled_calls": sums.throttled,
        "replica_starts": sums.replica_starts,
        "replica_starts_per_hour": digits(sums.replica_starts / hours),
    }


def digits(number: float) -> float:
    """As many digits as are told."""
    return float(f"{number:.{_DIGITS}g}")


def ratio(part: float, whole: float) -> float | None:
    """A share, None of nothing."""
    return digits(part / whole) if whole > 0 else None


def milliseconds(seconds: float | None) -> float | None:
    """A latency for people and for programs."""
    return None if seconds is None else float(f"{seconds * 1e3:.4g}")


# -- timeline --------------------------------------------------------------------------------------


def write_timeline(replayed: Replayed, file: TextIO, policy: str = ROUTER) -> None:
    """CSV, a row for each interval and model. Times are from the start of the reported part."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_TIMELINE)
    writer.writerows(_timeline_rows(replayed, policy))


def _timeline_rows(replayed: Replayed, policy: str) -> Iterator[tuple[object, ...]]:
    results = sorted(replayed.policies[policy].items())
    intervals = round(replayed.horizon_s / replayed.interval_s)
    for interval in range(intervals):
        for name, result in results:
            line = result.timeline
            yield (
                f"{interval * replayed.interval_s:.10g}",
                name,
                line.arrivals[interval],
                f"{line.replicas_ready[interval]:.9g}",
                f"{line.replicas_billed[interval]:.9g}",
                line.pool_requests[interval],
                line.serverless_requests[interval],
                line.cold_starts[interval],
                line.violations[interval],
                f"{line.cost_usd[interval]:.12g}",
            )


# -- for people ------------------------------------------------------------------------------------


def show(report: Figures, console: Console) -> None:
    """The comparison, the parts of the bill, and the models."""
    parts: list[Table | Text] = [_comparison(report), _bill(report)]
    if len(report["models"]) > 1:
        parts.append(_models(report))
    console.print(Group(*parts))
    for reason, count in report["rows_left_out"].items():
        console.print(f"{count:,} rows left out: {reason}", style="yellow", markup=False)


def _comparison(report: Figures) -> Table:
    hours = report["horizon_s"] / 3600
    shown = table(f"{report['requests']:,} requests in {hours:,.1f} h", "policy", _HEADINGS)
    rows = {"this router": report, "in hindsight": report[CLAIRVOYANT], **report["baselines"]}
    for name, row in rows.items():
        style = "bold" if row is report else None
        shown.add_row(name.replace("_", " "), *_cells(row), style=style)
    return shown


_HEADINGS = ("USD", "limit", "opt", "best", "missed", "p50", "p99", "on fn", "cold")
_MODEL_HEADINGS = ("requests", "USD", "opt", "best", "missed", "p50", "p99", "on fn", "starts")
_LEGEND = (
    "limit: the bill over the request-level limit. opt: over the optimum in hindsight, every"
    " replica full. best: over the best schedule in hindsight, replayed. The other policies size"
    " replicas; under all of them, requests are steered as by this router. missed: later than the"
    " objective, or refused. p50, p99: in ms. on fn: share on serverless. cold: share started cold."
)


def table(title: str, first: str, headings: tuple[str, ...]) -> Table:
    """An empty table that fits into 80 columns."""
    made = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    made.add_column(first, no_wrap=True)
    for heading in headings:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def _cells(row: Figures) -> tuple[str, ...]:
    return (
        usd(row["cost_usd"]),
        _plain(row["limit_ratio"], "{:.2f}"),
        _plain(row["optimum_ratio"], "{:.2f}"),
        _plain(row["replayed_optimum_ratio"], "{:.2f}"),
        _percent(row["violations_ratio"]),
        _plain(row["p50_ms"], "{:.0f}"),
        _plain(row["p99_ms"], "{:.0f}"),
        _percent(row["serverless_ratio"]),
        _percent(row["cold_ratio"]),
    )


def _bill(report: Figures) -> Text:
    told = ", ".join(
        f"{name.replace('_', ' ')} {usd(part)}" for name, part in report["cost_parts"].items()
    )
    optimum = usd(report["optimum_usd"])
    lines = [
        f"{_LEGEND}\n",
        f"The bill: {told}.",
        f"The optimum is {optimum} USD (the future known, demand even within each 10 s).",
    ]
    if report["limit_usd"]:
        limit = usd(report["limit_usd"])
        lines.append(f"The limit is {limit} USD: no policy with the same objective can pay less.")
    lines += [_told_of_pool(name, pool) for name, pool in report["pools"].items()]
    if report["allowed_cold_late_ratio"]:
        late = _percent(report["allowed_cold_late_ratio"])
        lines.append(f"Late by a cold start, which cold_start: allow accepts: {late} of requests.")
    if report["throttled_calls"]:
        lines.append(f"The platform refused {report['throttled_calls']:,} calls (429).")
    return Text("\n".join(lines) + "\n")


def _told_of_pool(name: str, pool: Figures) -> str:
    alone, together = pool["alone_optimum_ratio"], pool["optimum_ratio"]
    return (
        f"Pool {name}: {pool['models']:,} models share replicas for {usd(pool['cost_usd'])} USD,"
        f" {_plain(together, '{:.2f}')} of the optimum for them together and"
        f" {_plain(alone, '{:.2f}')} of the optimum with replicas of their own."
    )


def _models(report: Figures) -> Table:
    shown = table("this router, by model", "model", _MODEL_HEADINGS)
    dearest = sorted(report["models"].items(), key=lambda item: -item[1]["cost_usd"])
    for name, row in dearest[:_MAX_MODEL_ROWS]:
        bill, _, *others, _ = _cells(row)
        shown.add_row(
            Text(name), f"{row['requests']:,}", bill, *others, f"{row['replica_starts']:,}"
        )
    if rest := [row for _, row in dearest[_MAX_MODEL_ROWS:]]:
        shown.add_row(*_rest(rest), style="italic")
    return shown


def _rest(rows: Sequence[Figures]) -> tuple[str, ...]:
    """One line for models that have none of their own; percentiles do not add up."""
    requests, cost_usd, optimum_usd, missed, serverless, starts = (
        # A model without requests in the reported part has no ratios.
        sum((row[key] or 0) * weight(row) for row in rows)
        for key, weight in (
            ("requests", _once), ("cost_usd", _once), ("optimum_usd", _once),
            ("violations_ratio", _requests), ("serverless_ratio", _requests),
            ("replica_starts", _once),
        )
    )  # fmt: skip
    return (
        f"{len(rows):,} others", f"{requests:,}", usd(cost_usd),
        _plain(ratio(cost_usd, optimum_usd), "{:.2f}"), "-", _percent(ratio(missed, requests)),
        "-", "-", _percent(ratio(serverless, requests)), f"{starts:,}",
    )  # fmt: skip


def _once(_row: Figures) -> float:
    return 1


def _requests(row: Figures) -> float:
    return float(row["requests"])


def usd(amount: float | None) -> str:
    """An amount in few digits."""
    if amount is None:
        return "-"
    return f"{amount:,.2f}" if amount >= 100 else f"{amount:.3g}"


def _percent(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    percent = 100 * ratio
    if 0 < percent < 0.01:
        return "<0.01%"
    return f"{percent:.0f}%" if percent >= 10 or not percent else f"{percent:.2f}%"


def _plain(number: float | None, form: str) -> str:
    return "-" if number is None else form.format(number)
