"""The command line: check, explain and status; the longer commands are in `commands`.

Exit codes: 0 fine, 1 the answer is no, 2 usage.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from router import __version__
from router.assembly.pools import imagine_replicas
from router.assembly.runtime import assemble, new_parts
from router.commands.admin_client import (
    ADMIN_URL,
    AdminError,
    AdminPort,
    fleet_option,
    path_of,
    token_option,
)
from router.commands.cold import measure_cold
from router.commands.completion import completion
from router.commands.demo import demo
from router.commands.events import events
from router.commands.exits import fail, load_or_exit
from router.commands.init import init
from router.commands.jobs import batch, jobs
from router.commands.model_check import broken_models, missing_models
from router.commands.platform_check import certificate_warning, platform_warnings
from router.commands.quality import quality
from router.commands.replay import diff, measure, replay
from router.commands.serve import serve, serve_process
from router.commands.status_view import only, show_live, show_once
from router.commands.tenants import tenants
from router.domain.errors import RouterError
from router.gateway.admin.explain import ExplainQuestion
from router.gateway.admin.explain import explain as explain_from
from router.gateway.protocols.oip import OIP
from router.gateway.protocols.registry import PROTOCOLS
from router.settings.loader import ConfigError, Loaded, load


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hybrid-router")
def main() -> None:
    """Inference gateway: each request runs on a serverless function or on a warm pool."""


main.add_command(serve)
main.add_command(init)
main.add_command(demo)
main.add_command(serve_process)
main.add_command(events)
main.add_command(tenants)
main.add_command(quality)
main.add_command(jobs)
main.add_command(batch)
main.add_command(replay)
main.add_command(diff)
main.add_command(measure)
main.add_command(measure_cold)
main.add_command(completion)


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Load the models that the bundled workers run, too.")
def check(files: tuple[Path, ...], deep: bool) -> None:
    """Check settings files as `serve` would load them; shows all mistakes at once.

    Looks into the model repository, so run it where the models are.
    """
    valid = True
    for path in files:
        try:
            loaded = load(path, os.environ)
        except ConfigError as error:
            click.echo(str(error), err=True)
            valid = False
            continue
        parts = new_parts()
        assemble(loaded, parts)
        problems = missing_models(loaded) + (broken_models(loaded) if deep else [])
        if problems:
            click.echo("\n".join(map(str, problems)), err=True)
            valid = False
            continue
        ending = certificate_warning(loaded.tls_expires_at, parts.wall_clock())
        for warning in (*loaded.warnings, *ending, *platform_warnings(loaded.settings)):
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{path}: valid, {len(loaded.settings.models)} models")
    sys.exit(0 if valid else 1)


@main.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file: a gateway at rest, with its least replicas.",
)
@click.option("--admin", metavar="URL", help="Admin port of a running gateway: its present state.")
@token_option
@click.option("--model", required=True, help="Model name.")
@click.option("--version", help="Model version.")
@click.option("--bytes", "payload_bytes", required=True, type=click.IntRange(0), help="Body size.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--deadline-ms", type=click.FloatRange(0, min_open=True), help="Client's deadline.")
@click.option("--tenant", help="Tenant of the caller's API key.")
@click.option(
    "--protocol",
    type=click.Choice([protocol.name for protocol in PROTOCOLS]),
    default=OIP.name,
    show_default=True,
    help="What the client speaks.",
)
@click.option("--stream", is_flag=True, help="The client wants a streamed answer.")
@click.option("--key", metavar="NAME", help="Name of the caller's API key, not the key itself.")
@click.option("--json", "as_json", is_flag=True, help="Print the document instead of text.")
def explain(
    config: Path | None,
    admin: str | None,
    token: str | None,
    headers: tuple[str, ...],
    as_json: bool,
    **facts: object,
) -> None:
    """Show where a request would run, and why, step by step."""
    if (config is None) == (admin is None):
        raise click.UsageError("give either --config FILE or --admin URL")
    question: dict[str, Any] = {**facts, "headers": _headers(headers)}
    try:
        if admin is not None:
            document = asyncio.run(AdminPort(admin, token).ask("/v1/explain", question))
        else:
            assert config is not None  # noqa: S101
            document = asyncio.run(_explain_offline(load_or_exit(config), question))
    except (AdminError, RouterError) as error:
        fail(str(error))
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print_explanation(document, facts["model"])
    sys.exit(1 if document.get("error") else 0)


async def _explain_offline(loaded: Loaded, question: dict[str, Any]) -> dict[str, Any]:
    parts = new_parts()
    runtime = assemble(loaded, parts)
    for model in runtime.models.values():
        imagine_replicas(model)
    return explain_from(runtime, ExplainQuestion(**question), parts.clock())


def _print_explanation(document: dict[str, Any], asked: object) -> None:
    for step in document.get("trace", ()):
        click.echo(f"{step['stage']:<9} {step['subject']:<18} {step['verdict']}")
    if document.get("error"):
        click.echo(f"refused: {document['error']}", err=True)
        return
    held = ", held until there is capacity" if document["held"] else ""
    model = f" of {document['model']}" if document["model"] != asked else ""
    reason = f"reason {document['reason']}  rule {document['rule']}"
    click.echo(f"=> {document['backend']}{model}  {reason}{held}")


@main.command()
@click.option("--admin", default=ADMIN_URL, show_default=True, metavar="URL", help="Admin port.")
@token_option
@click.option("--once", is_flag=True, help="Print once, as without a terminal.")
@click.option("--watch", is_flag=True, help="Redraw until Ctrl-C, as in a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the document instead of a table.")
@fleet_option
@click.option("--model", help="That model alone, with its replicas and reasons.")
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.1, 3600.0),
    help="Seconds between redraws.",
)  # fmt: skip
def status(admin: str, token: str | None, model: str | None, interval: float, **how: bool) -> None:
    """Show models, replicas, functions, cost and traffic split of a running gateway."""
    port, console = AdminPort(admin, token), Console()
    path = path_of("/v1/status", fleet=how["fleet"])
    try:
        if how["as_json"]:
            document = asyncio.run(port.ask(path))
            click.echo(json.dumps(only(document, model) if model else document, indent=2))
        elif how["watch"] or (console.is_terminal and not how["once"]):
            asyncio.run(show_live(port, console, interval, model, path))
        else:
            asyncio.run(show_once(port, console, model, path))
    except AdminError as error:
        fail(str(error))
    except KeyboardInterrupt:
        return


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{item!r} is not NAME=VALUE", param_hint="--header")
        headers[name.strip().lower()] = value
    return headers
