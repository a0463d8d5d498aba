"""`python -m tests.benchmarks`: the only reader of this package's command line.

Exit codes: 0 all that was measured worked, 1 an answer was wrong or missing, 2 usage.
"""

import json
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.probes.registry import PROBES, Probe
from tests.benchmarks.report import markdown
from tests.benchmarks.results import Results
from tests.benchmarks.run import Plan, execute
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.systems.registry import SYSTEMS
from tests.benchmarks.tools import ROOT, MissingToolError, Tools, run_tool
from tests.benchmarks.workers import NAME as WORKER

_NAMES = [*(item.name for item in (*SCENARIOS, *PROBES)), WORKER]
_QUICK = ("infer-32", "decision")
_QUICK_SYSTEMS = ("nginx", "gateway", "plain-aiohttp")
_QUIET_PERCENT = 5.0
_PLOT = Path(__file__).with_name("plot.py")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(_NAMES), help="Repeatable.")
@click.option(
    "--system", "only_systems", multiple=True, help="Repeatable; default: all.",
    type=click.Choice([system.name for system in SYSTEMS]),
)  # fmt: skip
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option(
    "--seconds", default=3.0, show_default=True, type=click.FloatRange(0.5, 60),
    help="Measured time of one system in one round.",
)  # fmt: skip
@click.option(
    "--quick", "effort", flag_value="quick", help="A smoke run of seconds; its figures mean little."
)
@click.option(
    "--long",
    "effort",
    flag_value="long",
    help="Also what takes minutes (memory over 1 M requests).",
)
@click.option(
    "--out", default=ROOT / "build" / "bench", show_default="build/bench",
    type=click.Path(path_type=Path), help="Where results.json, table.md and plot.svg go.",
)  # fmt: skip
def main(
    only: tuple[str, ...],
    only_systems: tuple[str, ...],
    rounds: int,
    seconds: float,
    effort: str | None,
    out: Path,
) -> None:
    """Measure the gateway beside other proxies, on this machine, in interleaved rounds."""
    # A terminated run must leave its blocks, so that everything it started ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if effort == "quick":
        only, only_systems = only or _QUICK, only_systems or _QUICK_SYSTEMS
        rounds, seconds = 1, 1.0
    plan = Plan(
        scenarios=[item for item in SCENARIOS if not only or item.name in only],
        systems=[item for item in SYSTEMS if not only_systems or item.name in only_systems],
        workers=not only or WORKER in only,
        probes=_probes(only, is_long=effort == "long"),
        rounds=rounds,
        seconds=seconds,
        command=shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]]),
    )
    tools = Tools(ROOT / "build" / "bench" / "tools")
    try:
        results = execute(plan, tools, lambda text: click.echo(text, err=True))
    except BenchmarkError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    _write(results, out, tools)
    if results.others_percent > _QUIET_PERCENT:
        told = f"others used {results.others_percent:.0f} % of the core under test"
        click.echo(f"warning: {told}; run this on a quiet machine", err=True)
    for line in results.failed:
        click.echo(f"failed: {line}", err=True)
    sys.exit(1 if results.failed else 0)


def _probes(only: Sequence[str], *, is_long: bool) -> list[Probe]:
    if only:
        return [probe for probe in PROBES if probe.name in only]
    return [probe for probe in PROBES if is_long or not probe.is_long]


def _write(results: Results, out: Path, tools: Tools) -> None:
    out.mkdir(parents=True, exist_ok=True)
    data = out / "results.json"
    data.write_text(json.dumps(asdict(results), indent=2) + "\n")
    table = markdown(results)
    (out / "table.md").write_text(table)
    click.echo(table)
    if results.scenarios:
        try:
            python = tools.python("matplotlib", "python")
            run_tool([str(python), str(_PLOT), str(data), str(out / "plot.svg")], "the plot")
        except MissingToolError as error:
            click.echo(f"no plot: {error}", err=True)


if __name__ == "__main__":
    main()
