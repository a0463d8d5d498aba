"""Replicas that fail in every way of the matrix, and traffic that tells what became of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.upstreams import Answer, Behaviour, Hangup, Received, Upstream
from tests.integration.harness import Harness

USUAL_S = 0.002


def works(seconds: float = USUAL_S) -> Behaviour:
    """Answers well, after so long."""

    async def behave(_: Received) -> Answer:
        await asyncio.sleep(seconds)
        return Answer()

    return behave


async def never(_: Received) -> Answer:
    """Does not answer."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable")


async def resets(_: Received) -> Answer:
    """Breaks off within an answer of known length."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"outp'
        raise Hangup

    return Answer(headers=(("content-length", "100"),), chunks=chunks)


async def cuts(_: Received) -> Answer:
    """Breaks off within a stream."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await asyncio.sleep(0.01)
        raise Hangup

    return Answer(headers=(("content-type", "text/event-stream"),), chunks=chunks)


@dataclass
class Hung(Upstream):
    """A replica that stops answering at all, probes included, once it is told to."""

    is_hung: bool = False

    async def _probe(self) -> web.StreamResponse:
        if self.is_hung:
            await asyncio.get_running_loop().create_future()
        return await super()._probe()


@dataclass
class Traffic:
    """What became of requests, by status; `cut` are answers that broke off."""

    statuses: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str | None] = field(default_factory=Counter)
    cut: int = 0

    @property
    def lost(self) -> int:
        return self.cut + sum(n for status, n in self.statuses.items() if status != 200)


async def send(gateway: Harness, count: int, clients: int = 4) -> Traffic:
    """So many requests, one after the other by each of a few clients."""
    traffic = Traffic()
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            try:
                reply = await gateway.infer()
            except (aiohttp.ClientError, ConnectionError):
                traffic.cut += 1
            else:
                traffic.statuses[reply.status] += 1
                traffic.reasons[reply.headers.get("x-router-reason")] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
    return traffic


async def send_until(gateway: Harness, state: str) -> Traffic:
    """Requests until an endpoint is in that state, for a bounded time."""
    traffic = Traffic()
    async with asyncio.timeout(60):
        while not (await states(gateway))[state]:
            sent = await send(gateway, 50)
            traffic.cut += sent.cut
            traffic.statuses += sent.statuses
            traffic.reasons += sent.reasons
    return traffic


async def counted(gateway: Harness, name: str, label: str) -> dict[str, float]:
    """A family's samples of the model that are not 0, by one label."""
    text = (await gateway.ask("GET", "/metrics")).body.decode()
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels.get("model") == "m" and sample.value:
                found[sample.labels.get(label, "")] += int(sample.value)
    return dict(found)


async def states(gateway: Harness) -> Counter[str]:
    """How many endpoints are in which state."""
    return Counter(endpoint["state"] for endpoint in (await gateway.status())["endpoints"])


async def until_states(gateway: Harness, **expected: Any) -> None:
    """Wait until that is so, for a bounded time."""
    async with asyncio.timeout(10):
        while await states(gateway) != expected:
            await asyncio.sleep(0.01)
