"""A gateway's status as a table for people, once or live. Talks to the admin port only."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from router.commands.admin_client import AdminError, AdminPort

STATUS = "/v1/status"


async def show_once(
    admin: AdminPort, console: Console, model: str | None = None, path: str = STATUS
) -> None:
    """Print the table. Raises AdminError."""
    console.print(render(await admin.ask(path), model))


async def show_live(
    admin: AdminPort,
    console: Console,
    interval_s: float,
    model: str | None = None,
    path: str = STATUS,
) -> None:
    """Redraw the table until interrupted. Raises AdminError if nothing answers at first."""
    document = await admin.ask(path)
    with Live(render(document, model), console=console, auto_refresh=False) as live:
        while True:
            try:
                live.update(render(await admin.ask(path), model), refresh=True)
            except AdminError as error:
                live.update(Text(str(error), style="red"), refresh=True)
            await asyncio.sleep(interval_s)


def only(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The document with that model alone. Raises AdminError if there is none of that name."""
    models = [model for model in document["models"] if model["name"] == name]
    if not models:
        known = ", ".join(model["name"] for model in document["models"][:20])
        raise AdminError(f"no model {name!r} is configured; there are {known}")
    return {**document, "models": models}


def render(document: dict[str, Any], model: str | None = None) -> Group:
    """The status document as a table with lines on what its marks mean, and on the gateway.

    With a model's name, that one alone with its replicas and reasons. Raises AdminError.
    """
    if model is not None:
        document = only(document, model)
    rows = [_row(each) for each in document["models"]]
    parts: list[Table | Text] = [table(_COLUMNS, rows)]
    if model is not None:
        parts += _details(document["models"][0])
    lines = [*_marks(document), *_canaries(document), *gateways(document), _footer(document)]
    return Group(*parts, *map(Text, lines))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Plain and narrow: those of the status have to fit into a terminal of 80 characters."""
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        is_text = name in _TEXTS
        made.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def _details(model: dict[str, Any]) -> list[Table | Text]:
    """A model's replicas, why requests went where they went, and what that cost."""
    rows = [
        (
            endpoint["id"], endpoint["state"], f"{endpoint['in_flight']}/{endpoint['slots']}",
            _ms(endpoint["p50_ms"]), _ms(endpoint["p99_ms"]), str(endpoint["errors"]),
            str(endpoint["set_aside"]), endpoint["why_aside"] or endpoint["address"] or "",
        )
        for endpoint in model["endpoints"]
    ]  # fmt: skip
    shown: list[Table | Text] = [Text("")]
    if rows:
        shown += [table(_OF_ENDPOINTS, rows), Text("")]
    recent, slo, sizing = model["recent"], model["slo"], model["counters"]
    times = f"p50 {_ms(recent['p50_ms']) or '-'} ms, p99 {_ms(recent['p99_ms']) or '-'} ms"
    aim = f"{slo['percentile']:g} % within {slo['latency_ms']:g} ms"
    start, stop = _percent(sizing["start"]), _percent(sizing["stop"])
    way = f"the next replica is {start} of the way to its start, the last {stop} to its end"
    lines = [
        f"reasons: {_told(model['reasons']) or 'no request yet'}",
        f"last minute: {recent['requests']} requests, {times}; {_told(recent['reasons'])}",
        f"objective: {aim}; last minute: {_told(recent['objective']) or 'no request'}",
        f"rules: {_told(model['rules']) or 'no request yet'}",
        f"sizing: {way}",
        f"USD: {_usd(model['cost_usd'])}",
        f"USD instead: {_usd(model['alternatives_usd']) or 'nothing to compare with'}",
    ]
    return [*shown, *map(Text, lines), Text("")]


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda i: -i[1]))


def _usd(parts: dict[str, float]) -> str:
    return ", ".join(f"{part} {cost:.6f}" for part, cost in parts.items())


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.0f} %"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _marks(document: dict[str, Any]) -> list[str]:
    """What the marks in the table mean, those that are there."""
    models = document["models"]
    lines = []
    if any(model["serverless"] and model["serverless"]["breaker_open"] for model in models):
        lines.append("! the function is not called for now: it failed, or asked for a pause")
    if any(model["panicking"] for model in models):
        lines.append("? so many replicas are bad that bad ones are used again")
    if any(model["sized_by_others"] for model in models):
        lines.append("* something else sets the number of replicas")
    if any(_is_late(model) for model in models):
        lines.append("> the last minute's p99 is above the objective")
    return lines


_COLUMNS = (
    "model", "req/s", "p99 ms", "ready", "because", "queue", "calls", "cold", "fn", "pool", "USD",
)  # fmt: skip
_OF_ENDPOINTS = (
    "replica", "state", "busy", "p50 ms", "p99 ms", "errors", "aside", "address, or why set aside",
)  # fmt: skip
_TEXTS = {
    "model", "because", "replica", "state", "address, or why set aside", "tenant", "key", "cause",
    "budget",
}  # fmt: skip


def _row(model: dict[str, Any]) -> list[str]:
    function = model["serverless"]
    calls = cold = ""
    marks = "?" * model["panicking"] + "*" * model["sized_by_others"]
    if function is not None:
        mark = "!" if function["breaker_open"] else ""
        calls = f"{function['in_flight']}/{function['max_concurrency']}{mark}"
        cold = str(function["cold_calls"])
    return [
        model["name"],
        f"{model['load_rps']:.1f}",
        f"{'>' * _is_late(model)}{_ms(model['recent']['p99_ms'])}",
        f"{model['replicas_ready']}/{model['replicas_wanted']}{marks}",
        model["sizing_reason"],
        str(model["queued"]),
        calls,
        cold,
        str(model["split"]["serverless"]),
        str(model["split"]["pool"]),
        f"{sum(model['cost_usd'].values()):.6f}",
    ]


def _is_late(model: dict[str, Any]) -> bool:
    p99_ms: float | None = model["recent"]["p99_ms"]
    return p99_ms is not None and p99_ms > model["slo"]["latency_ms"]


def _canaries(document: dict[str, Any]) -> list[str]:
    """A line for each canary: what it gets, or why it gets nothing."""
    lines = []
    for canary in document["canaries"]:
        told = f"gets {canary['share_percent']:g} %"
        if canary["finding"] is not None:
            told = f"ROLLED BACK: {canary['finding']}"
        lines.append(f"canary {canary['rule']} of {canary['model']} {told}")
    return lines


def gateways(document: dict[str, Any]) -> list[str]:
    """A line for each gateway that is in the sums, and for those that are missing there."""
    lines = []
    for one in document.get("gateways", ()):
        marks = " (asked)" * one["is_asked"]
        marks += " ANOTHER CONFIGURATION" * one["config_differs"]
        if one["models_left_out"]:
            marks += f" WITHOUT {one['models_left_out']} MODELS"
        began = datetime.fromtimestamp(one["started_at"], UTC).isoformat(" ", "seconds")[:-6]
        lines.append(
            f"gateway {one['id']}: {one['version']}, since {began} UTC, configuration"
            f" {one['config_hash'][:12]}, {one['in_flight']} in flight{marks}"
        )
    missing = document.get("gateways_not_heard", ())
    return lines + [f"gateway {name}: NOT HEARD, not in these sums" for name in missing]


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
