"""What is paid and remembered: rounded durations, streams, environments, cold starts."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from router.backends.serverless.cold_starts import FirstSeen, InitTimes
from router.backends.serverless.function import Function, FunctionParams
from router.domain.decision import Verdict
from router.domain.errors import (
    ConnectFailedError,
    EncodedTooLargeError,
    PlatformRefusedError,
    UpstreamBrokenError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)
from router.domain.ports import BackendResponse
from router.domain.snapshot import ServerlessLimits
from tests.fakes.builders import FakeClock, make_request
from tests.fakes.callers import WholeCalls


def params(**changes):
    facts = {
        "endpoint_id": "m-fn",
        "enabled": True,
        "limits": ServerlessLimits(1 << 20, 30.0, can_stream=True),
        "max_concurrency": 4,
        "max_queued": 4,
        "max_queued_bytes": 1 << 20,
        "max_wait_s": 30.0,
        "reclaim_s": 300.0,
        "usd_per_request": 1.0,
        "usd_per_billed_s": 10.0,
        "service_time_s": 0.05,
        "cold_start_s": 1.0,
    }
    return FunctionParams(**{**facts, **changes})


class Caller(WholeCalls):
    """Answers what it is told, after a while."""

    def __init__(self, clock, response, seconds):
        self.clock, self.response, self.seconds = clock, response, seconds

    async def call(self, request, body, timeout_s):
        self.clock.advance(self.seconds)
        return self.response


@pytest.mark.parametrize(
    ("seconds", "changes", "usd"),
    [
        (0.25, {}, 1 + 2.5),
        (0.25, {"billing_step_s": 0.1}, 1 + 3),
        (0.3, {"billing_step_s": 0.1}, 1 + 3),
        (0.1 + 0.2, {"billing_step_s": 0.1}, 1 + 3),
        (0.301, {"billing_step_s": 0.1}, 1 + 4),
        (0.02, {"min_billed_s": 0.1}, 1 + 1),
        (0.25, {"min_billed_s": 0.1}, 1 + 2.5),
        (0.0, {"min_billed_s": 0.1, "billing_step_s": 0.25}, 1 + 2.5),
    ],
    ids=[
        "by time", "rounded up", "a whole step", "a float a hair over", "into the next step",
        "at least", "over the least", "both",
    ],
)  # fmt: skip
def test_the_price_of_a_call(seconds, changes, usd):
    function = Function(params(**changes), Caller(None, None, 0), FakeClock())
    assert function.params.price_usd(seconds) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("error", "usd"),
    [
        (ConnectFailedError("x"), 0.0),
        (PlatformRefusedError("x"), 0.0),
        (EncodedTooLargeError("x"), 0.0),
        (UpstreamRejectedError("x"), 0.0),
        (UpstreamBrokenError("x"), 1 + 5.0),
        (UpstreamTimeoutError("x"), 1 + 5.0),
        (asyncio.CancelledError(), 1 + 5.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_only_what_may_have_run_is_paid(error, usd):
    clock = FakeClock()

    class Failing(WholeCalls):
        async def call(self, request, body, timeout_s):
            clock.advance(0.5)
            raise error

    function = Function(params(), Failing(), clock)
    lease = function.try_reserve(make_request(), clock())
    assert lease is not None
    with pytest.raises(type(error)):
        await lease.send(make_request(), b"", 30.0)
    verdict = Verdict.REJECTED if isinstance(error, UpstreamRejectedError) else Verdict.FAILED
    lease.release(verdict, clock(), None)
    assert function.cost_usd == pytest.approx(usd)


async def nothing() -> AsyncIterator[bytes]:
    for part in list[bytes]():
        yield part


async def test_a_stream_is_paid_until_its_end():
    clock = FakeClock()
    response = BackendResponse(200, [], b"", rest=nothing())
    function = Function(params(), Caller(clock, response, 0.5), clock)
    lease = function.try_reserve(make_request(), clock())
    assert lease is not None
    await lease.send(make_request(), b"", 30.0)
    clock.advance(2.0)
    lease.release(Verdict.OK, clock(), response)
    assert function.cost_usd == pytest.approx(1 + 25.0)


async def test_an_environment_seen_for_the_first_time_was_a_cold_start():
    clock = FakeClock()
    response = BackendResponse(200, [], b"", environment_id="a")
    caller = Caller(clock, response, 0.5)
    function = Function(params(), caller, clock)
    told = []
    for environment in ("a", "a", "b", "a", "b"):
        caller.response = BackendResponse(200, [], b"", environment_id=environment)
        lease = function.try_reserve(make_request(), clock())
        assert lease is not None
        response = await lease.send(make_request(), b"", 30.0)
        lease.release(Verdict.OK, clock(), response)
        told.append(response.cold_start)
    assert told == [True, False, True, False, False]
    assert function.cold_calls == 2


def test_the_memory_of_environments_is_bounded():
    seen = FirstSeen(max_environments=2)
    assert [seen.is_new(name) for name in ("a", "b", "a", "c", "a", "b")] == [
        True, True, False, True, False, True,
    ]  # fmt: skip


def test_quantiles_of_cold_starts():
    times = InitTimes()
    assert times.quantiles([0.5, 0.99]) == [None, None]
    for value in range(100, 0, -1):
        times.add(float(value))
    assert times.quantiles([0.0, 0.5, 0.99, 1.0]) == [1.0, 50.0, 99.0, 100.0]
    for _ in range(1000):
        times.add(7.0)
    assert times.quantiles([0.5, 1.0]) == [7.0, 7.0]
