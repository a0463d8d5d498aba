import pytest

from router.domain.decision import Backend, Cause
from router.domain.errors import (
    NoEndpointError,
    PayloadTooLargeError,
    QueueFullError,
    QueueTimeoutError,
)
from router.policy.refusals import Backends, given_up, refusal
from tests.fakes.builders import make_pool, make_request, make_serverless

FULL = make_pool(free_slots=0, queued=100, expected_s=0.2)  # 101 x 0.2 s on 4 slots: 5.05 s
EMPTY = make_pool(ready=0, slots=0, free_slots=0, queued=100, ready_in_s=7.0)
BUSY = make_serverless(in_flight=20, queued=100, expected_s=0.1)  # 101 x 0.1 s on 20: 0.505 s
OPEN = make_serverless(breaker_open=True, open_for_s=12.0, queued=19, expected_s=1.0)

CASES = {
    "all replicas are busy": (None, FULL, None, Cause.QUEUE_FULL, QueueFullError, 5.05),
    "a function is busy": (BUSY, None, Cause.QUEUE_FULL, None, QueueFullError, 0.505),
    "the sooner of both counts": (
        BUSY, FULL, Cause.QUEUE_FULL, Cause.QUEUE_FULL, QueueFullError, 0.505),
    "no replica is there yet": (None, EMPTY, None, Cause.QUEUE_FULL, NoEndpointError, 7.0),
    "no replica, but a busy function": (
        BUSY, EMPTY, Cause.QUEUE_FULL, Cause.QUEUE_FULL, QueueFullError, 0.505),
    "an open circuit": (OPEN, None, Cause.BREAKER_OPEN, None, NoEndpointError, 13.0),
    "the function can never": (
        BUSY, FULL, Cause.STREAM, Cause.QUEUE_FULL, QueueFullError, 5.05),
    "nobody ever can": (BUSY, None, Cause.STREAM, None, NoEndpointError, 1.0),
    "too large": (BUSY, None, Cause.PAYLOAD, None, PayloadTooLargeError, None),
    "too large, and all replicas are busy": (
        BUSY, FULL, Cause.PAYLOAD, Cause.QUEUE_FULL, QueueFullError, 5.05),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_refusal_says_what_is_missing_and_when_to_come_back(case):
    serverless, pool, serverless_out, pool_out, kind, come_back_s = case
    causes = {
        Backend.SERVERLESS: serverless_out or Cause.NOT_CONFIGURED,
        Backend.POOL: pool_out or Cause.NOT_CONFIGURED,
    }
    error = refusal(make_request(), Backends(serverless, pool), causes)
    assert type(error) is kind
    assert getattr(error, "retry_after_s", None) == pytest.approx(come_back_s)


@pytest.mark.parametrize(
    ("pool", "error", "kind", "come_back_s"),
    [
        (FULL, QueueTimeoutError("late"), QueueTimeoutError, 5.05),
        (FULL, QueueFullError("displaced"), QueueFullError, 5.05),
        (EMPTY, QueueTimeoutError("late"), NoEndpointError, 7.0),
    ],
    ids=["busy all the time", "displaced", "no replica came"],
)
def test_who_waited_in_vain_is_told_the_same(pool, error, kind, come_back_s):
    told = given_up(make_request(), Backends(None, pool), Backend.POOL, error)
    assert type(told) is kind
    assert told.retry_after_s == pytest.approx(come_back_s)
