"""The page of a replay: one self-contained HTML file, without scripts, that explains itself.

Load and replicas, where requests went, and the bill over time beside what it could have been.
"""

from collections.abc import Callable, Mapping
from html import escape
from string import Template
from typing import Any

import numpy as np

from router.replay.chart import BLUE, GREEN, GREY, ORANGE, VERMILLION, Series, chart
from router.replay.distributions import Floats, Ints
from router.replay.policies import CLAIRVOYANT, ROUTER
from router.replay.replay import Replayed
from router.replay.tally import Timeline

_MAX_POINTS = 480

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Replay of $trace</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; background: #fff; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .2rem; }
p { margin: .2rem 0 .6rem; max-width: 46rem; } .quiet { color: #555; }
svg { width: 100%; height: auto; display: block; }
.grid { stroke: #ddd; } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.area { stroke: none; fill-opacity: .45; }
text { font: 12px system-ui, sans-serif; fill: #333; } .axis { font-weight: 600; }
.end { text-anchor: end; } .mid { text-anchor: middle; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
tr.own { font-weight: 700; }
.wide { overflow-x: auto; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; }
  svg, table { break-inside: avoid; } }
</style>
</head>
<body>
<h1>$headline</h1>
<p class="quiet">$about</p>
<p>$summary</p>
<h2>Load and replicas</h2>
<p>The line is the work that arrived, in fully used replicas. The steps are replicas ready and
replicas paid for: start-up and minimum billing make the second larger.</p>
$replicas
<h2>Where requests went</h2>
<p>Requests per second, stacked: the pool below, serverless above. Refused ones are in neither.</p>
$requests
<h2>What went wrong</h2>
<p>Violations of the objective (late or refused) and cold starts, per minute.</p>
$trouble
<h2>The bill so far</h2>
<p>US dollars since the start. The dashed line is the optimum: it knows the future and fills every
replica.</p>
$cost
<h2>The same traffic under other policies</h2>
<div class="wide">
<table>
<tr><th>policy</th><th>USD</th><th>x optimum</th><th>x best</th><th>violations</th>
<th>p50 ms</th><th>p99 ms</th><th>serverless</th><th>cold</th><th>replica starts</th></tr>
$rows
</table>
</div>
<p class="quiet">Violations are requests later than the objective or refused. $excused
x optimum: the bill over the optimum in hindsight, every replica full;
x best: over the best schedule in hindsight, replayed.</p>
</body>
</html>
""")


def page(replayed: Replayed, report: Mapping[str, Any]) -> str:
    """The page as HTML."""
    intervals = round(replayed.horizon_s / replayed.interval_s)
    merge = -(-intervals // _MAX_POINTS)
    step_s = replayed.interval_s * merge
    lines = [result.timeline for result in replayed.policies[ROUTER].values()]

    def mean(column: Callable[[Timeline], Floats | Ints]) -> Floats:
        """All models' column, averaged over what is drawn as one point."""
        return _merged(np.array([column(line) for line in lines], np.float64).sum(axis=0), merge)

    per_s = 1.0 / replayed.interval_s
    pool, serverless = mean(lambda t: t.pool_requests), mean(lambda t: t.serverless_requests)
    charts = {
        "replicas": (
            "replicas",
            "replicas and load over time",
            [
                Series("paid for", mean(lambda t: t.replicas_billed), ORANGE, "6 3", is_step=True),
                Series("ready", mean(lambda t: t.replicas_ready), BLUE, is_step=True),
                Series("load", _load(replayed, merge), GREY, "2 2"),
            ],
        ),
        "requests": (
            "requests/s",
            "requests per second by backend",
            [
                Series("pool", pool * per_s, BLUE, is_area=True),
                Series("serverless", (pool + serverless) * per_s, ORANGE, is_area=True),
            ],
        ),
        "trouble": (
            "per minute",
            "violations and cold starts per minute",
            [
                Series("violations", mean(lambda t: t.violations) * per_s * 60, VERMILLION),
                Series("cold starts", mean(lambda t: t.cold_starts) * per_s * 60, GREEN, "5 3"),
            ],
        ),
        "cost": ("USD", "cumulative cost over time", _bills(replayed, merge)),
    }
    drawn = {
        name: chart(series, step_s, label, description)
        for name, (label, description, series) in charts.items()
    }
    return _PAGE.substitute(drawn, **_words(replayed, report))


def _merged(values: Floats, merge: int) -> Floats:
    """Averages over `merge` intervals; the last may be over fewer."""
    starts = np.arange(0, len(values), merge)
    sizes = np.diff(np.append(starts, len(values)))
    merged: Floats = np.add.reduceat(values, starts) / sizes
    return merged


def _load(replayed: Replayed, merge: int) -> Floats:
    bounds = list(replayed.bounds.values())
    summed = np.sum([bound.load for bound in bounds], axis=0)
    return _merged(summed, max(1, round(merge * replayed.interval_s / bounds[0].bin_s)))


def _bills(replayed: Replayed, merge: int) -> list[Series]:
    chosen = [
        ("this router", ROUTER, BLUE, ""),
        ("always serverless", "always_serverless", ORANGE, "1 3"),
        ("HPA + overflow", "hpa_overflow", GREEN, "8 3 2 3"),
    ]
    series = [
        Series(name, _cumulative(replayed, policy, merge), colour, dash)
        for name, policy, colour, dash in chosen
        if policy in replayed.policies
    ]
    bounds = list(replayed.bounds.values())
    usd = np.sum([bound.usd_per_bin for bound in bounds], axis=0)
    bins = max(1, round(merge * replayed.interval_s / bounds[0].bin_s))
    return [*series, Series("optimum", _last_of(np.cumsum(usd), bins), GREY, "6 4")]


def _cumulative(replayed: Replayed, policy: str, merge: int) -> Floats:
    lines = [result.timeline.cost_usd for result in replayed.policies[policy].values()]
    return _last_of(np.cumsum(np.sum(lines, axis=0)), merge)


def _last_of(values: Floats, merge: int) -> Floats:
    ends = np.minimum(np.arange(merge, len(values) + merge, merge), len(values)) - 1
    last: Floats = values[ends]
    return last


# -- words -----------------------------------------------------------------------------------------


def _words(replayed: Replayed, report: Mapping[str, Any]) -> dict[str, str]:
    trace = str(report["trace"]["name"])
    hours = replayed.horizon_s / 3600
    models = len(report["models"])
    about = (
        f"{report['requests']:,} requests in {hours:,.1f} hours, {models} model"
        f"{'' if models == 1 else 's'}, prices of {report['world']['dated']},"
        f" seed {report['seed']}."
    )
    late = report["allowed_cold_late_ratio"]
    excused = (
        f"Late by a cold start, where cold_start: allow accepts that, were {100 * late:.3g} %."
        if late
        else ""
    )
    return {
        "trace": escape(trace),
        "headline": f"{report['cost_usd']:,.4g} USD for {escape(trace)}",
        "about": escape(about),
        "summary": escape(_summary(report)),
        "excused": escape(excused),
        "rows": "\n".join(_rows(report)),
    }


def _summary(report: Mapping[str, Any]) -> str:
    told = []
    if report["optimum_ratio"] is not None:
        told.append(
            f"That is {report['optimum_ratio']:.3f} times the optimum in hindsight"
            f" ({report['optimum_usd']:,.4g} USD)."
        )
    told.append(
        f"{100 * (report['violations_ratio'] or 0):.3g} % of requests missed the objective."
    )
    kept = {
        name: row
        for name, row in report["baselines"].items()
        if row["violations_ratio"] <= max(report["violations_ratio"], 0.001)
    }
    if kept:
        name, row = min(kept.items(), key=lambda item: item[1]["cost_usd"])
        told.append(
            f"The cheapest alternative with so few misses, {name.replace('_', ' ')}, would have"
            f" cost {row['cost_usd']:,.4g} USD."
        )
    return " ".join(told)


def _rows(report: Mapping[str, Any]) -> list[str]:
    rows = {"this router": report, "best in hindsight": report[CLAIRVOYANT], **report["baselines"]}
    return [
        f"<tr{' class=own' if row is report else ''}><td>{escape(name.replace('_', ' '))}</td>"
        + "".join(f"<td>{cell}</td>" for cell in _cells(row))
        + "</tr>"
        for name, row in rows.items()
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    def told(key: str, form: str, times: int = 1) -> str:
        return "&ndash;" if row[key] is None else form.format(row[key] * times)

    return [
        told("cost_usd", "{:,.4g}"),
        told("optimum_ratio", "{:.3f}"),
        told("replayed_optimum_ratio", "{:.3f}"),
        told("violations_ratio", "{:.3g} %", 100),
        told("p50_ms", "{:.0f}"),
        told("p99_ms", "{:.0f}"),
        told("serverless_ratio", "{:.3g} %", 100),
        told("cold_ratio", "{:.3g} %", 100),
        told("replica_starts", "{:,}"),
    ]
