"""The director with real pools, functions and policy; only what carries bytes is scripted.

Callers answer from a list, one entry per attempt: a status, an error, or a coroutine function.
"""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from router.admission.retries import RetryBudget
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.serverless.function import Function, FunctionParams
from router.dispatch.attempts import Record
from router.dispatch.chain import Link, explain_chain
from router.dispatch.director import Director
from router.dispatch.outcomes import outcome_of
from router.domain.decision import Backend, Outcome, Reason, Verdict
from router.domain.errors import (
    ClientClosedError,
    ConnectFailedError,
    DeadlineExceededError,
    EncodedTooLargeError,
    InvalidRequestError,
    NoEndpointError,
    PayloadTooLargeError,
    QueueTimeoutError,
    RateLimitedError,
    ResponseLostError,
    UpstreamBrokenError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)
from router.domain.ports import BackendResponse
from router.policy.decide import ModelPolicy
from router.policy.steering import Slo
from router.runtime import ModelRuntime, SizingState
from router.signals.memory import ModelSignals
from router.telemetry.metrics import Metrics
from router.upstream.address import parse_address
from tests.fakes.builders import LIMITS, NOW, FakeClock, make_request
from tests.unit.settings.loading import load_config

SETTINGS = """
models:
  - name: m
    slo: {latency_ms: 250}
    attempts: 3
    serverless: {kind: local, queue: {max_wait: 50ms}}
    pool: {kind: static, urls: ["http://127.0.0.1:1"], queue: {max_wait: 50ms}}
"""
PATIENT = Slo(60.0, 99, cold_allowed=True)
BRIEF = Slo(0.03, 99, cold_allowed=True)


