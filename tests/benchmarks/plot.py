"""Draws results.json as bars: CPU per request by system, a panel for each scenario.

Run as a program in an environment that has matplotlib: RESULTS.json PLOT.svg.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

# Kept out of the project's own environment; the benchmark gives it one of its own.
import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]
from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

_OURS, _OTHERS = "#d95f02", "#7570b3"
_PANEL_INCHES = (9, 2.6)


def draw(results: dict[str, Any], target: Path) -> None:
    """Write the picture; the same results give the same bytes."""
    mpl.rcParams["svg.hashsalt"] = "benchmarks"
    scenarios = results["scenarios"]
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width, height * len(scenarios)), layout="constrained")
    panels = figure.subplots(len(scenarios), 1, squeeze=False)[:, 0]
    for panel, scenario in zip(panels, scenarios, strict=True):
        _bars(panel, scenario)
    figure.savefig(target, metadata={"Date": None})


def _bars(panel: Any, scenario: dict[str, Any]) -> None:
    costs = {
        row["system"]: median(sample["cpu_us"] for sample in row["samples"] if sample)
        for row in scenario["rows"]
        if any(row["samples"])
    }
    names = sorted(costs, key=costs.__getitem__, reverse=True)
    colours = [_OURS if name.startswith("gateway") else _OTHERS for name in names]
    bars = panel.barh(names, [costs[name] for name in names], color=colours)
    panel.bar_label(bars, fmt=" {:,.1f}")
    panel.set_title(scenario["title"], loc="left")
    panel.set_xlabel("CPU per request, us (less is better)")
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.1)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
