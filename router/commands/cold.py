"""The command `measure-cold`: what a cold start of a configured function costs in time.

Exit codes: 0 measured, 1 not measurable, 2 usage.
"""

import asyncio
import datetime
import os
import sys
from pathlib import Path

import click
import yaml

from router.assembly.runtime import new_parts
from router.backends.child_process import socket_folder
from router.commands.cold_measure import (
    ColdReport,
    NotMeasurableError,
    Plan,
    measure,
    quantile,
    world_of,
)
from router.commands.exits import fail
from router.settings.loader import ConfigError, load
from router.telemetry.own_log import configure_logging


@click.command("measure-cold")
@click.option("--config", required=True, type=click.Path(path_type=Path), help="Settings file.")
@click.option("--model", required=True, help="Model name.")
@click.option(
    "--calls",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Calls made at once: each needs an environment of its own.",
)
@click.option(
    "--rounds", default=1, show_default=True, type=click.IntRange(1, 1000), help="How often."
)
@click.option(
    "--pause-s",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds between rounds, for the platform to reclaim environments.",
)
@click.option(
    "--body",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Inference request to send; without it the model's metadata is asked for.",
)
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="World file to write, for replay.")
def measure_cold(
    config: Path, model: str, body: Path | None, headers: tuple[str, ...], out: Path | None,
    **plan: float,
) -> None:  # fmt: skip
    """Call a function until environments start, and show how long that takes. Calls cost money."""
    configure_logging("warning")
    made = Plan(
        calls=int(plan["calls"]),
        rounds=int(plan["rounds"]),
        pause_s=plan["pause_s"],
        body=body.read_bytes() if body is not None else b"",
        headers=dict(_header(item) for item in headers),
    )
    try:
        report = _measured(config, model, made)
    except (ConfigError, NotMeasurableError, TimeoutError) as error:
        fail(str(error) or "the credentials or the function host took too long")
    _show(report)
    if not report.cold:
        fail(_why_none(report))
    if out is not None:
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        world = world_of(model, report, day, with_service_time=body is not None)
        try:
            out.write_text(yaml.safe_dump(world, sort_keys=False))
        except OSError as error:
            fail(f"{out} cannot be written: {error.strerror}")
        click.echo(f"written to {out}; use it with: hybrid-router replay --world {out}")


def _measured(config: Path, model: str, plan: Plan) -> ColdReport:
    loaded = load(config, os.environ)
    with (
        socket_folder() as folder,
        click.progressbar(length=plan.total, label="calls", file=sys.stderr) as progress,
    ):
        parts = new_parts(Path(folder))
        return asyncio.run(measure(loaded, parts, model, plan, lambda: progress.update(1)))


def _show(report: ColdReport) -> None:
    for name, times in (
        ("a cold start adds", report.cold),
        ("of it, init", report.init),
        ("a warm call", report.warm),
    ):
        if times:
            p50, p99 = (quantile(times, share) * 1e3 for share in (0.5, 0.99))
            count = len(times)
            click.echo(f"{name:<18} p50 {p50:9.1f} ms   p99 {p99:9.1f} ms   ({count} calls)")
    if report.by_time:
        click.echo(
            f"{report.by_time} answers do not tell whether they started cold: judged by their time"
        )
    for message, count in sorted(report.failures.items()):
        click.echo(f"failed: {count} x {message}", err=True)


def _why_none(report: ColdReport) -> str:
    if report.untold:
        return (
            "the answers do not tell whether they started cold: set cold_start_header or"
            " instance_header to a header that does"
        )
    if report.by_time and not report.failures:
        return (
            "no call took longer than a warm one by half of cold_start_ms, and the answers do not"
            " tell: set cold_start_header or instance_header, or wait until the function is idle"
        )
    if report.warm:
        return "no call started cold: more --calls at once, or wait until the function is idle"
    return "no call succeeded"


def _header(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{item!r} is not NAME=VALUE", param_hint="--header")
    return name.strip().lower(), value
