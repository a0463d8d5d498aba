"""What a search has found, for people and for programs: settings to write, and what they save."""

from collections.abc import Mapping
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.replay.choices import Choice
from router.replay.report import digits, milliseconds, ratio, table, usd
from router.replay.suggest import Outcome, Suggested
from router.replay.tally import Sums
from router.settings.quantities import show_size

Figures = dict[str, Any]


def suggestion_document(suggested: Suggested) -> Figures:
    """All figures by model, and the settings that hold."""
    return {
        "settings": settings_of(suggested),
        "models": {
            name: {
                "tried": _keys(outcome.choice),
                "holds": name in suggested.holds,
                "searched": _sides(outcome.searched),
                "rest": _sides(outcome.rest),
            }
            for name, outcome in sorted(suggested.models.items())
        },
        "searched_s": suggested.searched_s,
        "rest_s": suggested.rest_s,
        "rows_left_out": dict(suggested.dropped.counts),
    }


def settings_of(suggested: Suggested) -> Figures:
    """What to write into the settings file; empty if there is nothing to suggest."""
    held = {
        name: outcome.choice
        for name, outcome in sorted(suggested.models.items())
        if name in suggested.holds
    }
    thresholds = dict(pair for choice in held.values() for pair in choice.thresholds)
    models = [
        {"name": name, "pool": pool} for name, choice in held.items() if (pool := _pool(choice))
    ]
    rules = [
        {"name": name, "match": {"payload": _over(min_bytes)}}
        for name, min_bytes in sorted(thresholds.items())
    ]
    return {key: found for key, found in (("models", models), ("rules", rules)) if found}


def _pool(choice: Choice) -> Figures:
    keys = {
        "packing": choice.packing,
        "min_replicas": choice.min_replicas,
        "max_replicas": choice.max_replicas,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _keys(choice: Choice) -> Figures:
    return {**_pool(choice), **{f"rule {name}": _over(size) for name, size in choice.thresholds}}


def _over(min_bytes: int) -> str:
    return f">{show_size(min_bytes - 1)}"


def _sides(sums: tuple[Sums, Sums]) -> Figures:
    return {side: _figures(each) for side, each in zip(("now", "chosen"), sums, strict=True)}


def _figures(sums: Sums) -> Figures:
    return {
        "requests": sums.requests,
        "cost_usd": digits(sums.cost_usd),
        "violations_ratio": ratio(sums.violations, sums.requests),
        "p99_ms": milliseconds(sums.percentile_s(99)),
    }


def show_suggestion(suggested: Suggested, report: Mapping[str, Any], console: Console) -> None:
    """What to change, what it saves on the part that was not searched, and what did not hold."""
    hours = suggested.searched_s / 3600, suggested.rest_s / 3600
    console.print(f"Searched on the first {hours[0]:.2g} h, checked on the {hours[1]:.2g} h after.")
    changed = {
        name: outcome for name, outcome in sorted(suggested.models.items()) if _keys(outcome.choice)
    }
    if changed:
        console.print(_table(changed, suggested))
    if report["settings"]:
        console.print("Write into your settings (nothing else there changes):\n")
        written = yaml.safe_dump(report["settings"], sort_keys=False)
        console.print(written, markup=False, highlight=False)
    else:
        console.print(
            "Nothing to suggest: no payload threshold, packing or limit of replicas that was tried"
            " saves 1 % on both parts without missing more objectives."
        )
    for reason, count in report["rows_left_out"].items():
        console.print(f"{count:,} rows left out: {reason}", style="yellow", markup=False)


def _table(changed: Mapping[str, Outcome], suggested: Suggested) -> Table:
    shown = table("On the part that was not searched", "model", _HEADINGS)
    for name, outcome in changed.items():
        now, chosen = outcome.rest
        settings = ", ".join(f"{key} {value}" for key, value in _keys(outcome.choice).items())
        missed = (ratio(sums.violations, sums.requests) or 0.0 for sums in (now, chosen))
        shown.add_row(
            Text(name),
            settings,
            usd(now.cost_usd),
            usd(chosen.cost_usd),
            " -> ".join(f"{100 * share:.3g}%" for share in missed),
            "yes" if name in suggested.holds else "no",
        )
    return shown


_HEADINGS = ("settings", "USD now", "chosen", "missed", "holds")
