"""The `replay` command without its options: reads files, shows progress, writes reports.

Raises ReplayError where the user can put something right. The only part that touches the terminal.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from router.replay.arrivals import Dropped, Span, TraceError
from router.replay.batch import BatchPlan, replay_batch
from router.replay.compare import compare
from router.replay.diff_report import diff_document, show_diff
from router.replay.measured import measured_world
from router.replay.omissions import not_simulated
from router.replay.plot import page
from router.replay.replay import Replay, Replayed, ReplayOptions
from router.replay.report import document, show, write_timeline
from router.replay.suggest import OnPass, Search
from router.replay.suggest_report import show_suggestion, suggestion_document
from router.replay.traces import OnProgress, Trace, TraceOptions, open_trace, opened
from router.replay.world import World, load_world
from router.runtime import Runtime

SAMPLE = "sample"
"""Stands for the bundled sample log."""


class ReplayError(Exception):
    """The replay cannot be done; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks for. None: not asked for, or the default."""

    trace: str
    world: Path | None = None
    format: str | None = None
    span: Span = Span()  # noqa: RUF009 - frozen
    scale: float = 1.0
    burstiness: float = 1.0
    seed: int | None = None
    interval_s: float = 60.0
    train_share: float = 0.0
    with_baselines: bool = True
    model_map: tuple[tuple[str, str], ...] = ()
    each_like: str | None = None
    batch: BatchPlan | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where to write, beside the terminal."""

    json: Path | None = None
    timeline: Path | None = None
    plot: Path | None = None


def run(runtime: Runtime, request: Request, outputs: Outputs, console: Console) -> dict[str, Any]:
    """Replay and report; returns the document.

    Raises ReplayError, and ConfigError where the world file is wrong.
    """
    world = load_world(request.world)
    seed = world.seed if request.seed is None else request.seed
    trace = _trace(request, seed)
    _check_models(request, runtime.models)
    with _progress(console, 2 * trace.size_bytes) as on_progress:
        replayed = _replayed(runtime, world, trace, _options(request, seed), on_progress)
    report = document(replayed, _about(request, world, trace, seed))
    report["not_simulated"] = _tell_not_simulated([runtime], console, shares=True)
    if trace.counts_only:
        console.print(f"arrivals within the trace's intervals are drawn: {_drawn(request)}")
    if request.batch is not None:
        options = _options(request, seed)
        try:
            report["batch"] = replay_batch(runtime, world, trace, options, request.batch)
        except (TraceError, EOFError, OSError) as error:
            raise ReplayError(str(error)) from error
    _write(replayed, report, outputs)
    show(report, console)
    for name, found in report.get("batch", {}).items():
        console.print(_told_of_batch(name, found), markup=False)
    return report


def _told_of_batch(name: str, found: Mapping[str, Any]) -> str:
    share = f"{found['added_ratio']:.1%}" if found["added_ratio"] is not None else "-"
    over = f"{found['optimum_ratio']:.3f}" if found["optimum_ratio"] is not None else "-"
    return (
        f"Batch, {name}: {found['jobs']:,} jobs, {found['late']:,} late, add"
        f" {found['added_usd']:.4g} USD, {share} of what they cost alone on functions; the bill of"
        f" both is {over} of the optimum of both. {found['delayed_ratio']:.3%} of requests waited"
        f" because of them."
    )


_SEARCHED_SHARE = 0.6


def run_suggest(runtime: Runtime, request: Request, console: Console) -> dict[str, Any]:
    """Search for better settings and tell what holds; returns the document.

    Raises ReplayError, and ConfigError where the world file is wrong.
    """
    world = load_world(request.world)
    seed = world.seed if request.seed is None else request.seed
    trace = _trace(request, seed)
    _check_models(request, runtime.models)
    options = _options(request, seed)
    options = replace(options, train_share=request.train_share or _SEARCHED_SHARE)
    with _passes(console, trace.size_bytes) as on_pass:
        try:
            suggested = Search(runtime, world, trace, options).run(on_pass)
        except (TraceError, EOFError, OSError) as error:
            raise ReplayError(str(error)) from error
    report = {**suggestion_document(suggested), **_about(request, world, trace, seed)}
    report["not_simulated"] = _tell_not_simulated([runtime], console, shares=False)
    show_suggestion(suggested, report, console)
    return report


