import asyncio
import time
from typing import Any

import pytest

from router.admission.slots import Waiter
from router.backends.serverless.function import Function, FunctionParams, KeptWarm
from router.domain.decision import Verdict
from router.domain.errors import (
    AttemptError,
    PlaceClosedError,
    QueueFullError,
    QueueTimeoutError,
    UpstreamBrokenError,
    UpstreamRejectedError,
)
from router.domain.ports import BackendResponse
from tests.fakes.builders import LIMITS, FakeClock, make_request

REQUEST = make_request()


def params(**changes) -> Any:
    defaults = {
        "endpoint_id": "m-fn", "enabled": True, "limits": LIMITS, "max_concurrency": 2,
        "max_queued": 2, "max_queued_bytes": 10_000, "max_wait_s": 30.0, "reclaim_s": 300.0,
        "usd_per_request": 0.25, "usd_per_billed_s": 10.0, "service_time_s": 0.05,
        "cold_start_s": 1.0,
    }  # fmt: skip
    return FunctionParams(**{**defaults, **changes})


class Platform:
    """A caller that needs `takes_s` and answers as told."""

    def __init__(self, clock) -> None:
        self.clock = clock
        self.takes_s = 0.1
        self.error = None
        self.answer: dict[str, Any] = {"cold_start": False, "billed_s": None, "init_s": None}
        self.status = 200

    async def call(self, request, body, timeout_s) -> Any:
        self.clock.advance(self.takes_s)
        if self.error is not None:
            raise self.error
        return BackendResponse(self.status, [], b"{}", **self.answer)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def platform(clock):
    return Platform(clock)


@pytest.fixture
def make_function(clock, platform):
    return lambda **changes: Function(params(**changes), platform, clock)


async def call(function, clock, verdict=Verdict.OK, request=REQUEST) -> None:
    lease = function.try_reserve(request, clock())
    assert lease is not None
    try:
        response = await lease.send(request, b"{}", 1.0)
    except AttemptError:
        response = None
    lease.release(verdict, clock(), response)


async def queued(function, timeout_s=30.0) -> Any:
    task = asyncio.create_task(function.reserve(REQUEST, timeout_s))
    await asyncio.sleep(0)
    return task


async def result_of(task) -> Any:
    async with asyncio.timeout(5):
        return await task


class TestConcurrency:
    def test_calls_are_made_up_to_the_limit(self, make_function, clock):
        function = make_function()
        leases = [function.try_reserve(REQUEST, clock()) for _ in range(3)]
        assert leases[2] is None
        assert function.in_flight == 2
        leases[0].release(Verdict.CANCELLED, clock(), None)
        assert function.in_flight == 1
        assert leases[0].endpoint_id == "m-fn"

    async def test_a_freed_slot_goes_to_the_first_waiter_and_nobody_overtakes(
        self, make_function, clock
    ):
        function = make_function()
        leases = [function.try_reserve(REQUEST, clock()) for _ in range(2)]
        first, second = await queued(function), await queued(function)
        leases[0].release(Verdict.OK, clock(), None)
        assert function.in_flight == 2
        assert function.try_reserve(REQUEST, clock()) is None
        third = await result_of(first)
        assert function.in_flight == 2
        leases[1].release(Verdict.OK, clock(), None)
        third.release(Verdict.OK, clock(), None)
        (await result_of(second)).release(Verdict.OK, clock(), None)
        assert function.in_flight == 0

    async def test_a_waiter_cancelled_after_the_handover_passes_its_slot_on(
        self, make_function, clock
    ):
        function = make_function(max_concurrency=1)
        lease = function.try_reserve(REQUEST, clock())
        first, second = await queued(function), await queued(function)
        lease.release(Verdict.OK, clock(), None)
        first.cancel()
        (await result_of(second)).release(Verdict.OK, clock(), None)
        assert function.in_flight == 0

    async def test_the_queue_is_bounded_in_count_and_time(self, make_function, clock):
        function = make_function(max_concurrency=1, max_queued=1)
        lease = function.try_reserve(REQUEST, clock())
        with pytest.raises(QueueTimeoutError):
            await function.reserve(REQUEST, 0.01)
        waiter = await queued(function)
        with pytest.raises(QueueFullError):
            await function.reserve(REQUEST, 1.0)
        lease.release(Verdict.OK, clock(), None)
        (await result_of(waiter)).release(Verdict.OK, clock(), None)
        assert (function.in_flight, len(function.queue)) == (0, 0)

    async def test_refusals_lower_the_limit_and_successes_raise_it(self, make_function, clock):
        function = make_function(max_concurrency=10)
        leases = [function.try_reserve(REQUEST, clock()) for _ in range(10)]
        leases.pop().release(Verdict.REJECTED, clock(), None)
        assert function.snapshot(1, clock()).max_concurrency == 7
        assert function.try_reserve(REQUEST, clock()) is None, "9 are still in flight"
        for lease in leases:
            lease.release(Verdict.OK, clock(), None)
        assert function.snapshot(1, clock()).max_concurrency == 8

    def test_new_bounds_and_prices_apply_and_what_was_learned_stays(
        self, make_function, clock, platform
    ):
        function = make_function(max_concurrency=10)
        function.service_times.observe(300, 7.0)
        leases = [function.try_reserve(REQUEST, clock()) for _ in range(3)]
        function.reconfigure(params(max_concurrency=3, usd_per_request=9.0, max_queued=5), platform)
        assert function.try_reserve(REQUEST, clock()) is None
        snapshot = function.snapshot(300, clock())
        assert (snapshot.max_concurrency, snapshot.max_queued) == (3, 5)
        assert snapshot.expected_s == 7.0
        assert function.params.price_usd(0.0) == 9.0
        assert len(leases) == function.in_flight


