"""Interleaved rounds: every system once a round, so that each meets the same moods of the machine.

What counts is a window in the middle of the load: connections are open and warm when it begins,
and nothing is being closed when it ends.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.children import SYSTEM_CORE, BenchmarkError, exchange
from tests.benchmarks.load import Bodies, LoadResult, load
from tests.benchmarks.processes import core_busy_s, cpu_s, rss_bytes
from tests.benchmarks.results import Row, Sample, ScenarioResult
from tests.benchmarks.scenarios import Scenario, Use
from tests.benchmarks.systems.system import Running, System
from tests.benchmarks.tools import Tools
from tests.benchmarks.upstream import Upstream

_MB = 1e6
_RECEIVED = re.compile(rb'"received":\d+')
_SENT_AT = re.compile(rb'"sent_ns":\d+')
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

    def measured(name: str) -> Sample:
        system, live = taking[name]
        verify(bench.upstream, scenario, live.port, is_exact=system.is_exact)
        return measure(bench, scenario, live, bodies, seconds)

    rows = interleaved(bench.tell, scenario.name, list(taking), measured, rounds)
    return ScenarioResult(scenario.name, scenario.title, rows)


def interleaved(
    tell: Tell, work: str, names: Iterable[str], measured: Callable[[str], Sample], rounds: int
) -> tuple[Row, ...]:
    """A row for each system, which take turns; one that fails in a round has no sample there."""
    samples: dict[str, list[Sample | None]] = {name: [] for name in names}
    failures: dict[str, list[str]] = {name: [] for name in samples}
    for number in range(1, rounds + 1):
        for name, taken in samples.items():
            tell(f"{work} round {number}/{rounds} {name}")
            try:
                taken.append(measured(name))
            except (BenchmarkError, OSError) as error:
                taken.append(None)
                failures[name].append(str(error))
    return tuple(
        Row(name, tuple(taken), tuple(dict.fromkeys(failures[name])))
        for name, taken in samples.items()
    )


def verify(upstream: Upstream, scenario: Scenario, port: int, *, is_exact: bool) -> None:
    """See that a system passes the whole body on and gives the upstream's own answer.

    The answer tells how long the body was; that is not compared unless `is_exact`, nor where the
    body went into a document. Raises BenchmarkError if it is wrong, OSError if there is none.
    """
    request = ("POST", scenario.path, scenario.body, scenario.content_type, scenario.lines)
    expected = exchange(upstream.port, *request)
    given = exchange(port, *request)
    if scenario.events:
        expected, given = _without_times(expected), _without_times(given)
    if not is_exact or scenario.use is Use.LAMBDA:
        expected, given = _without_length(expected), _without_length(given)
    if given != expected:
        raise BenchmarkError(f"wrong answer: {given[0]} {given[1][:200]!r}, not {expected[0]}")


def measure(
    bench: Bench, scenario: Scenario, live: Running, bodies: Bodies, seconds: float
) -> Sample:
    """Load one system and look at the window. Raises BenchmarkError."""
    with load(bench.tools, live.port, scenario, bodies, _RAMP_S + seconds + _TAIL_S) as run:
        time.sleep(_RAMP_S)
        before = _reading(bench.upstream, scenario, live)
        time.sleep(seconds)
        after = _reading(bench.upstream, scenario, live)
        rss_mb = rss_bytes(live.pid) / _MB
        told = run.result()
    return _sample(before, after, told, rss_mb)


def measure_from_the_start(
    bench: Bench, scenario: Scenario, live: Running, bodies: Bodies, seconds: float
) -> Sample:
    """Load one system and count from its first client to its last answer. Raises BenchmarkError."""
    before = _reading(bench.upstream, scenario, live)
    with load(bench.tools, live.port, scenario, bodies, seconds) as run:
        told = run.result()
    after = _reading(bench.upstream, scenario, live)
    return _sample(before, after, told, rss_bytes(live.pid) / _MB)


class _Reading(NamedTuple):
    done: float
    cpu_s: float
    core_busy_s: float
    at: float


def _reading(upstream: Upstream, scenario: Scenario, live: Running) -> _Reading:
    done = upstream.events() if scenario.events else upstream.posts()
    return _Reading(done, cpu_s(live.pid), core_busy_s(SYSTEM_CORE), time.monotonic())


def _sample(before: _Reading, after: _Reading, told: LoadResult, rss_mb: float) -> Sample:
    done, cpu, busy, elapsed_s = (b - a for a, b in zip(before, after, strict=True))
    if done <= 0:
        raise BenchmarkError(f"no request reached the upstream ({told.errors} errors)")
    return Sample(
        cpu_us=cpu / done * 1e6,
        rps=done / elapsed_s,
        p50_ms=told.p50_s * 1e3,
        p99_ms=told.p99_s * 1e3,
        p999_ms=told.p999_s * 1e3,
        rss_mb=rss_mb,
        core_percent=cpu / elapsed_s * 100,
        others_percent=max(0.0, busy - cpu) / elapsed_s * 100,
        requests=told.requests,
        errors=told.errors,
    )


def _without_length(answer: tuple[int, bytes]) -> tuple[int, bytes]:
    status, body = answer
    return status, _RECEIVED.sub(b"", body).replace(b" ", b"")


def _without_times(answer: tuple[int, bytes]) -> tuple[int, bytes]:
    status, body = answer
    return status, _SENT_AT.sub(b"", body)