class Script:
    """Both kinds of caller: plays its answers, one per attempt, the last one again and again."""

    def __init__(self, clock, *answers, takes_s=0.01) -> None:
        self.clock = clock
        self.answers = list(answers)
        self.takes_s = takes_s
        self.seen: list[Any] = []
        self.timeouts: list[float] = []

    async def play(self, where, timeout_s) -> Any:
        self.seen.append(where)
        self.timeouts.append(timeout_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.clock.advance(self.takes_s)
        if isinstance(answer, int):
            return BackendResponse(answer, [], b"{}")
        if isinstance(answer, BackendResponse):
            return answer
        if isinstance(answer, Exception):
            raise answer
        return await answer()

    async def send(self, address, request, body, timeout_s) -> Any:
        return await self.play(address.port, timeout_s)

    async def call(self, request, body, timeout_s) -> Any:
        return await self.play("function", timeout_s)


class Counted:
    """A runtime of model `m` whose backends count their releases."""

    def __init__(self, clock, pool=None, function=None, endpoints=1, capacity=4) -> None:
        self.clock = clock
        self.releases = 0
        self.metrics = Metrics(CollectorRegistry(), "0")
        self.metrics.configure(["m"])
        self.director = Director(self.metrics, clock, Random(1), clock.sleep)
        self.pool = self._pool(pool, endpoints, capacity) if pool is not None else None
        self.function = self._function(function) if function is not None else None
        self.model = ModelRuntime(
            settings=load_config(SETTINGS).settings.models[0],
            policy=ModelPolicy((), PATIENT),
            signals=ModelSignals(),
            budget=RetryBudget(),
            sizing=SizingState(),
            serverless=self.function,
            pool=self.pool,
        )

    def _pool(self, script, endpoints, capacity) -> Any:
        params = PoolParams(True, False, 10, 1 << 20, 0.01, 5.0)
        pool = Pool("m", params, script, self.clock, Random(1))
        for number in range(1, endpoints + 1):
            address = parse_address(f"http://127.0.0.1:{number}")
            pool.add(Endpoint(f"e{number}", address, capacity))
            pool.mark_ready(f"e{number}", is_ready=True)
        release = pool.release

        def counted(*args) -> float:
            self.releases += 1
            return release(*args)

        pool.release = counted  # type: ignore[method-assign, assignment]
        return pool

    def _function(self, script) -> Any:
        params = FunctionParams(
            endpoint_id="m-fn", enabled=True, limits=LIMITS, max_concurrency=2, max_queued=10,
            max_queued_bytes=1 << 20, max_wait_s=30.0, reclaim_s=300.0, usd_per_request=0.5,
            usd_per_billed_s=0.0, service_time_s=0.01, cold_start_s=0.5,
        )  # fmt: skip
        function = Function(params, script, self.clock)
        finish = function.finish

        def counted(*args) -> None:
            self.releases += 1
            finish(*args)

        function.finish = counted  # type: ignore[method-assign, assignment]
        return function

    def waits_for(self, longest: str) -> None:
        """Let requests wait for so long."""
        loaded = load_config(SETTINGS.replace("50ms", longest))
        self.model = replace(self.model, settings=loaded.settings.models[0])

    def chain(self, request) -> list[Link]:
        return [Link(self.model, request)]

    async def serve(self, request=None, body=b"{}") -> Any:
        """Serve one request to its end: its record, and the answer or the error."""
        record = Record()
        self.releases = 0
        try:
            async with self.director.serve(
                self.chain(request or make_request()), body, record
            ) as response:
                return record, response
        except Exception as error:  # noqa: BLE001  handed to the test
            return record, error
        finally:
            self.assert_nothing_is_held(record)

    def assert_nothing_is_held(self, record) -> None:
        assert self.releases == record.attempts, "every attempt is released exactly once"
        for backend in (self.pool, self.function):
            if backend is not None:
                assert (backend.in_flight, len(backend.queue)) == (0, 0)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def setup(clock):
    """Make a runtime from the answers of its pool and of its function."""

    def make(pool=None, function=None, **facts) -> Any:
        scripts = [
            Script(clock, *answers) if answers is not None else None for answers in (pool, function)
        ]
        return Counted(clock, *scripts, **facts), *scripts

    return make


def told(record) -> Any:
    assert record.decision is not None
    return record.decision.backend, record.decision.reason, record.attempts


class TestOneAttempt:
    async def test_the_record_tells_what_happened(self, setup):
        counted, pool, _ = setup(pool=[200])
        record, response = await counted.serve()
        assert response.status == 200
        assert told(record) == (Backend.POOL, Reason.ONLY_BACKEND, 1)
        assert (record.endpoint_id, pool.seen) == ("e1", [1])
        assert record.upstream_s == pytest.approx(0.01)

    @pytest.mark.parametrize("status", [200, 400, 404, 500])
    async def test_the_models_own_answer_is_final(self, setup, status):
        counted, _, function = setup(pool=[status], function=[200])
        record, response = await counted.serve()
        assert (response.status, record.attempts, function.seen) == (status, 1, [])

    async def test_arrivals_are_counted_with_their_work_and_price(self, setup):
        counted, *_ = setup(pool=[200], function=[200])
        await counted.serve()
        await counted.serve(make_request(payload_bytes=LIMITS.max_payload_bytes + 1))
        await counted.serve(make_request(is_inference=False, method="GET"))
        totals = counted.model.signals.totals()
        assert (totals.arrivals, totals.captive) == (2, 1)
        assert totals.work_s == pytest.approx(0.02)
        assert totals.serverless_usd == pytest.approx(0.5)

    async def test_what_a_call_cost_is_recorded(self, setup):
        counted, *_ = setup(function=[200])
        record, _ = await counted.serve()
        assert record.cost_usd == pytest.approx(0.5)

    async def test_a_cold_start_is_told(self, setup):
        cold = BackendResponse(200, [], b"", cold_start=True, billed_s=0.6, init_s=0.5)
        counted, *_ = setup(function=[cold])
        record, _ = await counted.serve()
        assert record.cold_start is True


RETRIED = {
    "connection refused": ConnectFailedError("x"),
    "connection lost": ResponseLostError("x"),
    "broken": UpstreamBrokenError("x"),
    "timed out": UpstreamTimeoutError("x"),
    "busy": UpstreamRejectedError("x"),
}


class TestRetries:
    @pytest.mark.parametrize("error", RETRIED.values(), ids=RETRIED)
    async def test_another_endpoint_is_tried_first(self, setup, error):
        counted, pool, function = setup(pool=[error, 200], function=[200], endpoints=2)
        record, response = await counted.serve()
        assert response.status == 200
        assert sorted(pool.seen) == [1, 2]
        assert (record.attempts, function.seen, counted.clock.slept) == (2, [], [])

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ResponseLostError("x"), Reason.FALLBACK),
            (ConnectFailedError("x"), Reason.FALLBACK),
            (UpstreamRejectedError("x"), Reason.SPILLOVER),
        ],
        ids=["errors fall back", "dead endpoints fall back", "capacity trouble spills over"],
    )
    async def test_then_the_function_is_tried(self, setup, error, reason):
        counted, pool, function = setup(pool=[error], function=[200])
        record, response = await counted.serve()
        assert response.status == 200
        assert told(record) == (Backend.SERVERLESS, reason, 2)
        assert (pool.seen, function.seen) == ([1], ["function"])

    async def test_a_function_that_throttles_spills_over_to_the_pool(self, setup):
        counted, *_ = setup(pool=[200], function=[UpstreamRejectedError("x")])
        record, response = await counted.serve(make_request(hint=Backend.SERVERLESS))
        assert response.status == 200
        assert told(record) == (Backend.POOL, Reason.SPILLOVER, 2)

    async def test_an_event_that_is_too_large_goes_to_the_pool_without_cost(self, setup):
        counted, *_ = setup(pool=[200], function=[EncodedTooLargeError("x")])
        counted.model.budget.__init__(share=0.0, floor_per_s=0.0, burst=0.0)
        record, response = await counted.serve(make_request(hint=Backend.SERVERLESS))
        assert response.status == 200
        assert told(record) == (Backend.POOL, Reason.LIMIT_PAYLOAD, 2)

    async def test_events_that_are_too_large_say_nothing_about_the_functions_health(self, setup):
        counted, *_ = setup(pool=[200], function=[EncodedTooLargeError("x")])
        for _ in range(10):
            record, _ = await counted.serve(make_request(hint=Backend.SERVERLESS))
            assert told(record) == (Backend.POOL, Reason.LIMIT_PAYLOAD, 2)
        assert counted.function.circuit.is_closed

    async def test_an_event_that_is_too_large_is_refused_where_no_pool_is(self, setup):
        counted, _, function = setup(function=[EncodedTooLargeError("x")])
        _, error = await counted.serve()
        assert isinstance(error, PayloadTooLargeError)
        assert function.seen == ["function"]

    async def test_the_only_backend_is_tried_again_after_a_pause(self, setup, clock):
        counted, pool, _ = setup(pool=[ResponseLostError("x"), ResponseLostError("x"), 200])
        _, response = await counted.serve()
        assert response.status == 200
        assert pool.seen == [1, 1, 1]
        assert len(clock.slept) == 2
        assert all(0 <= pause <= 0.2 for pause in clock.slept)

    async def test_both_failed_so_the_first_is_tried_again(self, setup):
        counted, pool, function = setup(
            pool=[ResponseLostError("x"), 200], function=[ResponseLostError("x")]
        )
        _, response = await counted.serve()
        assert response.status == 200
        assert (pool.seen, function.seen) == ([1, 1], ["function"])

    async def test_attempts_are_bounded_and_the_last_error_is_told(self, setup):
        counted, pool, _ = setup(pool=[UpstreamBrokenError("x"), UpstreamTimeoutError("last")])
        record, error = await counted.serve()
        assert (str(error), record.attempts, len(pool.seen)) == ("last", 3, 3)

    async def test_requests_that_must_not_run_twice_are_not_sent_again(self, setup):
        counted, _, function = setup(pool=[ResponseLostError("x")], function=[200])
        record, error = await counted.serve(make_request(is_idempotent=False))
        assert isinstance(error, ResponseLostError)
        assert (record.attempts, function.seen) == (1, [])

    async def test_but_they_are_if_nothing_was_sent(self, setup):
        counted, *_ = setup(pool=[ConnectFailedError("x")], function=[200])
        _, response = await counted.serve(make_request(is_idempotent=False))
        assert response.status == 200

    async def test_retries_end_with_their_budget(self, setup):
        counted, *_ = setup(pool=[ResponseLostError("x")], function=[200])
        counted.model.budget.__init__(share=0.0, floor_per_s=0.0, burst=0.0)
        record, error = await counted.serve()
        assert isinstance(error, ResponseLostError)
        assert record.attempts == 1
        exposed, _ = counted.metrics.expose("")
        assert b"router_retry_budget_exhausted_total 1.0" in exposed

    async def test_what_fails_too_often_is_ejected(self, setup):
        counted, *_ = setup(pool=[ConnectFailedError("x")], function=[200])
        for _ in range(3):
            await counted.serve()
        assert counted.pool.ejections == 1
        record, _ = await counted.serve()
        assert told(record) == (Backend.SERVERLESS, Reason.NO_ENDPOINT, 1)

    async def test_each_attempts_duration_is_its_own(self, setup):
        counted, *_ = setup(pool=[ResponseLostError("x")], function=[200])
        await counted.serve()
        exposed = counted.metrics.expose("")[0].decode()
        for backend in ("pool", "serverless"):
            labels = f'{{backend="{backend}",model="m"}}'
            line = f"router_attempt_duration_seconds_sum{labels} "
            (value,) = [text for text in exposed.splitlines() if text.startswith(line)]
            assert float(value.removeprefix(line)) == pytest.approx(0.01)


