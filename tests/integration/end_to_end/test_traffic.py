"""Where traffic goes, and why: sporadic, steady, burst, large; in headers, log and metrics."""

import asyncio
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from tests.integration.end_to_end.client import MLP, count, floats, infer, slow, steady
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import model, settings


async def until_ready(gateway: GatewayProcess, name: str, replicas: int) -> None:
    async with asyncio.timeout(60):
        while (await gateway.status(name))["replicas_ready"] != replicas:
            await asyncio.sleep(0.05)


async def test_sporadic_calls_stay_on_the_function_and_the_first_is_cold(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(settings(repository, model("mlp")))
    async with aiohttp.ClientSession() as session:
        first = await infer(session, gateway.url, "mlp", MLP)
        second = await infer(session, gateway.url, "mlp", MLP)
    assert (first.status, first.backend, first.reason) == (200, "serverless", "below_break_even")
    assert (first.cold, second.cold) == ("true", "false")
    assert second.body == first.body
    metrics = await gateway.metrics()
    assert 'router_cold_starts_total{model="mlp"} 1.0' in metrics
    decision = 'router_decisions_total{backend="serverless",model="mlp",reason="below_break_even"}'
    assert f"{decision} 2.0" in metrics
    assert gateway.stop() == 0
    assert [line["reason"] for line in gateway.access_log()] == ["below_break_even"] * 2
    assert [line["cold_start"] for line in gateway.access_log()] == [True, False]


async def test_steady_traffic_moves_to_a_replica_and_silence_takes_it_down(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(settings(repository, model("mlp")))
    async with aiohttp.ClientSession() as session:
        outcomes = await steady(session, gateway.url, "mlp", MLP, rps=40, seconds=8)
        counted = count(outcomes)
        await until_ready(gateway, "mlp", 0)
    assert {found.status for found in outcomes} == {200}
    assert counted[200, "serverless", "below_break_even"] > 0
    assert counted[200, "pool", "warm_capacity"] > 40
    assert outcomes[-1].backend == "pool"
    assert not gateway.workers()


@pytest.mark.alone
async def test_a_burst_beyond_the_pool_spills_over(start_gateway: StartGateway, repository: Path):
    pool = {"min_replicas": 1, "concurrency": 1, "service_time_ms": 200}
    gateway = start_gateway(settings(repository, model("slow", slo={"latency_ms": 700}, pool=pool)))
    await until_ready(gateway, "slow", 1)
    async with aiohttp.ClientSession() as session:
        # Teaches the gateway how long such a request takes.
        for _ in range(8):
            await infer(session, gateway.url, "slow", slow(150))
        burst = [infer(session, gateway.url, "slow", slow(150)) for _ in range(10)]
        counted = count(await asyncio.gather(*burst))
    assert counted[200, "serverless", "spillover"] > 0
    assert counted[200, "pool", "warm_capacity"] > 0
    assert sum(counted.values()) == sum(n for (code, *_), n in counted.items() if code == 200)


async def test_a_payload_over_the_functions_limit_is_held_until_the_pool_has_started(
    start_gateway: StartGateway, repository: Path
):
    gateway = start_gateway(settings(repository, model("echo", slo={"latency_ms": 20_000})))
    values = np.arange(1_250_000, dtype=np.float32).reshape(1, -1)
    head = (
        b'{"inputs":[{"name":"x","shape":[1,1250000],"datatype":"FP32",'
        b'"parameters":{"binary_data_size":5000000}}],"outputs":[{"name":"x_out",'
        b'"parameters":{"binary_data":true}}]}'
    )
    body = head + values.tobytes()
    headers = {"inference-header-content-length": str(len(head))}
    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(
            *(infer(session, gateway.url, "echo", body, headers) for _ in range(3))
        )
        small = await infer(session, gateway.url, "echo", floats("x", values[:, :4]))
    for answer in answers:
        assert (answer.status, answer.backend, answer.reason) == (200, "pool", "limit_payload")
        assert answer.body.endswith(values.tobytes())
    assert small.status == 200
    assert gateway.stop() == 0
    held = [line for line in gateway.access_log() if line["reason"] == "limit_payload"]
    assert len(held) == 3
    assert held[0]["queue_ms"] > 100
    assert gateway.log.count("is ready") == 1, "one start for all that waited"


async def test_explain_says_what_a_request_then_gets(start_gateway: StartGateway, repository: Path):
    bulk = {"name": "bulk", "match": {"header": {"x-priority": "bulk"}}, "route": "serverless"}
    gateway = start_gateway(settings(repository, model("mlp"), rules=[bulk]))
    question = {"model": "mlp", "payload_bytes": 100, "headers": {"X-Priority": "bulk"}}
    async with aiohttp.ClientSession() as session:
        async with session.post(gateway.admin + "/v1/explain", json=question) as response:
            told = await response.json()
        got = await infer(session, gateway.url, "mlp", MLP, {"x-priority": "bulk"})
    assert (told["backend"], told["reason"], told["rule"]) == ("serverless", "rule", "bulk")
    assert (got.backend, got.reason) == (told["backend"], told["reason"])
    assert {step["stage"] for step in told["trace"]} >= {"rule", "feasible", "predict", "choice"}
