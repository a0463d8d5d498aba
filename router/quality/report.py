"""The quality of a model as one HTML page without scripts: distributions, accuracy, alarms. Pure.

Made of the document of `/v1/quality`; draws what it is given, and nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_BASELINE, _NOW, _ALARM = "#999999", "#0072b2", "#d55e00"  # of Okabe and Ito's palette
_WIDTH, _ROW, _LABEL, _BAR = 460, 16, 130, 270
_CHART_WIDTH, _CHART_HEIGHT, _MARGIN = 720, 180, 44
MAX_FEATURES = 60

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.2rem .7rem;text-align:left}
tr+tr{border-top:1px solid #ddd}td.n{text-align:right;font-variant-numeric:tabular-nums}
.features{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;padding:.5rem;border:1px solid #ddd}
figure.drifting{border-color:#d55e00}svg text{font-size:11px;fill:#444}small{color:#666}
"""


def page(model: str, document: Mapping[str, Any], made_at: str) -> str:
    """The page of one model."""
    found = [each for each in document["models"] if each["name"] == model]
    versions = found[0]["versions"] if found else []
    body = "".join(_version(each) for each in versions) or "<p>Nothing has been sampled yet.</p>"
    canaries = "".join(_canary(each) for each in document["canaries"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Quality of {escape(model)}'
        f"</title><style>{_STYLE}</style><h1>Quality of {escape(model)}</h1><p><small>"
        f"{escape(made_at)}, {document['gateways']} gateway(s)</small></p>{canaries}{body}</html>\n"
    )


def _version(version: Mapping[str, Any]) -> str:
    baseline = version["baseline"]
    told = (
        f"a baseline is being learned: {version['learned']} samples so far"
        if baseline is None
        else f"baseline: {baseline['source']}, {baseline['samples']} samples, {baseline['made_at']}"
    )
    name = version["version"] or "(not named)"
    parts = [
        f"<h2>Version {escape(name)}</h2><p>{version['samples']} samples; {escape(told)}.</p>",
        _alarms(version["alarms"]),
        _metrics("Accuracy", version["accuracy"]),
        *(_metrics(f"Side: {side}", found) for side, found in _sides(version)),
        _over_time(version["by_hour"]),
        _features(version["features"], set(version["drifting"])),
    ]
    return "".join(parts)


def _sides(version: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    sides = version["by_side"]
    return sides.items() if len(sides) > 1 else ()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(each)}</th>" for each in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _alarms(alarms: Sequence[Mapping[str, Any]]) -> str:
    if not alarms:
        return "<p>No alarms.</p>"
    return "<h3>Alarms</h3>" + _table(
        ("when", "what"), ([each["at"], each["text"]] for each in alarms)
    )


def _metrics(title: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    if not found:
        return ""
    rows = (
        [name, f"{m['value']:.4g}", f"{m['low']:.4g} to {m['high']:.4g}", str(m["labels"])]
        for name, m in found.items()
    )
    return f"<h3>{escape(title)}</h3>" + _table(("metric", "value", "95 %", "labels"), rows)


def _canary(canary: Mapping[str, Any]) -> str:
    rows = (
        [
            side,
            str(found["labels"]),
            "" if found["wrong"] is None else f"{found['wrong']:.2%}",
            f"{found['between'][0]:.2%} to {found['between'][1]:.2%}",
        ]
        for side, found in canary["sides"].items()
    )
    return f"<h2>Canary of rule {escape(canary['rule'])}</h2>" + _table(
        ("side", "labels", "wrong", "surely between"), rows
    )


def _over_time(hours: Sequence[Mapping[str, Any]]) -> str:
    """Right answers by hour, each with its interval."""
    if not hours:
        return ""
    inner = _CHART_WIDTH - 2 * _MARGIN
    step = inner / max(len(hours), 1)

    def y(share: float) -> float:
        return _CHART_HEIGHT - 24 - (_CHART_HEIGHT - 40) * share

    marks = [
        f'<line x1="{_MARGIN}" x2="{_CHART_WIDTH - _MARGIN}" y1="{y(share):.1f}"'
        f' y2="{y(share):.1f}" stroke="#ddd"/><text x="4" y="{y(share) + 4:.1f}">'
        f"{share:.0%}</text>"
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for at, hour in enumerate(hours):
        x = _MARGIN + step * (at + 0.5)
        told = f"{hour['from']}: {hour['value']:.3g} of {hour['labels']} labels"
        marks.append(
            f'<g><title>{escape(told)}</title><line x1="{x:.1f}" x2="{x:.1f}"'
            f' y1="{y(hour["low"]):.1f}" y2="{y(hour["high"]):.1f}" stroke="{_NOW}"'
            f' stroke-width="2"/><circle cx="{x:.1f}" cy="{y(hour["value"]):.1f}" r="4"'
            f' fill="{_NOW}"/></g>'
        )
    first, last = hours[0]["from"], hours[-1]["from"]
    return (
        f'<h3>Right answers by hour</h3><svg viewBox="0 0 {_CHART_WIDTH} {_CHART_HEIGHT}"'
        f' width="{_CHART_WIDTH}" role="img" aria-label="share of right answers by hour">'
        f'{"".join(marks)}<text x="{_MARGIN}" y="{_CHART_HEIGHT - 4}">{escape(first)}</text>'
        f'<text x="{_CHART_WIDTH - _MARGIN}" y="{_CHART_HEIGHT - 4}" text-anchor="end">'
        f"{escape(last)}</text></svg>"
    )


def _features(features: Sequence[Mapping[str, Any]], drifting: set[str]) -> str:
    if not features:
        return ""
    ordered = sorted(features, key=lambda each: -each["psi"])[:MAX_FEATURES]
    shown = "".join(_feature(each, each["name"] in drifting) for each in ordered)
    return (
        f'<h3>Distributions</h3><p><small><b style="color:{_BASELINE}">baseline</b>, '
        f'<b style="color:{_NOW}">last window</b>, <b style="color:{_ALARM}">changed</b>; the'
        f' largest index first.</small></p><div class="features">{shown}</div>'
    )


def _feature(feature: Mapping[str, Any], is_drifting: bool) -> str:
    before, now = feature["baseline"], feature["now"]
    cells = list(dict.fromkeys([*before, *now]))
    highest = max([*before.values(), *now.values()], default=0.0) or 1.0
    colour = _ALARM if is_drifting else _NOW
    rows = []
    for at, cell in enumerate(cells):
        top = 4 + at * _ROW
        rows += [
            f'<text x="{_LABEL - 6}" y="{top + 11}" text-anchor="end">{escape(cell)}</text>',
            _bar(cell, top, before.get(cell, 0.0), highest, _BASELINE),
            _bar(cell, top + 6, now.get(cell, 0.0), highest, colour),
        ]
    height = 8 + len(cells) * _ROW
    name, mark = escape(feature["name"]), ' class="drifting"' if is_drifting else ""
    return (
        f"<figure{mark}><figcaption>{name} <small>PSI {feature['psi']:.3f}</small></figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img"'
        f' aria-label="distribution of {name}">{"".join(rows)}</svg></figure>'
    )


def _bar(cell: str, top: int, share: float, highest: float, colour: str) -> str:
    return (
        f'<rect x="{_LABEL}" y="{top}" width="{_BAR * share / highest:.1f}" height="6"'
        f' fill="{colour}"><title>{escape(cell)}: {share:.1%}</title></rect>'
    )
