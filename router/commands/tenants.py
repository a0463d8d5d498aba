"""`hybrid-router tenants`: who asks a running gateway for what, who pays, and who is refused."""

import asyncio
import json
from typing import Any

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from router.commands.admin_client import (
    ADMIN_URL,
    AdminError,
    AdminPort,
    fleet_option,
    path_of,
    token_option,
)
from router.commands.exits import fail
from router.commands.status_view import table

_COLUMNS = ("tenant", "requests", "not ok", "tokens", "GB-s", "USD", "% of the bill", "budget")
_OF_REFUSALS = ("key", "cause", "count")


@click.command()
@click.option("--admin", default=ADMIN_URL, show_default=True, metavar="URL", help="Admin port.")
@token_option
@fleet_option
@click.option("--json", "as_json", is_flag=True, help="Print the document instead of a table.")
def tenants(admin: str, token: str | None, fleet: bool, as_json: bool) -> None:
    """Show requests, tokens, cost and budget of each tenant, and refusals of each key."""
    try:
        document = asyncio.run(AdminPort(admin, token).ask(path_of("/v1/tenants", fleet=fleet)))
    except AdminError as error:
        fail(str(error))
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        Console().print(render(document))


def render(document: dict[str, Any]) -> Group:
    """The document of `/v1/tenants`, who pays most first."""
    costs = {name: sum(parts.values()) for name, parts in document["cost_usd"].items()}
    bill = sum(costs.values())
    names = sorted(costs.keys() | document["requests"].keys(), key=lambda n: -costs.get(n, 0.0))
    rows = [_row(document, name, costs.get(name, 0.0), bill) for name in names]
    refusals = [
        (key or "(none)", cause, f"{count:.0f}")
        for key, causes in document["refusals"].items()
        for cause, count in causes.items()
    ]
    parts: list[Table | Text] = [
        table(_COLUMNS, rows), Text(f"{bill:.6f} USD since the start")
    ]  # fmt: skip
    if refusals:
        parts += [Text(""), table(_OF_REFUSALS, refusals)]
    return Group(*parts)


def _row(document: dict[str, Any], name: str, usd: float, bill: float) -> tuple[str, ...]:
    requests = document["requests"].get(name, {})
    total = sum(requests.values())
    tokens = sum(document["tokens"].get(name, {}).values())
    gb_s = sum(document["gb_s"].get(name, {}).values())
    return (
        name or "(nobody)", f"{total:.0f}", f"{total - requests.get('ok', 0):.0f}", f"{tokens:.0f}",
        f"{gb_s:.3f}", f"{usd:.6f}", f"{100 * usd / bill:.1f}" if bill else "",
        ", ".join(
            f"{100 * found['spent_usd'] / found['usd']:.0f} % of {found['usd']:g}/{period}"
            for period, found in document["budgets"].get(name, {}).items()
        ),
    )  # fmt: skip
