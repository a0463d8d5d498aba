"""Whatever the order of reserving, releasing, cancelling and failing, every slot is accounted."""

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from router.admission.outliers import in_rotation, may_set_aside
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.serverless.function import Function, FunctionParams, KeptWarm
from router.domain.decision import Verdict
from router.domain.errors import QueueFullError, QueueTimeoutError
from router.upstream.address import parse_address
from tests.fakes.builders import LIMITS, FakeClock, make_request

ACTIONS = ("reserve", "queue", "release", "cancel", "tick", "advance", "toggle", "pause")
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


def make_function(clock, concurrency, kept=0) -> Any:
    params = FunctionParams(
        endpoint_id="fn", enabled=True, limits=LIMITS, max_concurrency=concurrency, max_queued=3,
        max_queued_bytes=900, max_wait_s=30.0, reclaim_s=300.0, usd_per_request=1.0,
        usd_per_billed_s=1.0, service_time_s=0.1, cold_start_s=1.0, kept_warm=KeptWarm(kept),
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
        elif action == "pause" and isinstance(self.backend, Function):
            self.backend.circuit.pause(self.clock(), pick / 2)
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
@given(steps, st.integers(1, 5), st.integers(0, 3))
def test_a_function_never_has_more_calls_in_flight_than_allowed(actions, concurrency, kept):
    async def run() -> None:
        clock = FakeClock()
        function = make_function(clock, concurrency, kept)
        play = Play(function, clock)
        for action in actions:
            was_open, before = function.circuit.is_open(clock()), function.in_flight
            await play.act(*action)
            if was_open and function.circuit.is_open(clock()):
                assert function.in_flight <= before, "a call was made while none may be"
            assert 0 <= function.in_flight <= concurrency
            assert 0 <= function.kept_in_flight <= min(kept, function.in_flight)
            assert 1 <= function.limit.current <= concurrency
            assert len(function.queue) <= function.queue.max_requests
        await play.finish()

    asyncio.run(run())


events = st.lists(
    st.tuples(
        st.sampled_from(("fail", "answer", "judge", "advance", "toggle", "drain")),
        st.integers(0, 5),
        st.floats(0.001, 5.0),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(events, st.integers(1, 6), st.booleans(), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_whatever_happens_endpoints_are_set_aside_by_the_rules(
    happens, count, is_last_resort, max_share
):
    clock = FakeClock()
    pool = make_pool(clock, [4] * count)
    outliers = replace(pool.params.outliers, max_share=max_share)
    params = replace(
        pool.params, is_last_resort=is_last_resort, outliers=outliers, slow_start_s=3.0
    )
    pool.reconfigure(params)
    for event, pick, amount in happens:
        befall(pool, clock, event, pick % count, amount)
        now = clock()
        members = pool.rotation.members()
        used = in_rotation(members, outliers, now, is_last_resort=is_last_resort)
        failing = [member for member in members if member.is_failing(now)]
        slow = [member for member in members if member.is_slow(now) and member not in failing]
        assert pool.rotation.available(now) == used, "what is remembered is what is the case"
        few = len(failing) + len(slow) <= max_share * len(members)
        if len(failing) < len(members) or not is_last_resort or few:
            assert not {*failing} & {*used}
        else:
            assert used == members
        if few:
            assert not {*slow} & {*used}
        elif len(failing) < len(members):
            assert used
        assert all(1 <= endpoint.slots <= endpoint.capacity for endpoint in members)


def befall(pool, clock, event, pick, amount) -> None:
    endpoint = pool.endpoints[f"e{pick}"]
    if event == "fail":
        for _ in range(3):
            endpoint.in_flight += 1
            pool.release(endpoint, Verdict.FAILED, clock(), clock())
    elif event == "answer":
        for _ in range(20):
            pool.learn(endpoint, 300, amount)
        endpoint.in_flight += 1
        pool.release(endpoint, Verdict.OK, clock(), clock())
    elif event == "judge":
        members = pool.rotation.members()
        bad = sum(member.is_failing(clock()) or member.is_slow(clock()) for member in members)
        room = may_set_aside(len(members), bad, pool.params.outliers)
        assert pool.judge(clock()) <= room
    elif event == "advance":
        clock.advance(amount)
    elif event == "toggle":
        pool.mark_ready(endpoint.id, is_ready=not endpoint.is_ready)
    elif event == "drain":
        pool.drain(endpoint.id)