class TestDeadlines:
    async def test_nothing_is_sent_after_the_deadline(self, setup):
        counted, pool, _ = setup(pool=[200])
        _, error = await counted.serve(make_request(deadline=NOW))
        assert isinstance(error, DeadlineExceededError)
        assert pool.seen == []

    async def test_an_attempt_gets_the_time_that_is_left(self, setup):
        counted, pool, _ = setup(pool=[200])
        await counted.serve(make_request(deadline=NOW + 0.5))
        assert pool.timeouts == [pytest.approx(0.5)]

    async def test_without_a_deadline_it_gets_the_backends_own_time(self, setup):
        counted, pool, _ = setup(pool=[200])
        await counted.serve()
        assert pool.timeouts == [60.0]
        counted, _, function = setup(function=[200])
        await counted.serve()
        cold_upper_s = counted.function.init.upper_s
        assert function.timeouts == [pytest.approx(30.0 + 3 * cold_upper_s + 1.0)]

    async def test_the_deadline_ends_retries_and_blames_no_endpoint(self, setup, clock):
        counted, pool, function = setup(pool=[UpstreamTimeoutError("x")], function=[200])
        pool.takes_s = 0.5
        for _ in range(5):
            _, error = await counted.serve(make_request(deadline=clock() + 0.5))
            assert isinstance(error, DeadlineExceededError)
        assert function.seen == []
        assert counted.pool.ejections == 0

    async def test_the_deadline_ends_the_wait_for_a_slot(self, setup, clock):
        counted, *_ = setup(pool=[200], capacity=1)
        lease = counted.pool.try_reserve(make_request(), clock())
        record = Record()

        async def passed(request, timeout_s, _avoid=()) -> None:
            assert timeout_s == pytest.approx(0.03)
            clock.advance(timeout_s)
            raise QueueTimeoutError("x")

        counted.pool.reserve = passed
        with pytest.raises(DeadlineExceededError):
            async with counted.director.serve(
                counted.chain(make_request(deadline=NOW + 0.03)), b"", record
            ):
                pass
        assert record.queue_s == pytest.approx(0.03)
        assert lease is not None

    async def test_check_says_so_before_the_body_is_read(self, setup):
        counted, *_ = setup(function=[200])
        with pytest.raises(DeadlineExceededError):
            counted.director.check(counted.chain(make_request(deadline=NOW - 1)))
        with pytest.raises(PayloadTooLargeError):
            counted.director.check(counted.chain(make_request(payload_bytes=10**9)))
        counted.director.check(counted.chain(make_request()))


