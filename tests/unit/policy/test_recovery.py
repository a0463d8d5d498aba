"""What follows a failed attempt, from made-up facts."""

from typing import Any

import pytest

from router.domain.decision import Backend, Reason
from router.domain.errors import (
    AttemptError,
    ConnectFailedError,
    EncodedTooLargeError,
    ResponseLostError,
    TimeLimitError,
    UpstreamBrokenError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)
from router.policy.recovery import Failure, Final, Recovery, Step, what_follows
from tests.fakes.builders import NOW, make_request

SENT = (AttemptError, ResponseLostError, UpstreamTimeoutError, UpstreamBrokenError)
UNSENT = (ConnectFailedError, UpstreamRejectedError, EncodedTooLargeError)


def failure(error: AttemptError, **facts: Any) -> Failure:
    usual: dict[str, Any] = {
        "backend": Backend.POOL, "tries": 1, "attempts": 3, "can_resend": True, "has_budget": True,
        "has_siblings": False, "is_only_backend": False, "failed_before": False,
    }  # fmt: skip
    return Failure(error, **{**usual, **facts})


def final_of(error: AttemptError, request: Any = None, **facts: Any) -> Final | None:
    return what_follows(failure(error, **facts), request or make_request(), NOW).final


@pytest.mark.parametrize("error", SENT + UNSENT, ids=lambda error: error.__name__)
def test_idempotent_requests_may_be_repeated_after_any_failed_attempt(error):
    assert final_of(error("x"), make_request(is_idempotent=True)) is None


@pytest.mark.parametrize("error", SENT, ids=lambda error: error.__name__)
def test_others_are_not_repeated_once_they_may_have_run(error):
    assert final_of(error("x"), make_request(is_idempotent=False)) is Final.MAY_HAVE_RUN


@pytest.mark.parametrize("error", UNSENT, ids=lambda error: error.__name__)
def test_others_are_repeated_if_nothing_was_sent(error):
    assert final_of(error("x"), make_request(is_idempotent=False)) is None


@pytest.mark.parametrize(
    ("tries", "deadline", "expected"),
    [
        (2, None, None), (3, None, Final.USED_UP), (1, NOW + 0.1, None), (1, NOW, Final.LATE),
        (1, NOW - 1, Final.LATE),
    ],
    ids=["one left", "none left", "in time", "just too late", "too late"],
)  # fmt: skip
def test_attempts_and_deadline_bound_retries(tries, deadline, expected):
    found = final_of(ConnectFailedError("x"), make_request(deadline=deadline), tries=tries)
    assert found is expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [({"can_resend": False}, Final.BODY_GONE), ({"has_budget": False}, Final.NO_BUDGET)],
    ids=["what was sent of the body is gone", "others have had the retries"],
)
def test_what_else_ends_it(facts, expected):
    assert final_of(ConnectFailedError("x"), **facts) is expected


def test_an_event_that_proved_too_large_costs_nothing_and_goes_elsewhere():
    facts = failure(
        EncodedTooLargeError("x"), backend=Backend.SERVERLESS, tries=3, has_budget=False
    )
    found = what_follows(facts, make_request(), NOW)
    assert (found.step, found.costs_retry) == (Step.ELSEWHERE, False)
    assert found.reason is Reason.LIMIT_PAYLOAD


@pytest.mark.parametrize(
    ("is_only_backend", "expected"), [(True, (Step.ANSWER, False)), (False, (Step.ELSEWHERE, True))]
)
def test_what_would_fail_again_for_certain_is_not_asked_again(is_only_backend, expected):
    facts = failure(
        TimeLimitError("x"),
        backend=Backend.SERVERLESS,
        failed_before=True,
        is_only_backend=is_only_backend,
    )
    found = what_follows(facts, make_request(), NOW)
    assert ((found.step, found.is_certain), found.pauses) == (expected, False)


LOST = ResponseLostError("x")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(
            failure(LOST, has_siblings=True), Recovery(Step.ASIDE), id="a sibling is asked first"
        ),
        pytest.param(
            failure(LOST, has_siblings=True, tries=2),
            Recovery(Step.ELSEWHERE),
            id="the last try is for the other kind",
        ),
        pytest.param(
            failure(LOST, has_siblings=True, tries=2, is_only_backend=True),
            Recovery(Step.ASIDE),
            id="unless there is no other kind",
        ),
        pytest.param(
            failure(LOST), Recovery(Step.ELSEWHERE, forgets=True), id="no sibling: elsewhere"
        ),
        pytest.param(
            failure(LOST, is_only_backend=True),
            Recovery(Step.ELSEWHERE, pauses=True, forgets=True),
            id="nothing else at all: the same again, after a pause",
        ),
        pytest.param(
            failure(LOST, failed_before=True),
            Recovery(Step.ELSEWHERE, pauses=True, forgets=True),
            id="it had failed before: after a pause",
        ),
        pytest.param(
            failure(UpstreamRejectedError("x"), backend=Backend.SERVERLESS),
            Recovery(Step.ELSEWHERE, reason=Reason.SPILLOVER),
            id="a full function spills over",
        ),
    ],
)
def test_where_the_next_attempt_goes(facts, expected):
    assert what_follows(facts, make_request(), NOW) == expected
