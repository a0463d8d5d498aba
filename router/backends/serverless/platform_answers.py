"""Whose answer it is when a function is called by URL: the model's, or the platform's before it.

What the function answers is the model's, whatever its status, media type and body: a caller whose
input fails must not take the function from the others. Only words that platforms and proxies are
known for count as theirs, and what they say is told by cause. Pure.
"""

from collections.abc import Mapping

import msgspec

from router.backends.serverless.aws_errors import api_error, retry_after_s
from router.domain.errors import (
    AttemptError,
    CallRefusedError,
    EncodedTooLargeError,
    ModelFailedError,
    PlatformRefusedError,
    TimeLimitError,
    UpstreamBrokenError,
    UpstreamRejectedError,
)

_READ_BYTES = 4096
"""Every known page says who made it well before that."""

_TOO_SLOW = b"The web server failed to respond within the specified time"
"""Azure's front, with status 500."""
_PAGES = (
    b"<body text=#000000 bgcolor=#ffffff>",  # Google's front
    b"<hr><center>nginx",  # with or without a version
    b"<hr><center>openresty",
    b"Web App - Unavailable",  # Azure: the app is stopped
    b"Microsoft Azure Web App",
    b"Azure Front Door",
    b"Function host is not running",
    _TOO_SLOW,
    b"RBAC: access denied",  # Envoy, as in Istio
)
"""Parts of pages that platforms and proxies word themselves."""

_WHOLE_BODIES = frozenset({b"404 page not found", b"default backend - 404"})
"""What ingresses say, whole, of a route that they do not have."""


def platform_error(
    status: int, headers: Mapping[str, str], body: bytes, has_credentials: bool
) -> AttemptError | None:
    """The error that an answer stands for; None if it is the model's own answer.

    `headers` has lower-case names. `has_credentials` says that the gateway added some that could
    be refused: without them a 401 or 403 is passed on.
    """
    if status < 300 or status == 304:
        return None
    error: AttemptError | None = None
    if status < 400:
        # A redirect (to a login page, to https) is not followed, and no client could use it.
        error = CallRefusedError(f"the platform redirects the call (status {status})")
    elif _is_worded_for_the_handler(status, headers, body):
        error = ModelFailedError(f"the function failed (status {status})")
    elif "x-amzn-errortype" in headers:
        error = api_error(status, headers, body)
    elif _is_worded_by_the_platform(status, headers, body, has_credentials):
        error = _by_cause(status, headers, body)
    return error


def _is_worded_for_the_handler(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the platform says no more than that the handler raised.

    Azure's and Knative's Python runtimes do so by an empty 500, API Gateway and Function URLs by a
    502.
    """
    return (status == 500 and not body) or (status == 502 and "x-amzn-requestid" in headers)


def _is_worded_by_the_platform(
    status: int, headers: Mapping[str, str], body: bytes, has_credentials: bool
) -> bool:
    start = body[:_READ_BYTES]
    if any(page in start for page in _PAGES):
        return True
    match status:
        case 401 | 403:
            is_refusal = "www-authenticate" in headers or not body
            return has_credentials and is_refusal and not _is_document(body, "error")
        case 404:
            return not body or body.strip() in _WHOLE_BODIES
        case 413 | 429 | 502 | 503 | 504:
            # Proxies word these as text, pages or {"message": ...}; a model has no reason to.
            return not _is_document(body) or _is_document(body, "message", is_all=True)
        case _:
            return False


def _by_cause(status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
    error: AttemptError
    told = f"(status {status})"
    match status:
        case 401 | 403:
            error = PlatformRefusedError(f"the platform refuses the gateway's credentials {told}")
        case 404:
            error = CallRefusedError(f"the platform does not know the function {told}")
        case 413:
            error = EncodedTooLargeError("the platform says that the request is too large")
        case 429 | 503:
            message = f"the platform is busy or throttles the function {told}"
            error = UpstreamRejectedError(message, retry_after_s(headers))
        case 502:
            error = UpstreamBrokenError(f"the platform got no answer from the function {told}")
        case _ if status == 504 or _TOO_SLOW in body[:_READ_BYTES]:
            error = TimeLimitError("the function ran into the platform's time limit")
        case _:
            error = UpstreamBrokenError(f"the platform failed the call {told}")
    return error


def _is_document(body: bytes, key: str = "", *, is_all: bool = False) -> bool:
    """Whether the body is a JSON object, has that key in it, or nothing else."""
    try:
        found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    names = {name.lower() for name in found}
    return names == {key} if is_all else not key or key in names
