"""Every measurement that is not a scenario, by the name that `--only` takes."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks.children import free_port
from tests.benchmarks.probes.decision import decision
from tests.benchmarks.probes.events import event_delays
from tests.benchmarks.probes.idle import idle_connections
from tests.benchmarks.probes.jobs import jobs
from tests.benchmarks.probes.memory import (
    LARGE,
    LARGEST,
    growth_over_a_million,
    in_flight_growth,
)
from tests.benchmarks.probes.stall import after_stalls
from tests.benchmarks.results import Finding
from tests.benchmarks.rounds import Bench
from tests.benchmarks.systems.gateway import Gateway
from tests.benchmarks.systems.nginx import Nginx
from tests.benchmarks.systems.system import Running, Site, System


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement; `is_long` ones run only when asked for."""

    name: str
    run: Callable[[Bench, float], list[Finding]]
    is_long: bool = False


def _decision(bench: Bench, seconds: float) -> list[Finding]:
    del seconds  # it runs a fixed number of times
    return decision(bench.folder)


def _jobs(bench: Bench, seconds: float) -> list[Finding]:
    del seconds  # it does a fixed number of them
    folder = bench.folder / "of-jobs"
    folder.mkdir()
    return asyncio.run(jobs(folder, bench.upstream.port))


def _in_flight(bench: Bench, seconds: float) -> list[Finding]:
    found = []
    for name, scenario in (("in-flight-growth", LARGE), ("in-flight-growth-32m", LARGEST)):
        with _fresh_gateway(bench, scenario.name) as live:
            found += in_flight_growth(bench, live, name, scenario, max(seconds, 2.0))
    return found


def _idle(connections: int, bench: Bench, seconds: float) -> list[Finding]:
    with _fresh_gateway(bench, f"idle-{connections}") as live:
        return idle_connections(bench, live, connections, seconds)


def _memory(bench: Bench, seconds: float) -> list[Finding]:
    del seconds  # it counts requests
    with _fresh_gateway(bench, "memory") as live:
        return growth_over_a_million(bench, live)


def _stall(bench: Bench, seconds: float) -> list[Finding]:
    del seconds  # it watches as long as it needs
    found = []
    for system in _COMPARED:
        with _fresh(bench, "stall", system) as live:
            found += after_stalls(bench, live, system.name)
    return found


def _event_delay(bench: Bench, seconds: float) -> list[Finding]:
    del seconds  # it reads a fixed number of events
    found = event_delays(bench.upstream.port, "no proxy")
    for system in _COMPARED:
        with _fresh(bench, "sse-delay", system) as live:
            found += event_delays(live.port, system.name)
    return found


def _fresh_gateway(bench: Bench, name: str) -> AbstractContextManager[Running]:
    return _fresh(bench, name, Gateway())


@contextmanager
def _fresh(bench: Bench, name: str, system: System) -> Iterator[Running]:
    """A system that has not been used before: memory has no past."""
    folder: Path = bench.folder / f"{name}-{system.name}"
    folder.mkdir()
    site = Site(folder, free_port(), bench.upstream.port)
    with system.run(site, bench.tools) as live:
        yield live


_COMPARED: tuple[System, ...] = (Nginx(), Gateway())


PROBES = (
    Probe("decision", _decision),
    Probe("jobs", _jobs),
    Probe("in-flight", _in_flight),
    Probe("sse-delay", _event_delay),
    Probe("stall", _stall),
    Probe("idle-1000", partial(_idle, 1_000)),
    Probe("idle-10000", partial(_idle, 10_000)),
    Probe("memory", _memory, is_long=True),
)
