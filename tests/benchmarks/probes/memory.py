"""The gateway's memory under large bodies in flight, and over many requests."""

import time
from pathlib import Path

from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.load import Bodies, load
from tests.benchmarks.processes import peak_rss_bytes, reset_peak, rss_bytes
from tests.benchmarks.results import Finding
from tests.benchmarks.rounds import Bench, verify
from tests.benchmarks.scenarios import BY_NAME, MIB, Scenario, Shape
from tests.benchmarks.systems.system import Running

LARGE = Scenario("4m-64", "4 MiB tensor, 64 connections", Shape.TENSOR, 4 * MIB, 64)
LARGEST = Scenario("32m-64", "32 MiB tensor, 64 connections", Shape.TENSOR, 32 * MIB, 64)
_MB = 1e6
_EARLY, _LATE = 100_000, 1_000_000
_STRETCH_S = 20.0
_LONGEST_S = 1800.0


def in_flight_growth(
    bench: Bench, live: Running, name: str, scenario: Scenario, seconds: float
) -> list[Finding]:
    """Peak resident memory with so many large bodies under way, over what it was before."""
    body = _body(bench.folder, scenario)
    what = f"{scenario.connections} x {scenario.body_bytes // MIB} MiB in flight"
    verify(bench.upstream, BY_NAME["infer-1"], live.port, is_exact=True)
    idle = rss_bytes(live.pid)
    reset_peak(live.pid)
    with load(bench.tools, live.port, scenario, body, seconds) as run:
        told = run.result()
    if told.errors:
        raise BenchmarkError(f"{told.errors} errors with {what}")
    growth = (peak_rss_bytes(live.pid) - idle) / _MB
    return [Finding(name, f"RSS growth at {what}, over {idle / _MB:.0f} MB idle", growth, "MB")]


def growth_over_a_million(bench: Bench, live: Running) -> list[Finding]:
    """Resident memory after 100 k and after 1 M requests; takes minutes."""
    start, give_up_at = bench.upstream.posts(), time.monotonic() + _LONGEST_S
    early = _rss_after(bench, live, start + _EARLY, give_up_at)
    late = _rss_after(bench, live, start + _LATE, give_up_at)
    return [
        Finding("rss-100k", "RSS after 100 k requests", early, "MB"),
        Finding("rss-1m", "RSS after 1 M requests", late, "MB"),
        Finding("memory-growth", "growth in between", (late / early - 1) * 100, "%"),
    ]


def _rss_after(bench: Bench, live: Running, posts: int, give_up_at: float) -> float:
    """Load the gateway until the upstream has answered that many requests."""
    scenario = BY_NAME["infer-32"]
    body = _body(bench.folder, scenario)
    while (done := bench.upstream.posts()) < posts:
        if time.monotonic() > give_up_at:
            raise BenchmarkError(f"only {done} requests within {_LONGEST_S:.0f} s")
        bench.tell(f"memory: {posts - done:,} requests to go")
        with load(bench.tools, live.port, scenario, body, _STRETCH_S) as run:
            if errors := run.result().errors:
                raise BenchmarkError(f"{errors} errors while counting to {posts}")
    return rss_bytes(live.pid) / _MB


def _body(folder: Path, scenario: Scenario) -> Bodies:
    return Bodies.write(folder / f"{scenario.name}.body", scenario.bodies)
