"""THE map from error code to HTTP status, headers and the client's error shape.

Says what happened and what to do; never shows addresses, paths or stack traces.
"""

from collections.abc import Mapping
from math import ceil

import msgspec

from router.domain.decision import Outcome
from router.domain.errors import (
    BodyTimeoutError,
    BrokenBodyError,
    HeadTooLargeError,
    MethodNotAllowedError,
    ModelNotFoundError,
    OwnWords,
    PayloadTooLargeError,
    RateLimitedError,
    RouterError,
    ShedError,
    UpstreamRejectedError,
)
from router.domain.request import Protocol

STATUS: Mapping[str, int] = {
    "invalid_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "body_timeout": 408,
    "conflict": 409,
    "payload_too_large": 413,
    "unsupported_media": 415,
    "unfit_event": 422,
    "rate_limited": 429,
    "too_many_jobs": 429,
    "head_too_large": 431,
    "client_closed": 499,
    "internal_error": 500,
    "model_failed": 500,
    "unsupported": 501,
    "upstream_failed": 502,
    "shed": 503,
    "queue_full": 503,
    "queue_timeout": 503,
    "no_endpoint": 503,
    "not_durable": 503,
    "too_many_connections": 503,
    "upstream_busy": 503,
    "upstream_timeout": 504,
    "deadline_exceeded": 504,
    "loop_detected": 508,
}

CLIENT_CLOSED = STATUS["client_closed"]
"""What is logged of a request whose client left; nobody is sent it."""
INTERNAL_ERROR = "internal error; the request id identifies it in the gateway's log"

_UNREAD = (PayloadTooLargeError, BodyTimeoutError, BrokenBodyError, HeadTooLargeError)
"""After these, what follows on the connection cannot be understood."""


class ErrorAnswer(msgspec.Struct, frozen=True):
    """A finished error response; `closes` says that the body was not read to its end."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    closes: bool


def not_found_model(model: str) -> ModelNotFoundError:
    """The error for a model that is not configured; the name is cut, it may be anything."""
    return ModelNotFoundError(f"model {model[:200]!r} is not configured on this gateway")


def error_answer(error: Exception, protocol: Protocol) -> ErrorAnswer:
    """The response for an error, in the shape of the protocol the client speaks."""
    if isinstance(error, UpstreamRejectedError) and error.own_words is not None:
        return _in_own_words(error, error.own_words, protocol)
    code, message = code_of(error), cause_of(error)
    status = STATUS[code]
    headers = [("content-type", "application/json"), ("x-router-error", code)]
    if isinstance(error, ShedError | RateLimitedError | UpstreamRejectedError):
        headers.append(("retry-after", str(max(1, ceil(error.retry_after_s or 0.0)))))
    if code == "unauthorized":
        headers.append(("www-authenticate", 'Bearer realm="hybrid-router"'))
    if isinstance(error, MethodNotAllowedError):
        headers.append(("allow", error.allowed))
    body = msgspec.json.encode(protocol.error_document(message, code, status))
    closes = isinstance(error, _UNREAD)
    return ErrorAnswer(status, headers, body, closes)


def _in_own_words(error: UpstreamRejectedError, words: OwnWords, protocol: Protocol) -> ErrorAnswer:
    headers, body = [*words.headers, ("x-router-error", error.code)], words.body
    if not body:
        headers.append(("content-type", "application/json"))
        document = protocol.error_document(str(error), error.code, words.status)
        body = msgspec.json.encode(document)
    return ErrorAnswer(words.status, headers, body, closes=False)


def code_of(error: Exception) -> str:
    """The code of an error, as clients, log and metrics have it."""
    return error.code if isinstance(error, RouterError) else "internal_error"


def cause_of(error: Exception) -> str:
    """What the client is told of an error."""
    return str(error) if isinstance(error, RouterError) else INTERNAL_ERROR


def outcome_of_status(status: int) -> Outcome:
    """What a model's own answer counts as."""
    if status < 400:
        return Outcome.OK
    return Outcome.CLIENT_ERROR if status < 500 else Outcome.MODEL_ERROR
