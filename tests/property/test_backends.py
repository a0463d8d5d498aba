"""Whatever the order of reserving, releasing, cancelling and failing, every slot is accounted."""

import asyncio
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from router.backends.pool.endpoints import Endpoint, Pool, PoolParams
from router.backends.serverless.function import Function, FunctionParams
from router.domain.decision import Verdict
from router.domain.errors import QueueFullError, QueueTimeoutError
from router.upstream.address import parse_address
from tests.fakes.builders import LIMITS, FakeClock, make_request

ACTIONS = ("reserve", "queue", "release", "cancel", "tick", "advance", "toggle")
steps = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 7), st.sampled_from(list(Verdict))),
    max_size=60,
)


def make_pool(clock, capacities) -> Any:
    pool = Pool("m", PoolParams(True, True, 3, 900, 0.1, 5.0), None, clock, Random(1))  # type: ignore[arg-type]
    for number, capacity in enumerate(capacities):
        pool.add(Endpoint(f"e{number}", parse_address("http://127.0.0.1:1"), capacity))
        pool.mark_ready(f"e{number}", is_ready=True)
    return pool


def make_function(clock, concurrency) -> Any:
    params = FunctionParams(
        endpoint_id="fn", enabled=True, limits=LIMITS, max_concurrency=concurrency, max_queued=3,
        max_queued_bytes=900, max_wait_s=30.0, reclaim_s=300.0, usd_per_request=1.0,
        usd_per_billed_s=1.0, service_time_s=0.1, cold_start_s=1.0,
    )  # fmt: skip
    return Function(params, None, clock)  # type: ignore[arg-type]


class Play:
    """Plays actions on a backend and keeps what the callers hold."""

    def __init__(self, backend, clock) -> None:
        self.backend = backend
        self.clock = clock
        self.leases: list[Any] = []
        self.waiting: list[asyncio.Task[Any]] = []

    async def act(self, action, pick, verdict) -> None:
        request = make_request()
        if action == "reserve":
            lease = self.backend.try_reserve(request, self.clock())
            if lease is not None:
                self.leases.append(lease)
        elif action == "queue":
            self.waiting.append(asyncio.create_task(self.backend.reserve(request, 30.0)))
        elif action == "release" and self.leases:
            lease = self.leases.pop(pick % len(self.leases))
            lease.release(verdict, self.clock(), None)
        elif action == "cancel" and self.waiting:
            self.waiting[pick % len(self.waiting)].cancel()
        elif action == "advance":
            self.clock.advance(pick / 2)
        elif action == "toggle" and isinstance(self.backend, Pool):
            names = list(self.backend.endpoints)
            endpoint = self.backend.endpoints[names[pick % len(names)]]
            self.backend.mark_ready(endpoint.id, is_ready=not endpoint.is_ready)
        elif action == "tick":
            await asyncio.sleep(0)
        self.collect()

    def collect(self) -> None:
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                self.leases.append(task.result())
            else:
                assert isinstance(error, QueueFullError | QueueTimeoutError)

    async def finish(self) -> None:
        """Cancel who waits and release what is held: nothing must remain."""
        for task in self.waiting:
            task.cancel()
        if self.waiting:
            await asyncio.wait(self.waiting)
        self.collect()
        for lease in self.leases:
            lease.release(Verdict.OK, self.clock(), None)
        assert self.backend.in_flight == 0
        assert len(self.backend.queue) == 0
        assert self.backend.queue.queued_bytes == 0


@settings(max_examples=300, deadline=None)
@given(steps, st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_no_endpoint_ever_holds_more_than_its_capacity_or_less_than_nothing(actions, capacities):
    async def run() -> None:
        clock = FakeClock()
        pool = make_pool(clock, capacities)
        play = Play(pool, clock)
        for action in actions:
            await play.act(*action)
            for endpoint in pool.endpoints.values():
                assert 0 <= endpoint.in_flight <= endpoint.capacity
            assert len(pool.queue) <= pool.queue.max_requests
        await play.finish()

    asyncio.run(run())


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(1, 5))
def test_a_function_never_has_more_calls_in_flight_than_allowed(actions, concurrency):
    async def run() -> None:
        clock = FakeClock()
        function = make_function(clock, concurrency)
        play = Play(function, clock)
        for action in actions:
            await play.act(*action)
            assert 0 <= function.in_flight <= concurrency
            assert 1 <= function.limit.current <= concurrency
            assert len(function.queue) <= function.queue.max_requests
        await play.finish()

    asyncio.run(run())
