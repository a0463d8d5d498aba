"""`hybrid-router events`: what has happened to a running gateway, and what happens."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import click

from router.commands.admin_client import ADMIN_URL, AdminError, AdminPort, token_option
from router.commands.exits import fail
from router.domain.events import EventKind
from router.gateway.admin.events import path_of
from router.telemetry.events import MOST_EVENTS, Search

_EVERY_S = 1.0


@click.command()
@click.option("--admin", default=ADMIN_URL, show_default=True, metavar="URL", help="Admin port.")
@token_option
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in EventKind]),
    default=None,
    help="Of that kind only.",
)
@click.option("--model", default="", help="About that model only.")
@click.option("--text", default="", help="With that text only.")
@click.option(
    "--last", "most", default=100, show_default=True, type=click.IntRange(1, MOST_EVENTS),
    help="So many of those that were.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with all numbers.")
def events(  # noqa: PLR0913, PLR0917  its options
    admin: str,
    token: str | None,
    follow: bool,
    kind: str | None,
    model: str,
    text: str,
    most: int,
    as_json: bool,
) -> None:
    """Show changes of configuration and size, ejections, circuits, rollbacks, Redis lost."""
    search = Search(kind=kind or "", model=model, text=text, most=most)
    try:
        asyncio.run(_show(AdminPort(admin, token), search, follow=follow, as_json=as_json))
    except AdminError as error:
        fail(str(error))
    except KeyboardInterrupt:
        return


async def _show(port: AdminPort, search: Search, *, follow: bool, as_json: bool) -> None:
    """Print what is found, and then what happens. Raises AdminError if nothing answers at first."""
    document = await port.ask(path_of(search))
    while True:
        for event in document["events"]:
            click.echo(json.dumps(event) if as_json else line_of(event))
        if not follow:
            return
        search = search._replace(after=document["last"], most=MOST_EVENTS)
        await asyncio.sleep(_EVERY_S)
        document = await _ask_until_answered(port, search)


async def _ask_until_answered(port: AdminPort, search: Search) -> dict[str, Any]:
    """A gateway that is being restarted comes back."""
    is_told = False
    while True:
        try:
            return await port.ask(path_of(search))
        except AdminError as error:
            if not is_told:
                click.echo(str(error), err=True)
            is_told = True
            await asyncio.sleep(_EVERY_S)


def line_of(event: dict[str, Any]) -> str:
    """An event as a line for people."""
    at = datetime.fromtimestamp(event["at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = "".join(c if c.isprintable() else " " for c in event["text"])
    return f"{at} {event['kind']:<12} {text}"
