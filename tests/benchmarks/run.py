"""One whole run: everything up, the scenarios round by round, then the probes, everything down."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks import machine
from tests.benchmarks.children import BenchmarkError, free_port, prepare_this_process
from tests.benchmarks.cold import run_cold_scenario
from tests.benchmarks.probes.registry import Probe
from tests.benchmarks.results import Finding, Results
from tests.benchmarks.rounds import Bench, Tell, run_scenario
from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.systems.system import Running, Site, System
from tests.benchmarks.tools import MissingToolError, Tools
from tests.benchmarks.upstream import upstream
from tests.benchmarks.workers import run_workers

Live = dict[str, tuple[System, Running]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, how often and for how long."""

    scenarios: Sequence[Scenario]
    systems: Sequence[System]
    probes: Sequence[Probe]
    workers: bool
    rounds: int
    seconds: float
    command: str


@dataclass(frozen=True, slots=True)
class Absent:
    """What was not measured, and why: see `Results`."""

    missing: dict[str, str]
    broken: dict[str, str]

    def note(self, name: str, error: Exception) -> None:
        """Remember why one system or probe has no figures."""
        kind = self.missing if isinstance(error, MissingToolError) else self.broken
        kind[name] = str(error)


def execute(plan: Plan, tools: Tools, tell: Tell) -> Results:
    """Run the plan. Raises BenchmarkError if the upstream or the load cannot run at all."""
    prepare_this_process()
    tools.debian("wrk", "wrk")
    absent = Absent({}, {})
    with _bench(tools, tell) as bench:
        versions = _versions(plan, tools, absent)
        able = [system for system in plan.systems if system.name in versions]
        warm = [scenario for scenario in plan.scenarios if not scenario.is_cold]
        needed = [system for system in able if any(map(system.takes, warm))]
        with _all_up(bench, needed, absent) as live:
            scenarios = [
                run_scenario(bench, scenario, live, plan.rounds, plan.seconds) for scenario in warm
            ]
        scenarios += [
            run_cold_scenario(bench, scenario, able, plan.rounds, plan.seconds)
            for scenario in plan.scenarios
            if scenario.is_cold
        ]
        if plan.workers:
            measured = run_workers(bench, plan.rounds, plan.seconds, absent.missing)
            scenarios += [*measured]
        findings = list(_findings(bench, plan.probes, plan.seconds, absent))
    return Results(
        taken_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=plan.command,
        machine=machine.facts(),
        versions=versions,
        scenarios=tuple(scenarios),
        findings=tuple(findings),
        missing=absent.missing,
        broken=absent.broken,
    )


@contextmanager
def _bench(tools: Tools, tell: Tell) -> Iterator[Bench]:
    with TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        with upstream(tools, folder) as server:
            yield Bench(tools, folder, server, tell)


def _versions(plan: Plan, tools: Tools, absent: Absent) -> dict[str, str]:
    """Of the systems that some scenario needs and that can be had here."""
    versions = {}
    for system in plan.systems:
        if any(map(system.takes, plan.scenarios)):
            try:
                versions[system.name] = system.version(tools)
            except BenchmarkError as error:
                absent.note(system.name, error)
    return versions


@contextmanager
def _all_up(bench: Bench, systems: Iterable[System], absent: Absent) -> Iterator[Live]:
    """All systems that can run here; why the others cannot goes into `absent`."""
    with ExitStack() as stack:
        live: Live = {}
        for system in systems:
            bench.tell(f"starting {system.name}")
            folder = bench.folder / system.name
            folder.mkdir()
            site = Site(folder, free_port(), bench.upstream.port)
            try:
                live[system.name] = (system, stack.enter_context(system.run(site, bench.tools)))
            except (BenchmarkError, OSError) as error:
                absent.note(system.name, error)
        yield live


def _findings(
    bench: Bench, probes: Iterable[Probe], seconds: float, absent: Absent
) -> Iterator[Finding]:
    for probe in probes:
        bench.tell(probe.name)
        try:
            yield from probe.run(bench, seconds)
        except (BenchmarkError, OSError) as error:
            absent.note(probe.name, error)
