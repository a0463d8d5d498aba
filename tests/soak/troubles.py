"""Everything that goes wrong in a soak, by name; each lasts as long as its block."""

import asyncio
import copy
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import NoReturn

import aiohttp
import psutil

from tests.integration.end_to_end.gateway import runs
from tests.soak.attacks import (
    broken_chunks,
    hasty_clients,
    idle_connections,
    slow_uploads,
    unfinished_heads,
)
from tests.soak.replicas import Fault
from tests.soak.stage import GUEST, Stage, mlp_body

Trouble = Callable[[Stage, Random], AbstractAsyncContextManager[None]]

_RELOADS = 20
_RELOAD_EVERY_S = 0.1
_LASTS_S = (0.5, 4.0)
_BETWEEN_S = (0.2, 1.5)
_REVOKED_WITHIN_S = 10.0


async def make_trouble(troubles: Mapping[str, Trouble], stage: Stage, rng: Random) -> NoReturn:
    """One after the other, until cancelled; what has begun is then ended."""
    while True:
        await asyncio.sleep(rng.uniform(*_BETWEEN_S))
        name = rng.choice(list(troubles))
        with stage.trouble(name):
            async with troubles[name](stage, Random(rng.random())):
                await asyncio.sleep(rng.uniform(*_LASTS_S))


@asynccontextmanager
async def _replica(fault: Fault, stage: Stage, rng: Random) -> AsyncIterator[None]:
    replica = rng.choice(stage.replicas)
    await replica.begin(fault)
    try:
        yield
    finally:
        await replica.end()


@asynccontextmanager
async def _stopped_worker(stage: Stage, _: Random) -> AsyncIterator[None]:
    """The kernel still accepts its connections, and nothing is answered."""
    workers = await asyncio.to_thread(stage.gateway.workers)
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):  # has been replaced
                worker.send_signal(signal.SIGCONT)


@asynccontextmanager
async def _restarted_host(stage: Stage, _: Random) -> AsyncIterator[None]:
    for child in await asyncio.to_thread(stage.gateway.children):
        if runs(child, "workers.function_host"):
            child.kill()
    yield


@asynccontextmanager
async def _throttled_function(stage: Stage, _: Random) -> AsyncIterator[None]:
    stage.function.is_throttled = True
    try:
        yield
    finally:
        stage.function.is_throttled = False


@asynccontextmanager
async def _paused_redis(stage: Stage, _: Random) -> AsyncIterator[None]:
    stage.redis.pause()
    try:
        yield
    finally:
        stage.redis.resume()


@asynccontextmanager
async def _killed_redis(stage: Stage, _: Random) -> AsyncIterator[None]:
    await asyncio.to_thread(stage.redis.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.redis.start)


@asynccontextmanager
async def _reload_storm(stage: Stage, rng: Random) -> AsyncIterator[None]:
    """Good and broken edits, each asked to be taken up at once; the last one is what was before."""
    try:
        for _ in range(_RELOADS):
            edited = copy.deepcopy(stage.settings)
            edited["models"][0]["slo"]["latency_ms"] = rng.choice((1500, 2500, -5))
            await _reload(stage, edited["models"])
            await asyncio.sleep(_RELOAD_EVERY_S)
    finally:
        await _reload(stage, stage.settings["models"])
    yield


async def _reload(stage: Stage, models: object) -> None:
    stage.gateway.config["models"] = models
    stage.gateway.write_config()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stage.gateway.admin}/v1/reload") as response,
    ):
        await response.read()
        stage.statuses[f"reload {response.status}"] += 1


@asynccontextmanager
async def _revoked_key(stage: Stage, _: Random) -> AsyncIterator[None]:
    """A key is taken back, which holds from some time on, and given again."""
    stage.write_keys(guest=False)
    try:
        await _until_guest_gets(401, stage)
        yield
    finally:
        stage.write_keys(guest=True)
        await _until_guest_gets(200, stage)


async def _until_guest_gets(status: int, stage: Stage) -> None:
    give_up_at = time.monotonic() + _REVOKED_WITHIN_S
    headers = {"content-type": "application/json", "x-api-key": GUEST}
    async with aiohttp.ClientSession(stage.gateway.url, headers=headers) as session:
        while time.monotonic() < give_up_at:
            async with session.post("/v2/models/m/infer", data=mlp_body()) as response:
                await response.read()
                if response.status == status:
                    return
            await asyncio.sleep(0.1)
    stage.violations.append(f"the guest did not get {status} within {_REVOKED_WITHIN_S:g} s")


PLACES: Mapping[str, Trouble] = {
    **{fault.value: partial(_replica, fault) for fault in Fault},
    "stopped worker": _stopped_worker,
    "function host killed": _restarted_host,
    "throttled function": _throttled_function,
}
"""Of where requests go. One at a time, so that each request has another place."""

SURROUNDINGS: Mapping[str, Trouble] = {
    "unfinished heads": unfinished_heads,
    "idle connections": idle_connections,
    "slow uploads": slow_uploads,
    "broken chunks": broken_chunks,
    "hasty clients": hasty_clients,
    "paused Redis": _paused_redis,
    "killed Redis": _killed_redis,
    "reload storm": _reload_storm,
    "revoked key": _revoked_key,
}
"""Of other clients, operators and the shared state: beside the others, at any time."""