class TestCircuit:
    async def test_five_failures_in_a_row_open_it(self, make_function, clock):
        function = make_function()
        for _ in range(4):
            await call(function, clock, Verdict.FAILED)
        assert not function.snapshot(1, clock()).breaker_open
        await call(function, clock, Verdict.FAILED)
        assert function.snapshot(1, clock()).breaker_open
        clock.advance(1.0)
        assert not function.snapshot(1, clock()).breaker_open

    @pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.CANCELLED])
    async def test_throttling_and_clients_that_leave_do_not_open_it(
        self, make_function, clock, verdict
    ):
        function = make_function()
        for _ in range(20):
            await call(function, clock, verdict)
        assert not function.snapshot(1, clock()).breaker_open


class TestWhatIsSaid:
    @pytest.fixture(autouse=True)
    def level(self, caplog):
        caplog.set_level("INFO", "router.backends.serverless.function")

    async def test_when_and_why_it_opens_and_closes(self, make_function, clock, platform, caplog):
        function = make_function()
        platform.error = UpstreamBrokenError("the platform got no answer")
        for _ in range(5):
            await call(function, clock, Verdict.FAILED)
        platform.error = None
        clock.advance(1.4)
        await call(function, clock)
        opened, closed = caplog.messages
        assert opened == (
            "function m-fn: its circuit opens, no calls for 1.0 s: the platform got no answer"
        )
        assert closed == "function m-fn: its circuit closes, a call was answered after 1.5 s"

    async def test_a_pause_that_is_asked_for_again_and_again_is_said_once(
        self, make_function, clock, platform, caplog
    ):
        function = make_function()
        platform.error = UpstreamRejectedError("the platform throttles", 3.0)
        for _ in range(20):
            await call(function, clock, Verdict.REJECTED)
            clock.advance(3.0)
        assert caplog.messages == [
            "function m-fn: its circuit opens, no calls for 3.0 s: the platform throttles"
        ]

    async def test_a_function_that_works_and_fails_in_turn_does_not_fill_the_log(
        self, make_function, clock, platform, caplog
    ):
        function = make_function()
        for _ in range(40):
            platform.error = UpstreamRejectedError("the platform throttles", 0.1)
            await call(function, clock, Verdict.REJECTED)
            clock.advance(0.1)
            platform.error = None
            await call(function, clock)
        assert len(caplog.messages) == 4, "two lines in ten seconds; it took twelve"


class TestThoseWhoWait:
    async def test_they_look_elsewhere_when_it_closes(self, make_function, clock):
        function = make_function()
        leases = [function.try_reserve(REQUEST, clock()) for _ in range(2)]
        waiters = [await queued(function) for _ in range(2)]
        leases[0].pause_s = 3.0
        leases[0].release(Verdict.REJECTED, clock(), None)
        for waiter in waiters:
            with pytest.raises(PlaceClosedError):
                await result_of(waiter)
        assert (function.in_flight, len(function.queue)) == (1, 0)

    async def test_who_waits_elsewhere_too_keeps_both_places(self, make_function, clock):
        function, other = make_function(), make_function()
        leases = [function.try_reserve(REQUEST, clock()) for _ in range(2)]
        waiter = Waiter()
        function.join(waiter, REQUEST)
        other.join(waiter, REQUEST)
        leases[0].pause_s = 3.0
        leases[0].release(Verdict.REJECTED, clock(), None)
        assert not waiter.is_done
        assert (len(function.queue), len(other.queue)) == (1, 1)


