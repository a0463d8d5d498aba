"""A gateway in front of replicas that fail at random, at 60 % of what they can do, for a while.

Ends with a verdict: requests lost and late within bounds, and nothing leaked.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.integration.end_to_end.gateway import GatewayProcess
from tests.soak.holdings import Holdings, holdings
from tests.soak.load import Tally, run_load
from tests.soak.replicas import SERVICE_S, Fault, Replica

REPLICAS = 4
CONCURRENCY = 4
LOAD = 0.6
RATE_PER_S = LOAD * REPLICAS * CONCURRENCY / SERVICE_S
OBJECTIVE_S = 2.0
MAX_LOST_RATIO = 0.001
MAX_LATE_RATIO = 0.01
_FAULTY_S = (0.5, 4.0)
_BETWEEN_S = (0.2, 1.5)
_WARM_UP_SHARE = 0.2
_MAX_WARM_UP_S = 60.0


@dataclass
class Report:
    """How it went."""

    seed: int
    tally: Tally
    before: Holdings
    after: Holdings
    faults: Counter[str] = field(default_factory=Counter)
    ejections: int = 0

    @property
    def problems(self) -> list[str]:
        """What is not as it must be."""
        found = self.after.leaks(self.before)
        if self.tally.lost_ratio > MAX_LOST_RATIO:
            found.append(f"lost: {self.tally.lost} of {self.tally.sent}: {self.tally.outcomes}")
        if self.tally.late_ratio > MAX_LATE_RATIO:
            found.append(f"late: {self.tally.late} of {self.tally.sent}")
        return found

    def __str__(self) -> str:
        tally = self.tally
        lines = [
            f"seed {self.seed}: {tally.sent} requests, {tally.lost} lost ({tally.lost_ratio:.4%})"
        ]
        late = f"{tally.late} over {OBJECTIVE_S:g} s ({tally.late_ratio:.4%})"
        lines.append(f"{late}, slowest {tally.slowest_s:.2f} s; outcomes {dict(tally.outcomes)}")
        faults = ", ".join(f"{count} {fault}" for fault, count in self.faults.most_common())
        lines.append(f"faults: {faults}; ejections: {self.ejections}")
        lines += [f"before: {self.before}", f"after:  {self.after}"]
        return "\n".join(lines + [f"PROBLEM {problem}" for problem in self.problems])


def config(replicas: list[Replica]) -> dict[str, Any]:
    """One model on replicas that others run, and no function."""
    pool = {
        "kind": "static",
        "urls": [replica.url for replica in replicas],
        "concurrency": CONCURRENCY,
        "service_time_ms": SERVICE_S * 1e3,
        "timeouts": {"connect": "500ms", "response": "700ms"},
        "health": {"interval": "250ms", "timeout": "250ms", "unhealthy_after": 2},
        "price_per_replica_hour": 0.05,
    }
    slo = {"latency_ms": OBJECTIVE_S * 1e3}
    return {"models": [{"name": "m", "slo": slo, "pool": pool}]}


async def soak(folder: Path, seconds: float, seed: int) -> Report:
    """Run it. The gateway and the replicas are gone when this returns."""
    rng = Random(seed)
    faults: Counter[str] = Counter()
    async with _replicas() as replicas, _gateway(folder, config(replicas)) as gateway:
        warm_up_s = min(_WARM_UP_SHARE * seconds, _MAX_WARM_UP_S)
        await _storm(gateway, replicas, warm_up_s, rng, Counter())
        before = await holdings(gateway)
        tally = await _storm(gateway, replicas, seconds - warm_up_s, rng, faults)
        after = await holdings(gateway)
        ejections = _ejections(await gateway.metrics())
    return Report(seed, tally, before, after, faults, ejections)


async def _storm(
    gateway: GatewayProcess, replicas: list[Replica], seconds: float, rng: Random,
    faults: Counter[str],
) -> Tally:  # fmt: skip
    """Load and faults for so long; afterwards all replicas are well again."""
    trouble = asyncio.create_task(_trouble(replicas, Random(rng.random()), faults))
    try:
        url = f"{gateway.url}/v2/models/m/infer"
        return await run_load(url, RATE_PER_S, seconds, OBJECTIVE_S, rng)
    finally:
        trouble.cancel()
        await asyncio.gather(trouble, return_exceptions=True)


async def _trouble(replicas: list[Replica], rng: Random, faults: Counter[str]) -> None:
    """One replica after the other has something; two at once would be more than 60 % can bear."""
    while True:
        await asyncio.sleep(rng.uniform(*_BETWEEN_S))
        replica, fault = rng.choice(replicas), rng.choice(list(Fault))
        faults[fault] += 1
        await replica.begin(fault)
        try:
            await asyncio.sleep(rng.uniform(*_FAULTY_S))
        finally:
            await replica.end()


@asynccontextmanager
async def _replicas() -> AsyncIterator[list[Replica]]:
    replicas = [Replica() for _ in range(REPLICAS)]
    try:
        for replica in replicas:
            await replica.start()
        yield replicas
    finally:
        for replica in replicas:
            await replica.stop()


@asynccontextmanager
async def _gateway(folder: Path, settings: dict[str, Any]) -> AsyncIterator[GatewayProcess]:
    gateway = GatewayProcess(folder, settings)
    try:
        await asyncio.to_thread(gateway.start)
        yield gateway
        status = await asyncio.to_thread(gateway.stop)
        assert status == 0, f"the gateway ended with status {status}"
    finally:
        await asyncio.to_thread(gateway.ensure_gone)


def _ejections(metrics: str) -> int:
    name = "router_endpoint_ejections_total{"
    lines = [line for line in metrics.splitlines() if line.startswith(name)]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))
