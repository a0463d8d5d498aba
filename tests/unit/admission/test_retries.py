import pytest

from router.admission.retries import RetryBudget, may_retry
from router.domain.errors import (
    AttemptError,
    ConnectFailedError,
    EncodedTooLargeError,
    ResponseLostError,
    UpstreamBrokenError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)
from tests.fakes.builders import NOW, make_request

SENT = (AttemptError, ResponseLostError, UpstreamTimeoutError, UpstreamBrokenError)
UNSENT = (ConnectFailedError, UpstreamRejectedError, EncodedTooLargeError)


@pytest.mark.parametrize("error", SENT + UNSENT, ids=lambda error: error.__name__)
def test_idempotent_requests_may_be_repeated_after_any_failed_attempt(error):
    assert may_retry(make_request(is_idempotent=True), error("x"), 1, 3, NOW)


@pytest.mark.parametrize("error", SENT, ids=lambda error: error.__name__)
def test_others_are_not_repeated_once_they_may_have_run(error):
    assert not may_retry(make_request(is_idempotent=False), error("x"), 1, 3, NOW)


@pytest.mark.parametrize("error", UNSENT, ids=lambda error: error.__name__)
def test_others_are_repeated_if_nothing_was_sent(error):
    assert may_retry(make_request(is_idempotent=False), error("x"), 1, 3, NOW)


@pytest.mark.parametrize(
    ("attempts", "deadline", "expected"),
    [(2, None, True), (3, None, False), (1, NOW + 0.1, True), (1, NOW, False), (1, NOW - 1, False)],
    ids=["one left", "none left", "in time", "just too late", "too late"],
)
def test_attempts_and_deadline_bound_retries(attempts, deadline, expected):
    request = make_request(deadline=deadline)
    assert may_retry(request, ConnectFailedError("x"), attempts, 3, NOW) is expected


class TestRetryBudget:
    def test_retries_are_a_share_of_requests(self):
        budget = RetryBudget(share=0.25, floor_per_s=0.0, burst=5.0)
        while budget.withdraw():
            pass
        for _ in range(100):
            budget.deposit(0.0)
        # What is not used does not pile up beyond the burst.
        assert sum(budget.withdraw() for _ in range(100)) == 5

    def test_a_share_is_earned_request_by_request(self):
        budget = RetryBudget(share=0.25, floor_per_s=0.0, burst=1.0)
        assert budget.withdraw()
        earned = []
        for _ in range(4):
            earned.append(budget.withdraw())
            budget.deposit(0.0)
        assert earned == [False] * 4
        assert budget.withdraw()

    def test_time_gives_a_floor_to_quiet_models(self):
        budget = RetryBudget(share=0.0, floor_per_s=2.0, burst=1.0)
        budget.deposit(0.0)
        assert budget.withdraw()
        assert not budget.withdraw()
        budget.deposit(0.5)
        assert budget.withdraw()

    def test_new_parameters_keep_what_is_left_within_the_new_burst(self):
        budget = RetryBudget(share=0.0, floor_per_s=0.0, burst=5.0)
        budget.withdraw()
        budget.reconfigure(0.5, 0.0, 50.0)
        assert budget.tokens == 4.0
        budget.deposit(0.0, requests=2)
        assert budget.tokens == 5.0
        assert budget.as_new().tokens == 50.0
        budget.reconfigure(0.0, 0.0, 0.0)
        assert not budget.withdraw()

    def test_what_was_refused_is_counted(self):
        budget = RetryBudget(share=0.0, floor_per_s=0.0, burst=1.0)
        results = [budget.withdraw() for _ in range(3)]
        assert (results, budget.exhausted) == ([True, False, False], 2)
