"""Clients whose requests come at random times, whatever becomes of those before."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import aiohttp

_MOST_AT_ONCE = 1000
_GIVE_UP_S = 20.0
_BODY = b'{"inputs": [{"name": "x", "shape": [1, 40], "datatype": "FP32", "data": [%b]}]}' % (
    b", ".join(b"0.5" for _ in range(40))
)


@dataclass
class Tally:
    """What became of the requests of one run."""

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    late: int = 0
    slowest_s: float = 0.0

    @property
    def lost(self) -> int:
        return self.sent - self.outcomes["200"]

    @property
    def lost_ratio(self) -> float:
        return self.lost / max(self.sent, 1)

    @property
    def late_ratio(self) -> float:
        return self.late / max(self.sent, 1)


async def run_load(
    url: str, rate_per_s: float, seconds: float, objective_s: float, rng: Random
) -> Tally:
    """Requests for so long; returns when all have ended."""
    tally = Tally()
    timeout = aiohttp.ClientTimeout(total=_GIVE_UP_S)
    connector = aiohttp.TCPConnector(limit=_MOST_AT_ONCE)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        asyncio.TaskGroup() as tasks,
    ):
        now = time.monotonic()
        end = now + seconds
        while now < end:
            now += rng.expovariate(rate_per_s)
            await asyncio.sleep(max(now - time.monotonic(), 0.0))
            tally.sent += 1
            tasks.create_task(_one(session, url, objective_s, tally))
    return tally


async def _one(session: aiohttp.ClientSession, url: str, objective_s: float, tally: Tally) -> None:
    started = time.monotonic()
    try:
        headers = {"content-type": "application/json"}
        async with session.post(url, data=_BODY, headers=headers) as response:
            await response.read()
            outcome = str(response.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome = type(error).__name__
    took_s = time.monotonic() - started
    tally.outcomes[outcome] += 1
    tally.late += took_s > objective_s
    tally.slowest_s = max(tally.slowest_s, took_s)