class TestPauses:
    async def test_the_platform_says_how_long(self, make_function, clock, platform):
        function = make_function()
        platform.error = UpstreamRejectedError("throttled", 3.0)
        await call(function, clock, Verdict.REJECTED)
        platform.error = None
        snapshot = function.snapshot(1, clock())
        assert (snapshot.breaker_open, snapshot.open_for_s) == (True, 3.0)
        assert function.try_reserve(REQUEST, clock()) is None
        clock.advance(3.0)
        await call(function, clock)
        assert function.calls == 1

    async def test_a_call_that_ends_meanwhile_does_not_end_it(self, make_function, clock, platform):
        function = make_function(max_concurrency=10)
        straggler = function.try_reserve(REQUEST, clock())
        platform.error = UpstreamRejectedError("throttled", 3.0)
        await call(function, clock, Verdict.REJECTED)
        waiter = await queued(function)
        straggler.release(Verdict.OK, clock(), None)
        await asyncio.sleep(0)
        assert not waiter.done()
        waiter.cancel()

    async def test_who_waits_is_called_when_it_ends(self, platform):
        clock = time.monotonic
        function = Function(params(max_concurrency=10, max_queued=10), platform, clock)
        function.circuit.pause(clock(), 0.05)
        ends = clock() + function.circuit.open_for_s(clock())
        leases = await asyncio.gather(*(function.reserve(REQUEST, 5.0) for _ in range(3)))
        assert clock() >= ends
        for lease in leases:
            lease.release(Verdict.OK, clock(), None)

    async def test_after_failures_one_waiter_tries_and_the_rest_wait_for_it(self, platform):
        clock = FakeClock(0.0)
        function = Function(params(max_concurrency=10), platform, clock)
        for _ in range(5):
            await call(function, clock, Verdict.FAILED)
        waiters = [await queued(function) for _ in range(2)]
        clock.advance(1.0)
        function._reopened()  # as the timer would
        trial = await result_of(waiters[0])
        assert not waiters[1].done()
        trial.release(Verdict.OK, clock(), None)
        (await result_of(waiters[1])).release(Verdict.OK, clock(), None)
        assert (function.in_flight, len(function.queue)) == (0, 0)


class TestLearning:
    async def test_the_first_call_is_expected_cold_and_the_next_warm(
        self, make_function, clock, platform
    ):
        function = make_function()
        assert function.snapshot(300, clock()).p_cold == 1.0
        platform.answer["cold_start"] = True
        await call(function, clock)
        assert function.snapshot(300, clock()).p_cold == 0.0
        assert (function.calls, function.cold_calls) == (1, 1)

    async def test_a_cold_call_teaches_the_start_and_not_the_service_time(
        self, make_function, clock, platform
    ):
        function = make_function()
        platform.takes_s = 3.05
        platform.answer.update(cold_start=True, init_s=2.5, billed_s=2.6)
        await call(function, clock)
        snapshot = function.snapshot(300, clock())
        assert snapshot.init_s == pytest.approx(3.0), "what the client waited, not only the init"
        assert snapshot.expected_s == 0.05
        assert function.billed_times.estimate(300).mean_s == pytest.approx(0.1)

    async def test_a_warm_call_teaches_the_service_time(self, make_function, clock):
        function = make_function()
        await call(function, clock)
        assert function.snapshot(300, clock()).expected_s == pytest.approx(0.1)

    @pytest.mark.parametrize(
        ("status", "facts"), [(500, {}), (200, {"is_inference": False})], ids=["error", "metadata"]
    )
    async def test_what_does_not_run_the_model_teaches_nothing(
        self, make_function, clock, platform, status, facts
    ):
        function = make_function()
        platform.status = status
        await call(function, clock, request=make_request(**facts))
        assert function.snapshot(300, clock()).expected_s == 0.05

    async def test_sizes_are_learned_apart(self, make_function, clock, platform):
        function = make_function()
        await call(function, clock)
        platform.takes_s = 4.0
        await call(function, clock, request=make_request(payload_bytes=1 << 20))
        assert function.snapshot(300, clock()).expected_s == pytest.approx(0.1)
        assert function.snapshot(1 << 20, clock()).expected_s == pytest.approx(4.0)


