"""With a thousand models no work of the gateway's own keeps the event loop from its requests."""

import asyncio
import gc
from asyncio.events import Handle
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import thread_time
from typing import Any

import pytest

from router.domain.decision import Backend, Outcome, Reason
from router.telemetry.labels import AttemptResult
from router.telemetry.metrics import Metrics
from router.turns import TURN_S, in_turns
from tests.fakes.upstreams import ok
from tests.integration.harness import Harness

pytestmark = pytest.mark.alone

MODELS = 1000
# Room for a machine that is slow or busy; without turns it is ten to a thousand times as much.
MOST_S = max(0.004, 4 * TURN_S)


class LongestTurn:
    """The most CPU time that one callback of the event loop has taken, and which that was."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.what = ""
        self.is_over = False

    def took(self, cpu_s: float, handle: Handle) -> None:
        if cpu_s > self.cpu_s and not self.is_over:
            task = getattr(getattr(handle, "_callback", None), "__self__", None)
            self.cpu_s, self.what = cpu_s, f"{handle!r} of {task!r}"


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[LongestTurn]:
    """Watches all callbacks; collections of garbage have a test of their own."""
    longest, run = LongestTurn(), Handle._run

    def timed(self: Handle) -> None:
        began = thread_time()
        run(self)
        longest.took(thread_time() - began, self)

    gc.disable()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Handle, "_run", timed)
            yield longest
    finally:
        longest.is_over = True
        gc.enable()


def model(number: int, latency_ms: int = 500) -> dict[str, Any]:
    return {
        "name": f"model-{number}",
        "slo": {"latency_ms": latency_ms},
        "serverless": {
            "kind": "aws_lambda", "function": f"fn-{number}", "region": "eu-central-1",
            "endpoint_url": "http://127.0.0.1:9",
        },
        "pool": {
            "kind": "static", "urls": [f"http://127.0.{number // 250}.{number % 250 + 1}:9"],
            "health": {"interval": "10m", "timeout": "1s"},
        },
    }  # fmt: skip


@asynccontextmanager
async def traffic(gateway: Harness) -> AsyncIterator[None]:
    """A client whose requests go on meanwhile, and are all answered."""
    going_on = True

    async def go_on() -> None:
        while going_on:
            assert (await gateway.infer(b"{}")).status == 200

    client = asyncio.create_task(go_on())
    try:
        yield
    finally:
        going_on = False
        await client


class Large(Harness):
    """A gateway with a thousand models; only the first one, `m`, has a replica."""

    def _make_config(self) -> dict[str, Any]:
        config = super()._make_config()
        config["models"] += [model(number) for number in range(1, MODELS)]
        return config


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Harness]:
    async with Large(tmp_path, warm=[ok()]) as large:
        for name in large.gateway._runtime.current.models:
            count_one_of_each(large.gateway._metrics, name)
        yield large


def count_one_of_each(metrics: Metrics, name: str) -> None:
    for backend in Backend:
        metrics.record_request(name, backend, Outcome.OK, 0.01, 0.001)
        metrics.record_attempt(name, backend, AttemptResult.OK, 0.009)
        metrics.record_decision(name, backend, Reason.WARM_CAPACITY)


async def length_of(gateway: Harness, path: str) -> int:
    """The bytes of a document of the admin port, thrown away as they come."""
    async with gateway.client.get(gateway.admin + path) as response:
        assert response.status == 200
        return sum([len(some) async for some in response.content.iter_any()])


@pytest.mark.parametrize("path", ["/metrics", "/v1/status", "/v1/config"])
async def test_a_large_document_is_made_in_turns(gateway: Harness, path, monkeypatch):
    async with traffic(gateway):
        with watched(monkeypatch) as longest:
            length = await length_of(gateway, path)
    assert length > 500 * MODELS
    assert longest.cpu_s < MOST_S, longest.what


@pytest.mark.parametrize("latency_ms", [500, 600], ids=["nothing changed", "every model changed"])
async def test_a_reload_is_taken_up_in_turns(gateway: Harness, latency_ms, monkeypatch):
    changed = [model(number, latency_ms) for number in range(1, MODELS)]
    await gateway.write({**gateway.config, "models": [gateway.config["models"][0], *changed]})
    async with traffic(gateway):
        with watched(monkeypatch) as longest:
            assert (await gateway.ask("POST", "/v1/reload")).status == 200
    assert longest.cpu_s < MOST_S, longest.what
    assert len(gateway.gateway._runtime.current.models) == MODELS


async def test_pools_are_sized_in_turns(gateway: Harness, monkeypatch):
    async with traffic(gateway):
        with watched(monkeypatch) as longest:
            await in_turns(gateway.gateway._controller.stepping())
    assert longest.cpu_s < MOST_S, longest.what
