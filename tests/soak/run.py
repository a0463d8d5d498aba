"""A gateway in front of places that fail at random, beside clients that attack it, for a while.

Ends with a verdict: requests lost and late within bounds, and nothing leaked. One place fails at a
time, so every request had a second place to go: none may be lost.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NoReturn

from tests.soak.holdings import Holdings, holdings
from tests.soak.load import Flow, Load, Tally
from tests.soak.replicas import SERVICE_S
from tests.soak.stage import CONCURRENCY, KEY, OBJECTIVE_S, REPLICAS, Stage, mlp_body, staged
from tests.soak.troubles import PLACES, SURROUNDINGS, make_trouble

LOAD = 0.5
RATE_PER_S = LOAD * REPLICAS * CONCURRENCY / SERVICE_S
OTHERS_PER_S = 3.0
MAX_LOST_RATIO = 0.0
MAX_LATE_RATIO = 0.01
_TELL_EVERY_S = 120.0
_STALL_STEP_S = 0.05
_WARM_UP_SHARE = 0.2
_MAX_WARM_UP_S = 60.0


Say = Callable[[str], None]


@dataclass
class Report:
    """How it went."""

    seed: int
    tally: Tally
    before: Holdings
    after: Holdings
    stage: Stage
    ejections: int
    stalled_s: float
    """The longest time that this process itself could not run: its replicas seemed hung."""

    @property
    def problems(self) -> list[str]:
        """What is not as it must be."""
        found = self.after.leaks(self.before) + self.stage.violations
        if self.tally.lost_ratio > MAX_LOST_RATIO:
            found.append(f"lost: {self.tally.lost} of {self.tally.sent}")
        if self.tally.late_ratio > MAX_LATE_RATIO:
            found.append(f"late: {self.tally.late} of {self.tally.sent}")
        return found

    def __str__(self) -> str:
        tally = self.tally
        return "\n".join(
            [
                f"seed {self.seed}: {tally}",
                f"outcomes: {_counts(tally.outcomes)}",
                f"troubles: {_counts(self.stage.troubles)}; ejections: {self.ejections}",
                f"this process was kept from running for {self.stalled_s:.2f} s at most",
                f"others: {_counts(self.stage.statuses)}",
                f"before: {self.before}",
                f"after:  {self.after}",
                *(f"LOST {loss}" for loss in tally.losses),
                *(f"PROBLEM {problem}" for problem in self.problems),
            ]
        )


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


async def soak(folder: Path, seconds: float, seed: int, say: Say) -> Report:
    """Run it, and `say` now and then how it goes. What it started is gone when this returns."""
    rng = Random(seed)
    async with staged(folder) as stage:
        warm_up_s = min(_WARM_UP_SHARE * seconds, _MAX_WARM_UP_S)
        await _storm(stage, warm_up_s, rng, say)
        stage.troubles.clear()
        stage.statuses.clear()
        before = await holdings(stage.gateway)
        stage.stalled_s = 0.0
        tally = await _storm(stage, seconds - warm_up_s, rng, say)
        stalled_s = stage.stalled_s
        after = await holdings(stage.gateway)
        ejections = _ejections(await stage.gateway.metrics())
    return Report(seed, tally, before, after, stage, ejections, stalled_s)


async def _storm(stage: Stage, seconds: float, rng: Random, say: Say) -> Tally:
    """Load and troubles for so long; afterwards everything is well again."""
    values = ", ".join(["0.5"] * 40)
    body = (
        f'{{"inputs": [{{"name": "x", "shape": [1, 40], "datatype": "FP32", "data": [{values}]}}]}}'
    )
    flows = [
        Flow("m", body.encode(), RATE_PER_S),
        Flow("mlp", mlp_body(), OTHERS_PER_S),
        Flow("far", mlp_body(), OTHERS_PER_S),
    ]
    load = Load(stage.gateway.url, KEY, OBJECTIVE_S, stage.during)
    tally = Tally()
    running = asyncio.create_task(load.run(flows, seconds, rng, tally))
    beside = [
        asyncio.create_task(_tell(tally, stage, say)),
        asyncio.create_task(_watch_stalls(stage)),
        *(
            asyncio.create_task(make_trouble(kinds, stage, Random(rng.random())))
            for kinds in (PLACES, SURROUNDINGS)
        ),
    ]
    try:
        await asyncio.wait((running, *beside), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in beside:
            task.cancel()
        ended = await asyncio.gather(*beside, return_exceptions=True)
    for error in ended:
        if not isinstance(error, asyncio.CancelledError):
            running.cancel()
            raise error
    await running
    return tally


async def _tell(tally: Tally, stage: Stage, say: Say) -> NoReturn:
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        say(f"so far {tally}; stalled for {stage.stalled_s:.2f} s at most")


async def _watch_stalls(stage: Stage) -> NoReturn:
    while True:
        asleep = time.monotonic()
        await asyncio.sleep(_STALL_STEP_S)
        late_s = time.monotonic() - asleep - _STALL_STEP_S
        stage.stalled_s = max(stage.stalled_s, late_s)


def _ejections(metrics: str) -> int:
    name = "router_endpoint_ejections_total{"
    lines = [line for line in metrics.splitlines() if line.startswith(name)]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))
