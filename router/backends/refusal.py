"""What the status of a model server's answer says: of the request, and of the place that gave it.

One rule for every place a model runs: what the server worded for this one request (its deadline,
its size, its shape) is the model's own answer. It is passed on, never repeated, and by itself never
counts against the place. Pure.
"""

from collections.abc import Iterable

import msgspec

from router.domain.decision import Verdict
from router.domain.errors import AttemptError, OwnWords, UpstreamBrokenError, UpstreamRejectedError

_OVER_IN_QUEUE = frozenset({"Request timeout expired"})
"""Triton words a request's own `timeout` with the status of a full queue (503)."""
_PAUSES = frozenset({"retry-after", "retry-after-ms", "x-should-retry"})
_OF_BODIES = frozenset({"content-type", "content-encoding"})
_NOT_IMPLEMENTED = 501
_LONGEST_ERROR_BYTES = 64 * 1024
"""Reading more would hold up the event loop."""


class _Worded(msgspec.Struct):
    error: object


def refusal_of(
    status: int, body: bytes, who: str, headers: Iterable[tuple[str, str]] = ()
) -> AttemptError | None:
    """The error an answer stands for, None if it is the model's own answer.

    429 and 503 say that there is no capacity, 502 and 504 that something in between broke; a 504
    that is worded as every model server words its errors says that the request's own time is over.
    A 429 is also said to the client, in the server's own words, once nobody else can serve it.
    A 500 is the model's: it would most likely fail everywhere, so it is passed on.
    """
    match status:
        case 429:
            own_words = _own_words(status, headers, body)
            return UpstreamRejectedError(f"{who} is busy (status {status})", own_words=own_words)
        case 503 if _error_of(body) not in _OVER_IN_QUEUE:
            return UpstreamRejectedError(f"{who} is busy (status {status})")
        case 502:
            return UpstreamBrokenError(f"{who} failed (status {status})")
        case 504 if _error_of(body) is None:
            return UpstreamBrokenError(f"{who} failed (status {status})")
        case _:
            return None


def _own_words(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> OwnWords:
    is_told = 0 < len(body) <= _LONGEST_ERROR_BYTES
    names = _PAUSES | _OF_BODIES if is_told else _PAUSES
    kept = tuple(
        (name, value)
        for name, value in headers
        if name.lower() in names or name.lower().startswith("x-ratelimit-")
    )
    return OwnWords(status, kept, body if is_told else b"")


def verdict_of_answer(status: int) -> Verdict:
    """What a model's own answer says about the place that gave it.

    That it works, unless it is an error of the server's own. Such a one may be the request's fault,
    so it counts only beside what other places answer.
    """
    is_good = status < 500 or status == _NOT_IMPLEMENTED
    return Verdict.OK if is_good else Verdict.MODEL_ERROR


def _error_of(body: bytes) -> str | None:
    """What an error of our protocols says; None if it is not worded as one of them is."""
    if len(body) > _LONGEST_ERROR_BYTES:
        return None
    try:
        error = msgspec.json.decode(body, type=_Worded).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return error if isinstance(error, str) else ""
