"""A minute of real traffic through a real gateway, and the replay of its log: do they agree?

The scenario is stated in advance: quiet, livelier, busy, quiet. The second part starts a few of the
function's environments one by one: eight at once on two cores take each other's time, and a replay
draws each cold start by itself (docs/cost.md). Only times are taken from the live run (what
requests and start-ups took, as `measure` finds them); what went where is the replay's own finding.
"""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import numpy as np
import pytest
from click.testing import CliRunner

from router.cli import main
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess
from workers.demo.calls import Call, infer

DEMO_MODELS = Path(__file__).parents[2] / ".demo" / "models"
QUIET_PER_S, LIVELY_PER_S, BUSY_PER_S = 1.0, 2.5, 12.0
LIVELY_FROM_S, BUSY_FROM_S, BUSY_TO_S, END_S = 5.0, 15.0, 50.0, 65.0
CONFIG: dict[str, Any] = {
    "workers": {"repository": str(DEMO_MODELS), "log": "workers.log"},
    "controller": {"interval": "200ms", "window": "3s"},
    "models": [
        {
            "name": "minilm",
            "slo": {"latency_ms": 2000},
            "serverless": {
                "kind": "local", "max_concurrency": 8, "service_time_ms": 30,
                "price": {"usd_per_request": 3e-6, "usd_per_gb_s": 0},
            },
            "pool": {
                "kind": "process", "max_replicas": 1, "concurrency": 4, "service_time_ms": 30,
                "startup": "2s", "min_billing": "5s", "price_per_replica_hour": 0.036,
                "health": {"interval": "200ms"},
            },
        }
    ],
}  # fmt: skip


def arrivals(seed: int) -> list[float]:
    """Poisson arrivals, each part with its rate."""
    rng = Random(seed)
    at, found = 0.0, []
    while (at := at + rng.expovariate(BUSY_PER_S)) < END_S:
        if rng.random() < _rate(at) / BUSY_PER_S:
            found.append(at)
    return found


def _rate(at: float) -> float:
    if BUSY_FROM_S <= at < BUSY_TO_S:
        return BUSY_PER_S
    return LIVELY_PER_S if LIVELY_FROM_S <= at < BUSY_FROM_S else QUIET_PER_S


async def send(url: str, at: list[float]) -> list[Call]:
    """Each request at its time, whether or not earlier ones have been answered."""
    ids = np.full((1, 96), 2003, np.int64)
    inputs = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(session: aiohttp.ClientSession, due: float) -> Call:
        await asyncio.sleep(due - (loop.time() - began))
        return await infer(session, url, "minilm", inputs)

    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*(one(session, due) for due in at))


def hybrid_router(*arguments: str | Path) -> None:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_the_replay_of_its_log_is_what_the_gateway_did(start_gateway: StartGateway) -> None:
    gateway = start_gateway(CONFIG)
    at = arrivals(seed=7)
    calls = asyncio.run(send(gateway.url, at))
    assert [call.error for call in calls if call.status != 200] == []
    log, world = gateway.folder / "access.log", gateway.folder / "world.yaml"
    asyncio.run(logged(gateway, len(at)))
    hybrid_router("measure", "--log", log, "--admin", gateway.admin, "--out", world)
    report = gateway.folder / "replay.json"
    hybrid_router(
        "replay", "--config", gateway.config_file, "--trace", log, "--world", world,
        "--json", report, "--interval", "10s", "--no-baselines",
    )  # fmt: skip
    replayed = json.loads(report.read_text())

    live_share = np.mean([call.backend == "serverless" for call in calls])
    live_p50_ms = float(np.median([line["total_ms"] for line in gateway.access_log()]))
    assert replayed["requests"] == len(at)
    # The scenario is one in which there is something to agree on.
    assert 0.1 < live_share < 0.7
    assert replayed["serverless_ratio"] == pytest.approx(live_share, abs=0.03)
    assert replayed["p50_ms"] == pytest.approx(live_p50_ms, rel=0.15)


async def logged(gateway: GatewayProcess, lines: int) -> None:
    """Wait until the access log has been written."""
    async with asyncio.timeout(5):
        while len(gateway.access_log()) < lines:
            await asyncio.sleep(0.05)
