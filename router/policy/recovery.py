"""What follows a failed attempt: an answer, another try beside it, or one somewhere else.

The only place that says so. Whoever had the attempt brings the facts and performs the step: pauses,
takes from the retry budget, rules out what failed, and asks `decide` where the next attempt goes.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from router.domain.decision import Backend, Reason
from router.domain.errors import AttemptError, EncodedTooLargeError, UpstreamRejectedError
from router.domain.request import InferenceRequest


class Step(StrEnum):
    """What to do about a failed attempt."""

    ANSWER = "answer"
    """Tell the client: there is no other attempt."""
    ASIDE = "aside"
    """Try another endpoint of the same pool."""
    ELSEWHERE = "elsewhere"
    """Count the backend as one that failed the request, and decide again."""


class Final(StrEnum):
    """Why there is no other attempt."""

    LATE = "late"
    BODY_GONE = "body_gone"
    MAY_HAVE_RUN = "may_have_run"
    USED_UP = "used_up"
    CERTAIN = "certain"
    NO_BUDGET = "no_budget"


@dataclass(frozen=True, slots=True)
class Failure:
    """The facts. `tries` counts this attempt too; `attempts` is how many there may be.

    `can_resend` says that the body is in hand, or has not been touched; `has_budget` that the
    model's retry budget has one left. `has_siblings`: another endpoint of the pool takes traffic
    that has not failed the request. `is_only_backend`: the model has no other one. `failed_before`:
    the backend had been ruled out for this request and was used for want of another.
    """

    error: AttemptError
    backend: Backend
    tries: int
    attempts: int
    can_resend: bool
    has_budget: bool
    has_siblings: bool
    is_only_backend: bool
    failed_before: bool


class Recovery(NamedTuple):
    """The step, and what goes with it.

    `final` goes with ANSWER alone. `costs_retry`: one is to be taken from the budget. `pauses`:
    wait a little, so that requests that failed together do not come back together. `is_certain`:
    the backend would fail the request again, so it is not to be had for want of another. `reason`
    is what the next backend is chosen for after ELSEWHERE. `forgets`: all endpoints have failed
    the request, and each may be asked once more.
    """

    step: Step
    final: Final | None = None
    costs_retry: bool = True
    pauses: bool = False
    is_certain: bool = False
    reason: Reason = Reason.FALLBACK
    forgets: bool = False


def what_follows(failure: Failure, request: InferenceRequest, now: float) -> Recovery:
    """The step that follows; the same facts give the same step."""
    final = _final(failure, request, now)
    if final is not None:
        return Recovery(Step.ANSWER, final, costs_retry=False)
    if failure.has_siblings:
        # The last try is not for one more of a kind that has failed so often.
        is_last = failure.tries + 1 >= failure.attempts
        if not is_last or failure.is_only_backend:
            return Recovery(Step.ASIDE, costs_retry=_costs_retry(failure.error))
    is_certain = failure.error.is_certain
    return Recovery(
        Step.ELSEWHERE,
        costs_retry=_costs_retry(failure.error),
        pauses=not is_certain and (failure.failed_before or failure.is_only_backend),
        is_certain=is_certain,
        reason=_reason(failure.error),
        forgets=failure.backend is Backend.POOL and not failure.has_siblings,
    )


def may_run_again(error: AttemptError, request: InferenceRequest) -> bool:
    """Whether the backend cannot have run the request, or running it twice is harmless."""
    return request.is_idempotent or not error.was_sent


def _final(failure: Failure, request: InferenceRequest, now: float) -> Final | None:
    """Why this was the last attempt; None if another is safe, in time and within bounds."""
    final: Final | None = None
    if request.deadline is not None and now >= request.deadline:
        final = Final.LATE
    elif not failure.can_resend:
        final = Final.BODY_GONE
    elif not _costs_retry(failure.error):
        final = None
    elif failure.tries >= failure.attempts:
        final = Final.USED_UP
    elif not may_run_again(failure.error, request):
        final = Final.MAY_HAVE_RUN
    elif failure.error.is_certain and failure.is_only_backend:
        final = Final.CERTAIN
    elif not failure.has_budget:
        final = Final.NO_BUDGET
    return final


def _costs_retry(error: AttemptError) -> bool:
    """Whether another attempt would be a second one.

    Not after one whose event proved too large: nothing was tried, and the function is ruled out, so
    it cannot come again.
    """
    return not isinstance(error, EncodedTooLargeError)


def _reason(error: AttemptError) -> Reason:
    """The reason under which the next backend gets the request."""
    match error:
        case EncodedTooLargeError():
            return Reason.LIMIT_PAYLOAD
        case UpstreamRejectedError():
            return Reason.SPILLOVER
        case _:
            return Reason.FALLBACK
