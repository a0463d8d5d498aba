"""The simulation against results that are known exactly: M/M/c and M/D/1."""

from math import factorial

import numpy as np
import pytest

from router.replay.baselines import Fixed
from router.replay.simulator import Simulation
from router.replay.sizers import BaselineSizer
from tests.fakes.replays import make_block, make_setup, run_all

SERVICE_S = 0.1
_QUEUE = "queue: {max_requests: 100000, max_wait: 1h}"


def _mean_wait_s(world: str, servers: int, load: float, requests: int, seed: int) -> float:
    """Mean wait of Poisson arrivals for replicas that serve one request each."""
    pool = (
        f"{{kind: process, max_replicas: {servers}, concurrency: 1, startup: 0s, {_QUEUE},"
        " service_time_ms: 100}"
    )
    setup = make_setup(world, serverless=None, pool=pool, slo="{latency_ms: 3600000}")
    gaps = np.random.default_rng(seed).exponential(SERVICE_S / (servers * load), requests)
    block = make_block(setup, 1.0 + np.cumsum(gaps), seed)
    sizer = BaselineSizer(Fixed("fixed", servers, overflow=False), 1)
    ended = run_all(Simulation(setup, sizer, seed), block)
    return float((ended.latency_s - block.service_s).mean())


def _erlang_c_wait_s(servers: int, load: float) -> float:
    offered = servers * load
    last = offered**servers / factorial(servers) / (1 - load)
    waits = last / (sum(offered**k / factorial(k) for k in range(servers)) + last)
    return waits * SERVICE_S / (servers * (1 - load))


@pytest.mark.parametrize(
    ("servers", "load"), [(1, 0.5), (4, 0.8), (12, 0.9)], ids=["one", "four", "twelve, sampled"]
)
def test_exponential_service_waits_as_erlang_says(servers: int, load: float) -> None:
    measured = [
        _mean_wait_s("{service_time_ms: {exponential: 100}}", servers, load, 60_000, seed)
        for seed in (1, 2, 3)
    ]
    error = np.std(measured, ddof=1) / np.sqrt(len(measured))
    assert np.mean(measured) == pytest.approx(
        _erlang_c_wait_s(servers, load), rel=0.05, abs=3 * error
    )


def test_constant_service_waits_half_as_long_as_exponential() -> None:
    load = 0.7
    measured = _mean_wait_s("{service_time_ms: 100}", 1, load, 150_000, 1)
    assert measured == pytest.approx(load * SERVICE_S / (2 * (1 - load)), rel=0.03)


def test_requests_inside_an_overfilled_replica_wait_as_in_a_queue() -> None:
    """A replica that works on one but is sent many is itself a queue: M/D/1 again."""
    load = 0.7
    pool = "{kind: process, max_replicas: 1, concurrency: 1000, startup: 0s, service_time_ms: 100}"
    setup = make_setup(
        "{service_time_ms: 100, concurrency: 1}",
        serverless=None,
        pool=pool,
        slo="{latency_ms: 3600000}",
    )
    gaps = np.random.default_rng(4).exponential(SERVICE_S / load, 100_000)
    block = make_block(setup, 1.0 + np.cumsum(gaps))
    sizer = BaselineSizer(Fixed("fixed", 1, overflow=False), 1)
    ended = run_all(Simulation(setup, sizer, 1), block)
    waited_s = float((ended.latency_s - block.service_s).mean())
    assert waited_s == pytest.approx(load * SERVICE_S / (2 * (1 - load)), rel=0.05)
