"""A prior that is wrong keeps no backend shut: a few requests find out what is true."""

import asyncio
from pathlib import Path

from tests.fakes.upstreams import Answer, Behaviour, Received, ok
from tests.integration.harness import Harness

OBJECTIVE = {"slo": {"latency_ms": 800, "percentile": 99}}
SLOW_PRIOR = {"service_time_ms": 500}
"""Its high estimate, 875 ms, is above the objective."""
ON_FUNCTION = ("serverless", "deadline")


def _takes(seconds: float) -> Behaviour:
    answer = ok()

    async def behave(received: Received) -> Answer:
        await asyncio.sleep(seconds)
        return await answer(received)

    return behave


async def _learn_the_function(gateway: Harness) -> None:
    for _ in range(30):
        await gateway.infer(x_router_backend="serverless")


async def test_a_free_replica_with_a_prior_above_the_objective_gets_the_requests(
    tmp_path: Path,
) -> None:
    async with Harness(
        tmp_path, warm=[_takes(0.005)], function=_takes(0.02), model=OBJECTIVE, pool=SLOW_PRIOR
    ) as gateway:
        await _learn_the_function(gateway)
        decisions = [(await gateway.infer()).decision for _ in range(40)]
    assert decisions[0] == ("pool", "explore")
    assert decisions.count(ON_FUNCTION) <= 2
    assert decisions[-20:] == [("pool", "warm_capacity")] * 20


async def test_a_replica_that_really_is_too_slow_gets_few_requests(tmp_path: Path) -> None:
    async with Harness(
        tmp_path, warm=[_takes(1.0)], function=_takes(0.01), model=OBJECTIVE, pool=SLOW_PRIOR
    ) as gateway:
        await _learn_the_function(gateway)
        decisions = [(await gateway.infer()).decision for _ in range(9)]
    tried = [n for n, decision in enumerate(decisions) if decision == ("pool", "explore")]
    assert tried == [0, 1, 4]
    assert decisions.count(ON_FUNCTION) == 6
