"""Interleaved rounds: every system once a round, so that each meets the same moods of the machine.

What counts is a window in the middle of the load: connections are open and warm when it begins,
and nothing is being closed when it ends.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.children import SYSTEM_CORE, BenchmarkError, exchange
from tests.benchmarks.load import Bodies, load
from tests.benchmarks.processes import core_busy_s, cpu_s, rss_bytes
from tests.benchmarks.results import Row, Sample, ScenarioResult
from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.systems.system import Running, System
from tests.benchmarks.tools import Tools
from tests.benchmarks.upstream import Upstream

_MB = 1e6
_RECEIVED = re.compile(rb'"received":\d+')
_RAMP_S = 0.7
_TAIL_S = 0.3

Tell = Callable[[str], None]
"""Where progress is shown."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measurement of a run shares."""

    tools: Tools
    folder: Path
    upstream: Upstream
    tell: Tell


def run_scenario(
    bench: Bench,
    scenario: Scenario,
    systems: Mapping[str, tuple[System, Running]],
    rounds: int,
    seconds: float,
) -> ScenarioResult:
    """Measure all systems that take this scenario."""
    bodies = Bodies.write(bench.folder / f"{scenario.name}.body", scenario.bodies)
    taking = {name: it for name, it in systems.items() if it[0].takes(scenario)}
    samples: dict[str, list[Sample | None]] = {name: [] for name in taking}
    failures: dict[str, list[str]] = {name: [] for name in taking}
    for number in range(1, rounds + 1):
        for name, (system, live) in taking.items():
            bench.tell(f"{scenario.name} round {number}/{rounds} {name}")
            try:
                verify(bench.upstream, scenario, live.port, is_exact=system.is_exact)
                samples[name].append(measure(bench, scenario, live, bodies, seconds))
            except (BenchmarkError, OSError) as error:
                samples[name].append(None)
                failures[name].append(str(error))
    rows = tuple(Row(name, tuple(samples[name]), _distinct(failures[name])) for name in taking)
    return ScenarioResult(scenario.name, scenario.title, rows)


def verify(upstream: Upstream, scenario: Scenario, port: int, *, is_exact: bool) -> None:
    """See that a system passes the whole body on and gives the upstream's own answer.

    The answer tells how long the body was; that is not compared unless `is_exact`. Raises
    BenchmarkError if it is wrong, OSError if there is none.
    """
    request = ("POST", scenario.path, scenario.body, scenario.content_type)
    expected = exchange(upstream.port, *request)
    given = exchange(port, *request)
    if not is_exact:
        expected, given = _without_length(expected), _without_length(given)
    if given != expected:
        raise BenchmarkError(f"wrong answer: {given[0]} {given[1][:200]!r}, not {expected[0]}")


def measure(
    bench: Bench, scenario: Scenario, live: Running, bodies: Bodies, seconds: float
) -> Sample:
    """Load one system and look at the window. Raises BenchmarkError."""
    with load(bench.tools, live.port, scenario, bodies, _RAMP_S + seconds + _TAIL_S) as run:
        time.sleep(_RAMP_S)
        before = _reading(bench.upstream, live)
        time.sleep(seconds)
        after = _reading(bench.upstream, live)
        rss_mb = rss_bytes(live.pid) / _MB
        told = run.result()
    posts, cpu, busy, elapsed_s = (b - a for a, b in zip(before, after, strict=True))
    if posts <= 0:
        raise BenchmarkError(f"no request reached the upstream ({told.errors} errors)")
    return Sample(
        cpu_us=cpu / posts * 1e6,
        rps=posts / elapsed_s,
        p50_ms=told.p50_s * 1e3,
        p99_ms=told.p99_s * 1e3,
        rss_mb=rss_mb,
        core_percent=cpu / elapsed_s * 100,
        others_percent=max(0.0, busy - cpu) / elapsed_s * 100,
        requests=told.requests,
        errors=told.errors,
    )


class _Reading(NamedTuple):
    posts: float
    cpu_s: float
    core_busy_s: float
    at: float


def _reading(upstream: Upstream, live: Running) -> _Reading:
    return _Reading(upstream.posts(), cpu_s(live.pid), core_busy_s(SYSTEM_CORE), time.monotonic())


def _without_length(answer: tuple[int, bytes]) -> tuple[int, bytes]:
    status, body = answer
    return status, _RECEIVED.sub(b"", body).replace(b" ", b"")


def _distinct(messages: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(messages))
