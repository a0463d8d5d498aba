"""What a request brings upon itself: its client is told, and no place suffers for it."""

from typing import Any

import pytest

from tests.fakes.models import write_mlp
from tests.fakes.upstreams import Answer, Behaviour, Received, ok
from tests.integration.harness import Harness

TOO_LATE = b'{"error":"no answer within the timeout of 1e-06 s"}'
HASTY = b'{"parameters":{"timeout":1}}'


def worker() -> Behaviour:
    """Answers as ours does: honestly, that the request's own time is over."""

    async def behave(received: Received) -> Answer:
        return Answer(504, TOO_LATE) if received.body == HASTY else Answer()

    return behave


async def counters(gateway: Harness) -> dict[str, float]:
    text = (await gateway.ask("GET", "/metrics")).body.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
@pytest.mark.parametrize("function", [None, ok()], ids=["alone", "beside a function"])
async def test_a_client_that_is_too_hasty_harms_nobody(tmp_path, fast_path, function):
    server: Any = {"fast_path": fast_path}
    warm = [worker(), worker()]
    async with Harness(tmp_path, warm=warm, function=function, server=server) as gateway:
        replies = [await gateway.infer(HASTY) for _ in range(15)]
        innocent = [await gateway.infer() for _ in range(5)]
        told = await counters(gateway)
        ejections = gateway.pool.ejections
        states = {endpoint["state"] for endpoint in (await gateway.status())["endpoints"]}
        received = sum(len(upstream.received) for upstream in gateway.warm)
    assert {(reply.status, reply.body) for reply in replies} == {(504, TOO_LATE)}
    assert {reply.headers["x-router-attempts"] for reply in replies} == {"1"}
    assert {(reply.status, reply.headers["x-router-backend"]) for reply in innocent} == {
        (200, "pool")
    }
    assert (received, ejections, states) == (20, 0, {"ready"})
    assert not [name for name, value in told.items() if "retries_total" in name and value]


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
@pytest.mark.parametrize("status", [500, 503, 504])
async def test_a_replica_that_fails_everybody_is_set_aside(tmp_path, fast_path, status):
    server: Any = {"fast_path": fast_path}
    broken = ok(b'{"error":"CUDA error: device-side assert triggered"}', status=status)
    async with Harness(tmp_path, warm=[broken, ok()], server=server) as gateway:
        for _ in range(200):
            await gateway.infer()
            if gateway.pool.ejections:
                break
        await gateway.until(lambda: gateway.pool.ejections > 0)
        states = [endpoint["state"] for endpoint in (await gateway.status())["endpoints"]]
        replies = {(await gateway.infer()).status for _ in range(10)}
    assert sorted(states) == ["ejected", "ready"]
    assert replies == {200}


async def test_a_model_that_is_not_in_the_repository_is_named_but_no_other_is(tmp_path):
    """The names of other models may not be this client's to see."""
    repository = tmp_path / "models"
    write_mlp(repository, "mymodel")
    pool = {"kind": "process", "queue": {"max_wait": "500ms"}}
    config = {
        "models": [{"name": "mymodle", "slo": {"latency_ms": 5000}, "pool": pool}],
        "workers": {"repository": str(repository)},
        "controller": {"interval": "100ms"},
    }
    async with Harness(tmp_path, config=config) as gateway:
        reply = await gateway.infer(path="/v2/models/mymodle/infer")
    assert reply.status == 503
    assert reply.json()["error"].endswith(": model mymodle is not in the repository")
