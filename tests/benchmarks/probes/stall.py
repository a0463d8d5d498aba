"""An upstream that hangs for a second under 1,000 clients: when is the full rate back?"""

import time

from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.load import Bodies, load
from tests.benchmarks.results import Finding
from tests.benchmarks.rounds import Bench
from tests.benchmarks.scenarios import BY_NAME
from tests.benchmarks.systems.system import Running

_STALLS, _STALL_S = 2, 1.0
_SETTLE_S, _NORMAL_S = 1.5, 2.0
_STEP_S, _WATCH_S = 0.2, 4.0
_FULL = 0.9
"""Share of the rate before that counts as the full rate: it is never the same for two seconds."""


def after_stalls(bench: Bench, live: Running, system: str) -> list[Finding]:
    """The slower of two recoveries, in seconds after the upstream goes on."""
    scenario = BY_NAME["cold-1000"]
    bodies = Bodies.write(bench.folder / f"stall-{system}.body", scenario.bodies)
    longest_s = _SETTLE_S + _STALLS * (_NORMAL_S + _STALL_S + _WATCH_S)
    with load(bench.tools, live.port, scenario, bodies, longest_s) as run:
        time.sleep(_SETTLE_S)
        slowest_s = max(_recovery_s(bench) for _ in range(_STALLS))
        told = run.result()
    if not told.requests:
        raise BenchmarkError("nothing was answered")
    what = f"{_STALLS} stalls of {_STALL_S:g} s of the upstream, 1,000 clients"
    return [
        Finding(f"stall-{system}", f"{what}: {system}'s full rate is back after", slowest_s, "s"),
        Finding(f"stall-errors-{system}", f"{what}: {system}'s errors", told.errors, ""),
    ]


def _recovery_s(bench: Bench) -> float:
    """Time from the end of a stall to the end of the first step at the full rate.

    What never recovers counts as the whole time that it was watched.
    """
    normal_per_s = _rate_per_s(bench, _NORMAL_S)
    with bench.upstream.stopped():
        time.sleep(_STALL_S)
    start = time.monotonic()
    while (passed_s := time.monotonic() - start) < _WATCH_S:
        if _rate_per_s(bench, _STEP_S) >= _FULL * normal_per_s:
            return time.monotonic() - start
    return passed_s


def _rate_per_s(bench: Bench, seconds: float) -> float:
    posts, start = bench.upstream.posts(), time.monotonic()
    time.sleep(seconds)
    return (bench.upstream.posts() - posts) / (time.monotonic() - start)
