"""A gateway's status as a table for people, once or live. Talks to the admin port only."""

import asyncio
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from router.commands.admin_client import AdminError, AdminPort


async def show_once(admin: AdminPort, console: Console) -> None:
    """Print the table. Raises AdminError."""
    console.print(render(await admin.ask("/v1/status")))


async def show_live(admin: AdminPort, console: Console, interval_s: float) -> None:
    """Redraw the table until interrupted. Raises AdminError if nothing answers at first."""
    document = await admin.ask("/v1/status")
    with Live(render(document), console=console, auto_refresh=False) as live:
        while True:
            try:
                live.update(render(await admin.ask("/v1/status")), refresh=True)
            except AdminError as error:
                live.update(Text(str(error), style="red"), refresh=True)
            await asyncio.sleep(interval_s)


def render(document: dict[str, Any]) -> Group:
    """The status document as a table with a line on the configuration and the shared state."""
    # Plain and narrow: ten columns have to fit into a terminal of 80 characters.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        left = name in {"model", "because"}
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for model in document["models"]:
        table.add_row(*_row(model))
    return Group(table, *map(Text, _canaries(document)), Text(_footer(document)))


_COLUMNS = (
    "model", "req/s", "ready", "because", "queue", "calls", "cold", "fn", "pool", "USD",
)  # fmt: skip


def _row(model: dict[str, Any]) -> list[str]:
    function = model["serverless"]
    calls = cold = ""
    if function is not None:
        mark = "!" if function["breaker_open"] else ""
        calls = f"{function['in_flight']}/{function['max_concurrency']}{mark}"
        cold = str(function["cold_calls"])
    return [
        model["name"],
        f"{model['load_rps']:.1f}",
        f"{model['replicas_ready']}/{model['replicas_wanted']}",
        model["sizing_reason"],
        str(model["queued"]),
        calls,
        cold,
        str(model["split"]["serverless"]),
        str(model["split"]["pool"]),
        f"{sum(model['cost_usd'].values()):.6f}",
    ]


def _canaries(document: dict[str, Any]) -> list[str]:
    """A line for each canary: what it gets, or why it gets nothing."""
    lines = []
    for canary in document["canaries"]:
        told = f"gets {canary['share_percent']:g} %"
        if canary["finding"] is not None:
            told = f"ROLLED BACK: {canary['finding']}"
        lines.append(f"canary {canary['rule']} of {canary['model']} {told}")
    return lines


def _footer(document: dict[str, Any]) -> str:
    config, shared = document["config"], document["shared_state"]
    parts = [
        f"configuration {config['hash'][:12]}",
        f"shared state: {shared['mode']}{' DEGRADED' if shared['degraded'] else ''}",
        f"{document['in_flight']} in flight",
    ]
    certificate = document.get("certificate")
    if certificate and certificate["warning"]:
        parts.append(certificate["warning"].upper())
    if document["draining"]:
        parts.append("DRAINING")
    if config["last_error"]:
        parts.append(f"last reload failed: {config['last_error'].splitlines()[0]}")
    return "  |  ".join(parts)
