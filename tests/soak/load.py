"""Clients whose requests come at random times, whatever becomes of those before."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import aiohttp

_MOST_AT_ONCE = 1000
_GIVE_UP_S = 20.0
_MOST_LOSSES_TOLD = 50
_TOLD_HEADERS = ("x-request-id", "x-router-backend", "x-router-reason", "x-router-attempts")


@dataclass(frozen=True)
class Flow:
    """What one model is sent."""

    model: str
    body: bytes
    rate_per_s: float


@dataclass
class Tally:
    """What became of the requests of one run. `losses` tells of the first ones that were lost."""

    sent: int = 0
    ended: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    served: int = 0
    late: int = 0
    slowest_s: float = 0.0
    losses: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.ended - self.served

    @property
    def lost_ratio(self) -> float:
        return self.lost / max(self.sent, 1)

    def __str__(self) -> str:
        late = f"{self.late} late ({self.late_ratio:.4%}), slowest {self.slowest_s:.2f} s"
        return f"{self.sent} requests, {self.lost} lost ({self.lost_ratio:.4%}), {late}"

    @property
    def late_ratio(self) -> float:
        return self.late / max(self.sent, 1)


class Load:
    """Honest clients with a key; `during` names the troubles since a time (monotonic)."""

    def __init__(
        self, url: str, key: str, objective_s: float, during: Callable[[float], str]
    ) -> None:
        self._url = url
        self._headers = {"content-type": "application/json", "x-api-key": key}
        self._objective_s = objective_s
        self._during = during

    async def run(self, flows: list[Flow], seconds: float, rng: Random, tally: Tally) -> None:
        """Requests for so long, added to the tally; returns when all have ended."""
        timeout = aiohttp.ClientTimeout(total=_GIVE_UP_S)
        connector = aiohttp.TCPConnector(limit=_MOST_AT_ONCE)
        async with (
            aiohttp.ClientSession(
                self._url, timeout=timeout, connector=connector, headers=self._headers
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for flow in flows:
                own = Random(rng.random())
                tasks.create_task(self._send(session, flow, seconds, own, tally, tasks))

    async def _send(
        self, session: aiohttp.ClientSession, flow: Flow, seconds: float, rng: Random,
        tally: Tally, tasks: asyncio.TaskGroup,
    ) -> None:  # fmt: skip
        now = time.monotonic()
        end = now + seconds
        while now < end:
            now += rng.expovariate(flow.rate_per_s)
            await asyncio.sleep(max(now - time.monotonic(), 0.0))
            tally.sent += 1
            tasks.create_task(self._one(session, flow, tally))

    async def _one(self, session: aiohttp.ClientSession, flow: Flow, tally: Tally) -> None:
        started, told = time.monotonic(), ""
        try:
            async with session.post(f"/v2/models/{flow.model}/infer", data=flow.body) as response:
                content = await response.read()
                outcome = str(response.status)
                named = {name: response.headers.get(name) for name in _TOLD_HEADERS}
                told = f"{named} {content[:200]!r}"
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome, told = type(error).__name__, str(error)
        took_s = time.monotonic() - started
        tally.ended += 1
        tally.outcomes[f"{flow.model} {outcome}"] += 1
        tally.late += took_s > self._objective_s
        tally.slowest_s = max(tally.slowest_s, took_s)
        if outcome == "200":
            tally.served += 1
        elif len(tally.losses) < _MOST_LOSSES_TOLD:
            during = self._during(started)
            tally.losses.append(
                f"{flow.model} {outcome} after {took_s:.2f} s, during {during}: {told}"
            )