def run_diff(old: Runtime, new: Runtime, request: Request, console: Console) -> dict[str, Any]:
    """Compare two configurations and tell what changes; returns the document.

    Raises ReplayError, and ConfigError where the world file is wrong.
    """
    world = load_world(request.world)
    seed = world.seed if request.seed is None else request.seed
    trace = _trace(request, seed)
    both = sorted(old.models.keys() & new.models.keys())
    _check_models(request, both)
    with _progress(console, trace.size_bytes) as on_progress:
        try:
            compared = compare(old, new, world, trace, _options(request, seed), on_progress)
        except (TraceError, EOFError, OSError) as error:
            raise ReplayError(str(error)) from error
    report = {**diff_document(compared), **_about(request, world, trace, seed)}
    report["not_simulated"] = _tell_not_simulated([old, new], console, shares=False)
    show_diff(report, console)
    return report


def measure_world(log: Path, out: Path, startup_s: Mapping[str, float]) -> list[str]:
    """Write the world that an access log tells, and the models' start-ups.

    Returns what was left out. Raises ReplayError.
    """
    dropped = Dropped()
    try:
        day = datetime.fromtimestamp(log.stat().st_mtime, UTC).date()
        with opened(log) as lines:
            world = measured_world(lines, day, dropped, startup_s)
    except (OSError, EOFError) as error:
        raise ReplayError(f"{log}: cannot be read: {error}") from error
    with _told_if_unwritable():
        out.write_text(world, encoding="utf-8")
    return dropped.told()


def _drawn(request: Request) -> str:
    if request.burstiness == 1:
        return "Poisson (--burstiness 4 draws bursts)"
    return f"Gamma gaps, whose coefficient of variation is {request.burstiness:g}"


def _tell_not_simulated(
    runtimes: Iterable[Runtime], console: Console, *, shares: bool
) -> list[str]:
    """Say what these settings ask for that a replay leaves out."""
    told = sorted(
        {line for runtime in runtimes for line in not_simulated(runtime.settings, shares=shares)}
    )
    for line in told:
        console.print(f"not simulated: {line}", style="yellow", markup=False)
    return told


def _check_models(request: Request, configured: Iterable[str]) -> None:
    for name in (request.each_like, *(target for _, target in request.model_map)):
        if name is not None and name not in configured:
            known = ", ".join(sorted(configured))
            raise ReplayError(f"model {name} is not configured, the configured ones are {known}")


def _trace(request: Request, seed: int) -> Trace:
    options = TraceOptions(request.span, request.scale, seed, request.burstiness)
    try:
        return open_trace(trace_path(request.trace), options, request.format)
    except TraceError as error:
        raise ReplayError(str(error)) from error


def trace_path(name: str) -> Path:
    """The file, or the bundled sample log."""
    if name == SAMPLE:
        return Path(str(resources.files("router.replay").joinpath("data", "sample.jsonl.gz")))
    return Path(name)


def _options(request: Request, seed: int) -> ReplayOptions:
    return ReplayOptions(
        seed=seed,
        interval_s=request.interval_s,
        with_baselines=request.with_baselines,
        train_share=request.train_share,
        model_map=request.model_map,
        each_like=request.each_like,
    )


def _replayed(
    runtime: Runtime, world: World, trace: Trace, options: ReplayOptions, on_progress: OnProgress
) -> Replayed:
    try:
        return Replay(runtime, world, trace, options).run(on_progress)
    except (TraceError, EOFError, OSError) as error:
        raise ReplayError(str(error)) from error


def _about(request: Request, world: World, trace: Trace, seed: int) -> dict[str, Any]:
    return {
        "trace": {
            "name": request.trace,
            "format": trace.format,
            "scale": request.scale,
            "burstiness": request.burstiness,
        },
        "world": {"dated": world.dated.isoformat(), "source": world.source},
        "seed": seed,
        "train_share": request.train_share,
    }


def _write(replayed: Replayed, report: dict[str, Any], outputs: Outputs) -> None:
    if outputs.json is not None:
        write_json(report, outputs.json)
    with _told_if_unwritable():
        if outputs.timeline is not None:
            with outputs.timeline.open("w", newline="") as file:
                write_timeline(replayed, file)
        if outputs.plot is not None:
            outputs.plot.write_text(page(replayed, report), encoding="utf-8")


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a document. Raises ReplayError."""
    with _told_if_unwritable():
        path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def _told_if_unwritable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReplayError(f"cannot write {error.filename}: {error.strerror}") from error


@contextmanager
def _passes(console: Console, size: int) -> Iterator[OnPass]:
    """A bar for each pass over the trace, on the console while it is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console, transient=True) as progress:

        def on_pass(what: str) -> OnProgress:
            task = progress.add_task(what, total=size)
            return lambda done: progress.update(task, completed=done)

        yield on_pass


@contextmanager
def _progress(console: Console, total: int) -> Iterator[OnProgress]:
    """A bar on the console while it is a terminal."""
    columns = (TextColumn("replaying"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)