class TestKeptWarm:
    """Two environments are kept warm: a call on them costs 1 USD a second instead of 10."""

    @pytest.fixture
    def function(self, make_function):
        kept = KeptWarm(environments=2, usd_per_billed_s=1.0, usd_per_s=0.5)
        return make_function(kept_warm=kept, max_concurrency=5)

    def test_calls_up_to_their_number_are_not_cold_and_cheaper(self, function, clock):
        seen = []
        leases = []
        for _ in range(3):
            snapshot = function.snapshot(300, clock())
            seen.append((snapshot.p_cold, snapshot.price_usd))
            leases.append(function.try_reserve(REQUEST, clock()))
        kept, on_demand = (0.0, pytest.approx(0.3)), (1.0, pytest.approx(0.75))
        assert seen == [kept, kept, on_demand]
        assert [lease.is_kept for lease in leases] == [True, True, False]
        leases[0].release(Verdict.FAILED, clock(), None)
        assert (function.snapshot(300, clock()).p_cold, function.kept_free) == (0.0, 1)

    async def test_each_call_is_paid_by_where_it_ran(self, function, clock):
        await call(function, clock)
        assert function.cost_usd == pytest.approx(0.25 + 1 * 0.1)
        held = [function.try_reserve(REQUEST, clock()) for _ in range(2)]
        await call(function, clock)
        assert function.cost_usd == pytest.approx(0.25 + 1 * 0.1 + 0.25 + 10 * 0.1)
        assert len(held) == 2

    async def test_they_are_not_counted_among_those_that_come_and_go(self, function, clock):
        await call(function, clock)
        assert (function.environments.idle(clock()), function.kept_free) == (0, 2)
        clock.advance(10_000)
        assert function.snapshot(300, clock()).p_cold == 0.0

    def test_fewer_after_a_reload(self, function, clock, platform):
        leases = [function.try_reserve(REQUEST, clock()) for _ in range(2)]
        function.reconfigure(params(kept_warm=KeptWarm(environments=1)), platform)
        assert function.kept_free == 0
        for lease in leases:
            lease.release(Verdict.OK, clock(), None)
        assert (function.kept_free, function.kept_in_flight) == (1, 0)


class TestUntoldStarts:
    """The platform says nothing about starts."""

    async def test_they_are_told_by_their_time(self, make_function, clock, platform):
        function = make_function()
        platform.answer["cold_start"] = None
        for takes_s in (1.2, 0.1, 0.1):
            platform.takes_s = takes_s
            await call(function, clock)
        clock.advance(400.0)  # longer than an environment is kept
        platform.takes_s = 1.3
        await call(function, clock)
        assert (function.calls, function.cold_calls) == (4, 2)
        assert function.snapshot(300, clock()).init_s == pytest.approx(1.18, abs=0.05)
        assert function.snapshot(300, clock()).expected_s == pytest.approx(0.1)

    @pytest.mark.parametrize(
        ("status", "facts"), [(500, {}), (200, {"is_inference": False})], ids=["error", "metadata"]
    )
    async def test_what_does_not_run_the_model_is_not_judged(
        self, make_function, clock, platform, status, facts
    ):
        function = make_function()
        platform.status, platform.takes_s = status, 9.0
        platform.answer["cold_start"] = None
        await call(function, clock, request=make_request(**facts))
        assert function.cold_calls == 0


class TestCost:
    async def test_a_call_costs_its_request_and_what_was_billed(
        self, make_function, clock, platform
    ):
        function = make_function()
        platform.answer["billed_s"] = 0.2
        await call(function, clock)
        assert function.cost_usd == pytest.approx(0.25 + 10 * 0.2)

    async def test_what_nobody_bills_is_estimated_by_the_time_it_took(self, make_function, clock):
        function = make_function()
        await call(function, clock)
        assert function.cost_usd == pytest.approx(0.25 + 10 * 0.1)

    async def test_a_call_that_failed_has_cost_its_time(self, make_function, clock, platform):
        function = make_function()
        platform.error = UpstreamBrokenError("x")
        await call(function, clock, Verdict.FAILED)
        assert function.cost_usd == pytest.approx(0.25 + 10 * 0.1)

    async def test_a_call_that_was_refused_has_cost_nothing(self, make_function, clock, platform):
        function = make_function()
        platform.error = UpstreamRejectedError("x")
        await call(function, clock, Verdict.REJECTED)
        assert function.cost_usd == 0.0

    async def test_the_price_predicted_is_that_of_a_warm_call_of_this_size(
        self, make_function, clock, platform
    ):
        function = make_function()
        assert function.snapshot(300, clock()).price_usd == pytest.approx(0.25 + 10 * 0.05)
        platform.answer.update(billed_s=0.31, init_s=0.3, cold_start=True)
        await call(function, clock)
        assert function.snapshot(300, clock()).price_usd == pytest.approx(0.25 + 10 * 0.01)
