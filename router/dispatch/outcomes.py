"""How a request that failed is counted."""

import asyncio

from router.domain.decision import Outcome
from router.domain.errors import (
    AttemptError,
    ClientClosedError,
    DeadlineExceededError,
    RateLimitedError,
    RouterError,
    ShedError,
    UpstreamRejectedError,
)

_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (asyncio.CancelledError, Outcome.CLIENT_CLOSED),
    (ClientClosedError, Outcome.CLIENT_CLOSED),
    (DeadlineExceededError, Outcome.DEADLINE_EXCEEDED),
    (RateLimitedError, Outcome.RATE_LIMITED),
    (ShedError, Outcome.SHED),
    (UpstreamRejectedError, Outcome.SHED),
    (AttemptError, Outcome.UPSTREAM_FAILED),
    (RouterError, Outcome.CLIENT_ERROR),
)


def outcome_of(error: BaseException) -> Outcome:
    """The outcome that a failure counts as."""
    for kind, outcome in _OUTCOMES:
        if isinstance(error, kind):
            return outcome
    return Outcome.INTERNAL_ERROR