class TestWaiting:
    async def test_a_full_pool_is_waited_for_no_longer_than_configured(self, setup, clock):
        counted, *_ = setup(pool=[200], capacity=1)
        counted.pool.try_reserve(make_request(), clock())
        with pytest.raises(QueueTimeoutError, match="is busy: no slot came free"):
            async with counted.director.serve(counted.chain(make_request()), b"", Record()):
                pass
        assert len(counted.pool.queue) == 0

    async def test_a_request_that_waits_again_has_only_what_is_left(self, setup, clock):
        counted, *_ = setup(function=[ConnectFailedError("x")])
        reserve_now, waits = counted.function.try_reserve, []

        async def turn_came(request, timeout_s, _avoid=()) -> Any:
            waits.append(timeout_s)
            clock.advance(0.02)
            return reserve_now(request, clock())

        counted.function.try_reserve = lambda *_: None
        counted.function.reserve = turn_came
        record, error = await counted.serve()
        assert isinstance(error, ConnectFailedError)
        assert waits == pytest.approx([0.05, 0.03, 0.01])
        assert record.queue_s == pytest.approx(0.06)

    @pytest.mark.parametrize("first", [Backend.POOL, Backend.SERVERLESS])
    async def test_the_first_slot_is_taken_wherever_it_comes_free(self, setup, clock, first):
        counted, *_ = setup(pool=[200], function=[200], capacity=1)
        counted.waits_for("10s")
        leases = {Backend.POOL: [counted.pool.try_reserve(make_request(), clock())]}
        leases[Backend.SERVERLESS] = [
            counted.function.try_reserve(make_request(), clock()) for _ in range(2)
        ]
        record = Record()

        async def served() -> Any:
            async with counted.director.serve(
                counted.chain(make_request()), b"{}", record
            ) as response:
                return response.status

        task = asyncio.create_task(served())
        async with asyncio.timeout(5):
            while not (len(counted.pool.queue) and len(counted.function.queue)):
                await asyncio.sleep(0)
            leases[first].pop().release(Verdict.OK, clock(), None)
            assert await task == 200
        assert told(record)[::2] == (first, 1)
        assert (len(counted.pool.queue), len(counted.function.queue)) == (0, 0)

    async def test_a_pool_that_works_again_has_what_waits_for_the_function(self, setup, clock):
        """The replica failed it once, and the function has asked for a pause."""
        counted, _, function = setup(pool=[ResponseLostError("x"), 200], function=[200])
        counted.waits_for("10s")
        counted.function.circuit.pause(clock(), 20.0)
        async with asyncio.timeout(5):
            record, response = await counted.serve()
        assert response.status == 200
        assert told(record) == (Backend.POOL, Reason.WARM_CAPACITY, 2)
        assert function.seen == []

    async def test_who_asked_for_a_backend_waits_for_that_one(self, setup, clock):
        counted, pool, _ = setup(pool=[200], function=[200])
        held = [counted.function.try_reserve(make_request(), clock()) for _ in range(2)]
        with pytest.raises(QueueTimeoutError):
            async with counted.director.serve(
                counted.chain(make_request(hint=Backend.SERVERLESS)), b"", Record()
            ):
                pass
        assert (pool.seen, None in held) == ([], False)

    async def test_a_model_that_stands_in_has_a_wait_of_its_own(self):
        record = Record(queue_s=3.0)
        record.pass_to("other")
        record.queue_s += 0.5
        assert (record.queue_s, record.waited_s) == (3.5, 0.5)

    async def test_a_dead_function_is_not_waited_for_beyond_the_longest_wait(self, setup, clock):
        """Each trial that fails closes the door for longer than what is left."""
        counted, _, function = setup(function=[ConnectFailedError("x")])
        counted.function.reconfigure(replace(counted.function.params, max_wait_s=2.5), function)
        for _ in range(2):
            await counted.serve()  # the circuit opens, for a second
        waited = []

        async def reopened(request, timeout_s, _avoid=()) -> Any:
            waited.append(counted.function.circuit.open_for_s(clock()))
            clock.advance(waited[-1])
            return counted.function.try_reserve(request, clock())

        counted.function.reserve = reopened
        clock.advance(30.0)
        record, error = await counted.serve()
        assert isinstance(error, NoEndpointError)
        assert "breaker_open" in str(error)
        assert error.retry_after_s >= 2.0
        assert record.attempts == len(waited) + 1
        assert record.queue_s <= 2.5

    async def test_a_function_that_stays_closed_is_not_called_busy(self, setup, clock):
        counted, *_ = setup(function=[200])
        counted.function.circuit.pause(clock(), 1.0)
        _, error = await counted.serve()
        assert isinstance(error, NoEndpointError)
        assert "asked for a pause" in str(error)
        assert error.retry_after_s == pytest.approx(1.0, abs=0.1)

    async def test_the_function_has_it_when_a_wait_takes_too_long(self, setup, clock):
        counted, pool, function = setup(pool=[200], function=[200], capacity=1)
        lease = counted.pool.try_reserve(make_request(), clock())
        counted.function.environments.give_back(clock(), expected_warm=False, was_cold=True)
        counted.model = replace(counted.model, policy=ModelPolicy((), BRIEF))
        counted.releases = 0
        record = Record()
        async with counted.director.serve(counted.chain(make_request()), b"{}", record):
            pass
        assert told(record) == (Backend.SERVERLESS, Reason.SPILLOVER, 1)
        assert (pool.seen, function.seen) == ([], ["function"])
        assert (counted.releases, len(counted.pool.queue)) == (1, 0)
        assert lease is not None

    async def test_it_goes_back_to_the_pool_if_the_function_refuses_then(self, setup, clock):
        counted, pool, function = setup(pool=[200], function=[UpstreamRejectedError("x")])
        leases = [counted.pool.try_reserve(make_request(), clock()) for _ in range(4)]
        counted.model = replace(counted.model, policy=ModelPolicy((), BRIEF))

        async def released() -> None:
            leases.pop().release("ok", clock(), None)
            raise UpstreamRejectedError("x")

        function.answers = [released]
        record = Record()
        async with counted.director.serve(counted.chain(make_request()), b"{}", record):
            pass
        assert told(record) == (Backend.POOL, Reason.WARM_CAPACITY, 2)
        assert len(pool.seen) == len(function.seen) == 1

    async def test_nothing_healthy_is_told_apart_from_all_busy(self, setup):
        counted, *_ = setup(pool=[200], endpoints=0)
        record, error = await counted.serve()
        assert isinstance(error, NoEndpointError)
        assert error.retry_after_s == 5.0
        assert told(record) == (Backend.POOL, Reason.NO_ENDPOINT, 0)

    async def test_cancelling_a_waiting_request_leaves_nothing_behind(self, setup, clock):
        counted, *_ = setup(pool=[200], capacity=1)
        lease = counted.pool.try_reserve(make_request(), clock())
        task = asyncio.create_task(counted.serve())
        while not len(counted.pool.queue):
            await asyncio.sleep(0)
        lease.release("ok", clock(), None)
        task.cancel()
        counted.releases = 0
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (counted.pool.in_flight, len(counted.pool.queue)) == (0, 0)


