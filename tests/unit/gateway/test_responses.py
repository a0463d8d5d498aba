import json
from typing import Any

import pytest

from router.domain import errors
from router.domain.errors import (
    BodyTimeoutError,
    HeadTooLargeError,
    MethodNotAllowedError,
    NoEndpointError,
    PayloadTooLargeError,
    QueueFullError,
    RateLimitedError,
    RouterError,
    UnauthorizedError,
    UpstreamRejectedError,
)
from router.gateway.protocols.oip import OIP
from router.gateway.protocols.openai import OPENAI
from router.gateway.responses import INTERNAL_ERROR, STATUS, error_answer, not_found_model


def subclasses(cls) -> Any:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


KINDS = sorted(set(subclasses(RouterError)), key=lambda kind: kind.__name__)
CONTRACT = {
    "InvalidRequestError": 400, "BrokenBodyError": 400, "UnauthorizedError": 401,
    "UnfitEventError": 422,
    "ForbiddenError": 403, "NotFoundError": 404, "ModelNotFoundError": 404,
    "EndpointNotFoundError": 404,
    "UnsupportedError": 501,
    "MethodNotAllowedError": 405, "BodyTimeoutError": 408,
    "PayloadTooLargeError": 413, "UnsupportedMediaError": 415,
    "RateLimitedError": 429, "HeadTooLargeError": 431,
    "ShedError": 503, "QueueFullError": 503, "QueueTimeoutError": 503,
    "NoEndpointError": 503, "TooManyConnectionsError": 503,
    "NotDurableError": 503, "TooManyJobsError": 429, "ConflictError": 409,
    "DeadlineExceededError": 504, "LoopDetectedError": 508,
    "ClientClosedError": 499, "AttemptError": 502, "ConnectFailedError": 502,
    "ResponseLostError": 502, "UpstreamBrokenError": 502, "UpstreamTimeoutError": 504,
    "UpstreamRejectedError": 503, "EncodedTooLargeError": 502, "PlatformRefusedError": 502,
    "AnswerTooLargeError": 502, "FunctionUnfitError": 502, "CallRefusedError": 502,
    "TimeLimitError": 504, "ModelFailedError": 500, "PlaceClosedError": 503,
}  # fmt: skip


def make(kind) -> Any:
    match kind:
        case errors.MethodNotAllowedError:
            return kind("told", "GET, POST")
        case errors.RateLimitedError | errors.TooManyJobsError:
            return kind("told", 2.5)
        case _:
            return kind("told")


def answer(error, protocol=OIP) -> Any:
    found = error_answer(error, protocol)
    return found.status, dict(found.headers), json.loads(found.body)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_its_status_and_its_message(kind):
    status, headers, document = answer(make(kind))
    assert status == CONTRACT[kind.__name__]
    assert document == {"error": "told"}
    assert headers["content-type"] == "application/json"


def test_statuses_are_those_of_errors_that_exist():
    assert set(STATUS) == {kind.code for kind in KINDS} | {"internal_error"}


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (RateLimitedError("x", 2.1), "retry-after", "3"),
        (RateLimitedError("x", 0.01), "retry-after", "1"),
        (QueueFullError("x"), "retry-after", "1"),
        (NoEndpointError("x", retry_after_s=12.2), "retry-after", "13"),
        (UpstreamRejectedError("x", 4.0), "retry-after", "4"),
        (UpstreamRejectedError("x"), "retry-after", "1"),
        (MethodNotAllowedError("x", "GET"), "allow", "GET"),
        (UnauthorizedError("x"), "www-authenticate", 'Bearer realm="hybrid-router"'),
    ],
    ids=[
        "your limit, rounded up",
        "never zero",
        "our capacity",
        "our start-up time",
        "what the platform said",
        "what the platform did not say",
        "what is allowed instead",
        "how to authenticate",
    ],
)
def test_headers_that_tell_what_to_do(error, name, value):
    assert answer(error)[1][name] == value


@pytest.mark.parametrize(
    ("error", "closes"),
    [
        (PayloadTooLargeError("x"), True),
        (HeadTooLargeError("x"), True),
        (BodyTimeoutError("x"), True),
        (QueueFullError("x"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_connection_closes_where_the_body_was_not_read(error, closes):
    assert error_answer(error, OIP).closes is closes


def test_openai_errors_have_openais_shape():
    status, _, document = answer(QueueFullError("busy"), OPENAI)
    assert status == 503
    assert document == {
        "error": {"message": "busy", "type": "server_error", "param": None, "code": "queue_full"}
    }
    _, _, theirs = answer(RateLimitedError("x", 1), OPENAI)
    assert theirs["error"]["type"] == "invalid_request_error"


def test_what_nobody_expected_tells_nothing():
    status, _, document = answer(ZeroDivisionError("/secret/path"))
    assert (status, document) == (500, {"error": INTERNAL_ERROR})


def test_the_name_of_an_unknown_model_is_cut():
    told = str(not_found_model("x" * 100_000))
    assert len(told) < 300
