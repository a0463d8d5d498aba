"""The options of `replay`, `diff` and `measure`; `router.replay.command` does what they ask."""

import asyncio
import os
import sys
from pathlib import Path

import click
from rich.console import Console

from router.assembly.runtime import assemble, new_parts
from router.commands.admin_client import AdminError, AdminPort, token_option
from router.commands.exits import fail
from router.commands.quality import replay_quality
from router.replay.arrivals import Span
from router.replay.batch import BatchPlan
from router.replay.command import (
    SAMPLE,
    Outputs,
    ReplayError,
    Request,
    measure_world,
    run,
    run_diff,
    run_suggest,
    write_json,
)
from router.replay.traces import format_names, seconds
from router.settings.loader import ConfigError, load
from router.settings.quantities import duration_s

_FILE = click.Path(path_type=Path, dir_okay=False)


class _Pairs(click.ParamType[tuple[str, str]]):
    """FROM=TO."""

    name = "from=to"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split at the last equals sign."""
        pattern, equals, target = str(value).rpartition("=")
        if not (pattern and equals and target):
            self.fail(f"{value!r} is not FROM=TO", param, ctx)
        return pattern, target


class _Batch(click.ParamType[BatchPlan]):
    """SHARE:AT:WINDOW."""

    name = "share:at:window"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> BatchPlan:
        """A share and two durations."""
        share, _, rest = str(value).partition(":")
        at, _, window = rest.partition(":")
        try:
            plan = BatchPlan(float(share), duration_s(at) or 0.0, duration_s(window) or 0.0)
        except ValueError:
            plan = BatchPlan(0.0, 0.0, 0.0)
        if not (0 < plan.share <= 100 and plan.at >= 0 and plan.window_s >= 1):
            self.fail(f"{value!r} is not SHARE:AT:WINDOW, such as 0.5:0h:8h", param, ctx)
        return plan


@click.command()
@click.option("--config", required=True, type=_FILE, help="Settings file under test.")
@click.option(
    "--trace",
    required=True,
    help=f"Access log, CSV, counts or a public trace, plain or .gz; '{SAMPLE}': the bundled log.",
)
@click.option("--world", type=_FILE, help="What is true outside: prices, times. Default: bundled.")
@click.option("--format", type=click.Choice(format_names()), help="Default: found out.")
@click.option("--json", "json_path", type=_FILE, help="Write all figures here.")
@click.option("--timeline", type=_FILE, help="Write a CSV of intervals here.")
@click.option("--plot", type=_FILE, help="Write an HTML page here.")
@click.option("--scale", default=1.0, show_default=True, type=click.FloatRange(0, 1e6, True))
@click.option(
    "--burstiness", default=1.0, show_default=True, type=click.FloatRange(0.1, 10),
    help="Of arrivals of which only a count is known: their gaps' coefficient of variation.",
)  # fmt: skip
@click.option("--from", "start", help="Start: 2h, seconds from the first request, or a time.")
@click.option("--to", "end", help="End, likewise.")
@click.option(
    "--model-map", "model_map", multiple=True, type=_Pairs(),
    help="Trace models that are a configured one, as GLOB=MODEL. Repeatable; first match wins.",
)  # fmt: skip
@click.option("--each-like", metavar="MODEL", help="Other trace models: each configured as MODEL.")
@click.option(
    "--batch",
    type=_Batch(),
    metavar="SHARE:AT:WINDOW",
    help="Jobs beside the requests of each model, such as 0.5:0h:8h: half as many, due in 8 h.",
)
@click.option("--seed", type=click.IntRange(0), help="Of all random draws. Default: the world's.")
@click.option("--interval", default="60s", show_default=True, help="Interval of the timeline.")
@click.option(
    "--train-share", default=0.0, show_default=True, type=click.FloatRange(0, 0.95),
    help="First part of the trace, used to choose the baselines and not reported.",
)  # fmt: skip
@click.option("--baselines/--no-baselines", default=True, help="Compare with other policies.")
@click.option(
    "--quality", "with_quality", is_flag=True,
    help="TRACE is a log of samples (quality.keep): show what watching would have found in it.",
)  # fmt: skip
@click.option(
    "--suggest", is_flag=True,
    help="Search for better settings on the first part of the trace, and check them on the rest.",
)  # fmt: skip
def replay(  # noqa: PLR0913, PLR0917 - one parameter for each option
    config: Path,
    trace: str,
    world: Path | None,
    format: str | None,
    json_path: Path | None,
    timeline: Path | None,
    plot: Path | None,
    scale: float,
    burstiness: float,
    start: str | None,
    end: str | None,
    model_map: tuple[tuple[str, str], ...],
    each_like: str | None,
    seed: int | None,
    interval: str,
    train_share: float,
    baselines: bool,
    with_quality: bool,
    suggest: bool,
    batch: BatchPlan | None,
) -> None:
    """Show what a trace would have cost, and how slow it would have been, under a configuration.

    Runs every request through the router's own policy under a virtual clock, and compares with what
    you would do otherwise and with the least that any policy could pay.
    """
    if with_quality:
        sys.exit(0 if replay_quality(config, Path(trace), json_path, Console()) else 1)
    if suggest and (timeline or plot):
        raise click.UsageError("--suggest writes neither --timeline nor --plot, only --json")
    request = Request(
        trace=trace,
        world=world,
        format=format,
        span=_span(start, end),
        scale=scale,
        burstiness=burstiness,
        seed=seed,
        interval_s=_interval_s(interval),
        train_share=train_share,
        with_baselines=baselines,
        model_map=model_map,
        each_like=each_like,
        batch=batch,
    )
    try:
        runtime = assemble(load(config, os.environ), new_parts())
        if not suggest:
            run(runtime, request, Outputs(json_path, timeline, plot), Console())
            return
        report = run_suggest(runtime, request, Console())
        if json_path is not None:
            write_json(report, json_path)
    except (ConfigError, ReplayError) as error:
        fail(str(error))


@click.command()
@click.option("--config", required=True, type=_FILE, help="The new settings file.")
@click.option("--against", required=True, type=_FILE, help="The settings file now in force.")
@click.option("--trace", required=True, help="As for replay; best the gateway's own access log.")
@click.option("--world", type=_FILE, help="What is true outside: prices, times. Default: bundled.")
@click.option("--format", type=click.Choice(format_names()), help="Default: found out.")
@click.option("--json", "json_path", type=_FILE, help="Write all figures here.")
@click.option("--from", "start", help="Start: 2h, seconds from the first request, or a time.")
@click.option("--to", "end", help="End, likewise.")
@click.option("--seed", type=click.IntRange(0), help="Of all random draws. Default: the world's.")
def diff(  # noqa: PLR0913, PLR0917 - one parameter for each option
    config: Path,
    against: Path,
    trace: str,
    world: Path | None,
    format: str | None,
    json_path: Path | None,
    start: str | None,
    end: str | None,
    seed: int | None,
) -> None:
    """Show what a new configuration would change for a trace, before it is taken up."""
    request = Request(trace=trace, world=world, format=format, span=_span(start, end), seed=seed)
    try:
        old, new = (assemble(load(path, os.environ), new_parts()) for path in (against, config))
        report = run_diff(old, new, request, Console())
        if json_path is not None:
            write_json(report, json_path)
    except (ConfigError, ReplayError) as error:
        fail(str(error))


@click.command()
@click.option("--log", required=True, type=_FILE, help="Access log, plain or .gz.")
@click.option("--out", required=True, type=_FILE, help="The world file to write.")
@click.option(
    "--admin", metavar="URL", help="Admin port of the gateway: adds its replicas' starts."
)
@token_option
def measure(log: Path, out: Path, admin: str | None, token: str | None) -> None:
    """Write a world file with the service times and cold starts that an access log tells.

    Log every request while you measure (server.access_log_sample: 1).
    """
    try:
        startup_s = _startups(AdminPort(admin, token)) if admin is not None else {}
        for told in measure_world(log, out, startup_s):
            click.echo(told, err=True)
    except (AdminError, ReplayError) as error:
        fail(str(error))
    click.echo(f"{out}: pass it to replay with --world")


def _startups(admin: AdminPort) -> dict[str, float]:
    """How long the replicas of each model took to start, where any has. Raises AdminError."""
    models = asyncio.run(admin.ask("/v1/status"))["models"]
    return {
        model["name"]: float(model["startup_s"])
        for model in models
        if model.get("startup_s") is not None
    }


def _interval_s(text: str) -> float:
    seconds_ = duration_s(text)
    if seconds_ is None or seconds_ < 10 or seconds_ % 10:
        raise click.BadParameter("must be a multiple of 10s, such as 60s", param_hint="--interval")
    return seconds_


def _span(start: str | None, end: str | None) -> Span:
    given = [_moment(text, hint) for text, hint in ((start, "--from"), (end, "--to")) if text]
    if len({is_absolute for _, is_absolute in given}) > 1:
        raise click.UsageError("--from and --to must both be times, or both count from the start")
    whole = Span()
    first = _moment(start, "--from")[0] if start else whole.start_s
    last = _moment(end, "--to")[0] if end else whole.end_s
    if first >= last:
        raise click.UsageError("--to must be after --from")
    return Span(first, last, is_absolute=bool(given) and given[0][1])


def _moment(text: str, hint: str) -> tuple[float, bool]:
    """Seconds, and whether they count from 1970 rather than from the trace's start."""
    if (span_s := duration_s(text)) is not None:
        return span_s, False
    try:
        return float(text), False
    except ValueError:
        pass
    try:
        return seconds(text), True
    except ValueError:
        told = f"{text!r} is neither 2h, nor seconds, nor a time like 2026-11-01T08:00"
        raise click.BadParameter(told, param_hint=hint) from None
