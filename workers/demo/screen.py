"""What a person watches during the demo: answers, where they came from, replicas, latency, cost."""

from collections import Counter, defaultdict, deque
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from workers.demo.scenes import Scene, Step

_LINES = 8


class Tally:
    """Calls so far, by model, backend and reason."""

    def __init__(self) -> None:
        self._latencies: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
        self._cold: Counter[tuple[str, str, str]] = Counter()
        self.latest: deque[Step] = deque(maxlen=_LINES)

    def add(self, step: Step) -> None:
        """Count a call."""
        call = step.call
        self.latest.append(step)
        if call.status != 200:
            return
        key = call.model, call.backend, call.reason
        if call.cold:
            self._cold[key] += 1
        else:
            self._latencies[key].append(call.latency_s)

    def table(self) -> Table:
        """Calls and their latency; cold calls are counted apart."""
        table = Table(title="where requests went, and why", title_justify="left")
        for name in ("model", "backend", "reason", "calls", "cold", "p50 ms", "p99 ms"):
            table.add_column(
                name, justify="left" if name in {"model", "backend", "reason"} else "right"
            )
        for key in sorted(self._latencies.keys() | self._cold.keys()):
            times = self._latencies[key]
            calls = len(times) + self._cold[key]
            shown = (
                [f"{p * 1e3:.1f}" for p in np.percentile(times, (50, 99))] if times else ["", ""]
            )
            table.add_row(*key, str(calls), str(self._cold[key]), *shown)
        return table


def replicas_table(status: dict[str, Any] | None) -> RenderableType:
    """Replicas and cost so far, as the admin port tells them."""
    if status is None:
        return Text("the admin port does not answer", style="red")
    table = Table(title="replicas and estimated cost so far", title_justify="left")
    for name in ("model", "load req/s", "ready", "wanted", "because", "serverless $", "warm $"):
        table.add_column(name, justify="left" if name in {"model", "because"} else "right")
    for model in status["models"]:
        cost = model["cost_usd"]
        table.add_row(
            model["name"],
            f"{model['load_rps']:.1f}",
            str(model["replicas_ready"]),
            str(model["replicas_wanted"]),
            model["sizing_reason"],
            f"{cost['serverless']:.6f}",
            f"{cost['warm_busy'] + cost['warm_idle']:.6f}",
        )
    return table


def screen(scene: Scene | None, tally: Tally, status: dict[str, Any] | None) -> Group:
    """Everything at once; `scene` None is the summary at the end."""
    if scene is None:
        return Group(tally.table(), replicas_table(status))
    lines = [Text(_line(step), no_wrap=True, overflow="ellipsis") for step in tally.latest]
    title = f"{scene.title}: {scene.expectation}"
    return Group(Panel(Group(*lines), title=title), tally.table(), replicas_table(status))


def _line(step: Step) -> str:
    call = step.call
    where = f"{call.backend}/{call.reason}" if call.backend else f"status {call.status}"
    cold = " COLD" if call.cold else ""
    return f"{call.model:<8} {call.latency_s * 1e3:7.1f} ms{cold}  {where:<28} {step.meaning}"
