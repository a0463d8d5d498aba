"""After the same calls, the simulated gateway believes what the live backends believe."""

import asyncio
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.serverless.function import Function
from router.domain.decision import Verdict
from router.domain.ports import BackendResponse
from router.domain.snapshot import PoolSnapshot, ServerlessSnapshot
from router.replay.baselines import Fixed
from router.replay.beliefs import BUCKETS, bytes_of
from router.replay.machine import WAS_COLD
from router.replay.simulator import Simulation
from router.replay.sizers import BaselineSizer
from router.replay.workload import Block, ModelSetup
from router.upstream.address import parse_address
from tests.fakes.builders import FakeClock, make_request
from tests.fakes.callers import WholeCalls
from tests.fakes.replays import Ended, make_block, make_setup, run_all

SIZES = "payload_bytes: {empirical: [0, 1, 300, 4000, 70000]}"
SERVICE = "service_time_ms: {lognormal: {p50: 80, p99: 400}}"


def _block(setup: ModelSetup, per_s: float, seed: int) -> Block:
    gaps = np.random.default_rng(seed).exponential(1 / per_s, 150)
    return make_block(setup, 1.0 + np.cumsum(gaps), seed)


def _moments(block: Block, ended: Ended) -> list[tuple[float, int, int]]:
    """(time, 0 = ends / 1 = starts, row) of requests that start when they arrive, in order."""
    ends = block.at + ended.latency_s
    starts = [(float(at), 1, row) for row, at in enumerate(block.at)]
    return sorted([*starts, *((float(at), 0, row) for row, at in enumerate(ends))])


class _NeverCalled(WholeCalls):
    async def call(self, *_args: object) -> BackendResponse:
        raise AssertionError


class _Replica:
    """Answers at a stated time."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.ends_at = 0.0

    async def send(self, *_args: object) -> BackendResponse:
        self._clock.now = self.ends_at
        return BackendResponse(200, (), b"")


def _live_function(setup: ModelSetup, block: Block, ended: Ended) -> Function:
    """The live function after the calls that the simulation made."""
    assert setup.runtime.serverless is not None
    clock = FakeClock(0.0)
    function = Function(setup.runtime.serverless.params, _NeverCalled(), clock)
    leases = {}
    for clock.now, starts, row in _moments(block, ended):
        if starts:
            leases[row] = function.try_reserve(make_request(), clock.now)
            continue
        lease = leases.pop(row)
        assert lease is not None
        is_cold = bool(ended.bits[row] & WAS_COLD)
        init_s = float(block.cold_s[row]) if is_cold else None
        lease.payload_bytes = int(block.payload_bytes[row])
        lease.served_s = float(ended.latency_s[row])
        lease.response = BackendResponse(
            200, (), b"", cold_start=is_cold, init_s=init_s,
            billed_s=float(block.function_s[row]) + (init_s or 0.0),
        )  # fmt: skip
        lease.release(Verdict.OK, clock.now, lease.response)
    return function


def _close(
    first: ServerlessSnapshot | PoolSnapshot, second: ServerlessSnapshot | PoolSnapshot
) -> bool:
    return all(
        abs(a - b) <= 1e-9 * max(abs(a), 1.0)
        if isinstance(a, float) and isinstance(b, float)
        else a == b
        for a, b in zip(first, second, strict=True)
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), per_s=st.sampled_from([0.02, 0.5, 20.0]))
def test_the_function_is_believed_to_be_the_same(seed: int, per_s: float) -> None:
    function = "{kind: local, max_concurrency: 60, service_time_ms: 70, cold_start_ms: 500}"
    world = (
        f"{{{SERVICE}, {SIZES}, serverless:"
        " {overhead_ms: 5, reclaim_s: 30, cold_start_ms: {exponential: 300}}}"
    )
    setup = make_setup(world, serverless=function, pool=None)
    block = _block(setup, per_s, seed)
    simulation = Simulation(setup, None, seed)
    ended = run_all(simulation, block)
    live = _live_function(setup, block, ended)
    now = float((block.at + ended.latency_s).max())
    for bucket in range(BUCKETS):
        simulated = simulation.believed_function(bucket, now)
        assert simulated is not None
        assert _close(simulated, live.snapshot(bytes_of(bucket), now))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), replicas=st.integers(1, 12))
def test_the_pool_is_believed_to_be_the_same(seed: int, replicas: int) -> None:
    pool = (
        f"{{kind: process, max_replicas: {replicas}, concurrency: 40, startup: 0s,"
        " service_time_ms: 70}"
    )
    setup = make_setup(f"{{{SERVICE}, {SIZES}, startup_s: 0}}", serverless=None, pool=pool)
    block = _block(setup, 20.0, seed)
    sizer = BaselineSizer(Fixed("fixed", replicas, overflow=False), 40)
    simulation = Simulation(setup, sizer, seed)
    ended = run_all(simulation, block)
    live = _live_pool(setup, block, ended, replicas)
    now = float((block.at + ended.latency_s).max())
    for bucket in range(BUCKETS):
        simulated = simulation.believed_pool(bucket, now)
        assert simulated is not None
        assert _close(simulated, live.snapshot(bytes_of(bucket), now))


def _live_pool(setup: ModelSetup, block: Block, ended: Ended, replicas: int) -> Pool:
    assert setup.runtime.pool is not None
    clock = FakeClock(0.0)
    replica = _Replica(clock)
    pool = Pool("m", setup.runtime.pool.params, replica, clock, Random(1))  # type: ignore[arg-type]
    pool.wanted = replicas
    for number in range(replicas):
        pool.add(Endpoint(f"m-{number}", parse_address("http://127.0.0.1:1"), 40))
        pool.mark_ready(f"m-{number}", is_ready=True)
    leases = {}
    for now, starts, row in _moments(block, ended):
        clock.now = now
        if starts:
            leases[row] = pool.try_reserve(make_request(), now)
            continue
        lease = leases.pop(row)
        assert lease is not None
        # The attempt as a whole belongs to the moment at which it ends.
        clock.now, replica.ends_at = float(block.at[row]), now
        request = make_request(payload_bytes=int(block.payload_bytes[row]))
        response = asyncio.run(lease.send(request, b"", 60.0))
        lease.release(Verdict.OK, now, response)
    return pool
