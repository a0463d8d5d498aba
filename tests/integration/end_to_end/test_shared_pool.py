"""Three models on one replica beside the function host: none of them would pay for one alone."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from tests.integration.end_to_end.client import MLP, floats, infer, slow, steady
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.models import model, settings

ECHO = floats("x", np.ones((1, 2), np.float32))
NAMES = ("mlp", "slow", "echo")


def sharing(repository: Path) -> dict[str, Any]:
    own = model("any")["pool"]
    models = [{**model(name), "pool": "cpu", "sharing": {"load": "100ms"}} for name in NAMES]
    return settings(repository, *models, pools={"cpu": own})


async def test_three_models_share_a_replica_that_none_of_them_would_pay_for(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(sharing(repository))
    requests = {"mlp": MLP, "slow": slow(1), "echo": ECHO}
    async with aiohttp.ClientSession() as session:

        async def all_three(seconds: float) -> dict[str, Any]:
            # A replica costs as much as ten requests a second, and each model has six.
            loads = (
                steady(session, gateway.url, name, request, rps=6, seconds=seconds)
                for name, request in requests.items()
            )
            return dict(zip(requests, await asyncio.gather(*loads), strict=True))

        await all_three(6)
        outcomes = await all_three(3)
        pools = (await gateway.get("/v1/status"))["pools"]
        assert len(gateway.workers()) == 1
    last = {name: found[-1] for name, found in outcomes.items()}
    assert {name: (one.status, one.backend) for name, one in last.items()} == dict.fromkeys(
        NAMES, (200, "pool")
    )
    (replica,) = {one.endpoint for one in last.values()}
    (pool,) = pools
    assert (pool["name"], pool["replicas_wanted"], pool["sizing_reason"]) == (
        "cpu",
        1,
        "rent_or_buy",
    )
    assert [(one["id"], one["models"]) for one in pool["endpoints"]] == [
        (replica, ["echo", "mlp", "slow"])
    ]
    for name in NAMES:
        assert (await gateway.status(name))["cost_usd"]["warm_busy"] > 0
    assert 'router_replicas_billed{model="cpu"} 1.0' in await gateway.metrics()


async def test_a_model_alone_with_so_little_work_stays_on_its_function(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(sharing(repository))
    async with aiohttp.ClientSession() as session:
        outcomes = await steady(session, gateway.url, "mlp", MLP, rps=6, seconds=4)
        answer = await infer(session, gateway.url, "echo", ECHO)
    assert {one.backend for one in outcomes} == {"serverless"}
    assert (answer.status, answer.backend) == (200, "serverless")
    assert not gateway.workers()
