"""`quality baseline` and `quality report`, and what `replay --quality` does."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from router.assembly.quality import watched
from router.commands.admin_client import AdminError, AdminPort, token_option
from router.commands.exits import fail, load_or_exit
from router.quality.files import (
    BaselineError,
    baseline_from_samples,
    lines_of,
    read_baseline,
    write_baseline,
)
from router.quality.kept import Watched, samples_in, watch
from router.quality.report import page
from router.quality.samples import QualityParams

_FILE = click.Path(path_type=Path, dir_okay=False)
_ADMIN = "http://127.0.0.1:9090"


@click.group()
def quality() -> None:
    """Whether models are still good: baselines of files, and reports of a running gateway."""


@quality.command()
@click.option("--model", required=True, help="Model name.")
@click.option("--from", "source", required=True, type=_FILE, help="JSON lines of samples.")
@click.option("--config", type=_FILE, help="Settings file that says how its output is understood.")
@click.option("--out", type=_FILE, help="File to write. Default: MODEL.baseline.json.")
def baseline(model: str, source: Path, config: Path | None, out: Path | None) -> None:
    """Make a baseline of samples, for `quality: {baseline: {file: ...}}`.

    Each line is a sample that `quality: {keep: ...}` has written, or an object with the JSON bodies
    `request` and `response`.
    """
    params = QualityParams()
    if config is not None:
        settings = watched(load_or_exit(config).settings)
        params = settings.get(model, params)
    target = out if out is not None else Path(f"{model.replace('/', '_')}.baseline.json")
    try:
        samples = samples_in(lines_of(source), params)
        features = (each.features for each in samples if each.model in {"", model})
        made = baseline_from_samples(features, source.name, _now(), params.max_features)
        write_baseline(target, made)
    except BaselineError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{target} cannot be written: {error.strerror}")
    click.echo(f"{target}: {made.samples} samples, {len(made.features)} features")


@quality.command()
@click.option("--model", required=True, help="Model name.")
@click.option("--html", required=True, type=_FILE, help="Page to write.")
@click.option("--admin", default=_ADMIN, show_default=True, metavar="URL", help="Admin port.")
@token_option
def report(model: str, html: Path, admin: str, token: str | None) -> None:
    """Draw a running gateway's model: distributions now and before, accuracy over time, alarms."""
    try:
        path = "/v1/quality"
        document = asyncio.run(AdminPort(admin, token).ask(path))
    except AdminError as error:
        fail(str(error))
    if not any(each["name"] == model for each in document["models"]):
        fail(f"nothing is known of the quality of {model}: it has no samples, or no settings")
    made_at = datetime.fromtimestamp(_now(), UTC).isoformat(timespec="seconds")
    try:
        html.write_text(page(model, document, made_at))
    except OSError as error:
        fail(f"{html} cannot be written: {error.strerror}")
    click.echo(str(html))


def replay_quality(config: Path, log: Path, json_path: Path | None, console: Console) -> bool:
    """Run a log of samples through what watches models; whether nothing was found."""
    params = watched(load_or_exit(config).settings)
    if not params:
        fail(f"{config}: no model has quality settings")
    given = {}
    try:
        for name, each in params.items():
            if each.baseline_file:
                given[name] = read_baseline(Path(each.baseline_file))
        found = watch(samples_in(lines_of(log), QualityParams()), params, given)
    except BaselineError as error:
        fail(str(error))
    console.print(_table(found))
    if json_path is not None:
        json_path.write_text(json.dumps(_document(found), indent=1))
    return not any(each.alarms for each in found.values())


def _table(found: dict[tuple[str, str], Watched]) -> Table:
    table = Table("model", "version", "samples", "looks", "alarms", "first alarm")
    for (model, version), each in found.items():
        window = each.subject.window
        first = each.alarms[0].text if each.alarms else ""
        table.add_row(
            model, version, str(each.subject.samples), str(window.looks if window else 0),
            str(len(each.alarms)), first,
        )  # fmt: skip
    return table


def _document(found: dict[tuple[str, str], Watched]) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "version": version,
            "samples": each.subject.samples,
            "alarms": [
                {
                    "at": alarm.at, "feature": alarm.feature, "test": alarm.test,
                    "statistic": alarm.statistic, "p": alarm.p, "psi": alarm.psi,
                    "baseline": alarm.baseline, "now": alarm.now,
                }
                for alarm in each.alarms
            ],
        }
        for (model, version), each in found.items()
    ]  # fmt: skip


def _now() -> float:
    return datetime.now(UTC).timestamp()
