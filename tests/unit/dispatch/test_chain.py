from typing import Any

import pytest

from router.dispatch.chain import may_pass_on
from router.domain.errors import (
    ConnectFailedError,
    DeadlineExceededError,
    InvalidRequestError,
    NoEndpointError,
    PayloadTooLargeError,
    QueueFullError,
    QueueTimeoutError,
    RateLimitedError,
    ResponseLostError,
    UpstreamRejectedError,
)
from tests.fakes.builders import NOW, make_request


class Upload:
    def __init__(self, *, is_untouched) -> None:
        self.is_untouched = is_untouched


@pytest.mark.parametrize(
    ("error", "passed"),
    [
        (NoEndpointError("x"), True),
        (QueueFullError("x"), True),
        (QueueTimeoutError("x"), True),
        (ResponseLostError("x"), True),
        (UpstreamRejectedError("x"), True),
        (InvalidRequestError("x"), False),
        (PayloadTooLargeError("x"), False),
        (RateLimitedError("x", 1.0), False),
        (DeadlineExceededError("x"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_only_a_model_that_cannot_serve_is_stood_in_for(error, passed):
    assert may_pass_on(error, make_request(), b"{}", NOW) is passed


@pytest.mark.parametrize(
    ("error", "passed"), [(ResponseLostError("x"), False), (ConnectFailedError("x"), True)]
)
def test_what_must_not_run_twice_is_passed_on_only_if_nothing_was_sent(error, passed):
    assert may_pass_on(error, make_request(is_idempotent=False), b"{}", NOW) is passed


@pytest.mark.parametrize(
    ("deadline", "passed"), [(NOW + 1, True), (NOW, False)], ids=["in time", "too late"]
)
def test_after_the_deadline_nothing_is_passed_on(deadline, passed):
    request = make_request(deadline=deadline)
    assert may_pass_on(NoEndpointError("x"), request, b"{}", NOW) is passed


@pytest.mark.parametrize("is_untouched", [True, False])
def test_a_body_that_has_begun_to_go_on_cannot_be_passed_on(is_untouched):
    body: Any = Upload(is_untouched=is_untouched)
    assert may_pass_on(NoEndpointError("x"), make_request(), body, NOW) is is_untouched