class Chunks:
    """The rest of a streamed answer: chunks, then perhaps an error; says whether it was closed."""

    def __init__(self, *chunks, error=None) -> None:
        self.chunks = list(chunks)
        self.error = error
        self.closed = False

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        if self.chunks:
            return self.chunks.pop(0)
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


@asynccontextmanager
async def streaming(setup, rest):
    counted, _, function = setup(
        pool=[BackendResponse(200, [], b"first", rest=rest)], function=[200]
    )
    yield counted, function


class TestStreams:
    async def test_the_slot_is_held_until_the_answer_has_been_passed_on(self, setup):
        rest = Chunks(b"a", b"b")
        async with streaming(setup, rest) as (counted, _):
            record = Record()
            async with counted.director.serve(
                counted.chain(make_request()), b"", record
            ) as response:
                assert [chunk async for chunk in response.rest] == [b"a", b"b"]
                assert counted.pool.in_flight == 1
            counted.assert_nothing_is_held(record)
            assert rest.closed

    async def test_nothing_is_retried_after_the_first_byte(self, setup):
        rest = Chunks(b"a", error=ResponseLostError("cut"))
        async with streaming(setup, rest) as (counted, function):
            record = Record()

            async def pass_on() -> Any:
                serving = counted.director.serve(counted.chain(make_request()), b"", record)
                async with serving as response:
                    return [chunk async for chunk in response.rest]

            with pytest.raises(ResponseLostError):
                await pass_on()
            assert (record.attempts, function.seen) == (1, [])
            counted.assert_nothing_is_held(record)

    async def test_a_stream_that_breaks_counts_against_its_endpoint(self, setup):
        async with streaming(setup, None) as (counted, _):
            for _ in range(3):
                with pytest.raises(ResponseLostError):
                    async with counted.director.serve(counted.chain(make_request()), b"", Record()):
                        raise ResponseLostError("cut")
            assert counted.pool.ejections == 1

    @pytest.mark.parametrize("error", [ClientClosedError("x"), asyncio.CancelledError()])
    async def test_a_client_that_leaves_ends_the_upstream_and_blames_nobody(self, setup, error):
        rest = Chunks(b"a")
        async with streaming(setup, rest) as (counted, _):
            for _ in range(5):
                record = Record()
                with pytest.raises(type(error)):
                    async with counted.director.serve(counted.chain(make_request()), b"", record):
                        raise error
            assert counted.pool.in_flight == 0
            assert counted.pool.ejections == 0
            assert rest.closed


async def test_cancelling_an_attempt_releases_it_and_blames_nobody(setup):
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    counted, *_ = setup(pool=[hang], function=[200])
    task = asyncio.create_task(counted.serve())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counted.releases == 1
    assert counted.pool.endpoints["e1"].circuit.opened == 0


async def test_an_error_nobody_expected_is_released_too(setup):
    async def bug() -> None:
        raise ZeroDivisionError

    counted, *_ = setup(pool=[bug])
    _, error = await counted.serve()
    assert isinstance(error, ZeroDivisionError)


def test_explain_tells_the_decision_and_takes_nothing(setup):
    counted, *_ = setup(pool=[200], function=[200])
    _, decision, trace, refusal = explain_chain([(counted.model, make_request())], NOW)
    assert decision is not None
    assert (decision.backend, refusal) == (Backend.POOL, None)
    assert trace[-1].stage == "choice"
    assert counted.pool.in_flight == 0
    assert counted.model.signals.totals().arrivals == 0


def test_explain_tells_a_refusal(setup):
    counted, *_ = setup(function=[200])
    request = make_request(payload_bytes=10**9)
    _, decision, trace, refusal = explain_chain([(counted.model, request)], NOW)
    assert decision is None
    assert isinstance(refusal, PayloadTooLargeError)
    assert (trace[-1].subject, trace[-1].verdict) == ("none", str(refusal))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (asyncio.CancelledError(), Outcome.CLIENT_CLOSED),
        (ClientClosedError("x"), Outcome.CLIENT_CLOSED),
        (DeadlineExceededError("x"), Outcome.DEADLINE_EXCEEDED),
        (RateLimitedError("x", 1.0), Outcome.RATE_LIMITED),
        (NoEndpointError("x"), Outcome.SHED),
        (UpstreamRejectedError("x"), Outcome.SHED),
        (UpstreamBrokenError("x"), Outcome.UPSTREAM_FAILED),
        (InvalidRequestError("x"), Outcome.CLIENT_ERROR),
        (ZeroDivisionError(), Outcome.INTERNAL_ERROR),
    ],
    ids=lambda value: type(value).__name__,
)
def test_outcomes(error, outcome):
    assert outcome_of(error) is outcome
