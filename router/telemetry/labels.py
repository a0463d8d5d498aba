"""Label values that only metrics use; the other labels are the enums of `domain.decision`.

Decides how an attempt's error is named. Never builds a label from text.
"""

from enum import StrEnum

from router.domain.decision import Outcome
from router.domain.errors import (
    AnswerTooLargeError,
    AttemptError,
    CallRefusedError,
    ConnectFailedError,
    EncodedTooLargeError,
    FunctionUnfitError,
    ModelFailedError,
    PlatformRefusedError,
    ResponseLostError,
    TimeLimitError,
    UpstreamBrokenError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)


class AttemptResult(StrEnum):
    """How one attempt ended, from the router's point of view."""

    OK = "ok"
    CONNECT_FAILED = "connect_failed"
    RESPONSE_LOST = "response_lost"
    TIMEOUT = "timeout"
    TIME_LIMIT = "time_limit"
    REJECTED = "rejected"
    ENCODED_TOO_LARGE = "encoded_too_large"
    ANSWER_TOO_LARGE = "answer_too_large"
    MODEL_FAILED = "model_failed"
    BROKEN = "broken"
    ACCESS_REFUSED = "access_refused"
    CANCELLED = "cancelled"
    FAILED = "failed"


class HedgeResult(StrEnum):
    """What came of a wish to hedge: which attempt answered first, or why there was one only."""

    WON = "won"
    LOST = "lost"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NO_BUDGET = "no_budget"
    NO_PLACE = "no_place"


class CostPart(StrEnum):
    """What the money was spent on; the parts of a model add up to its estimated bill."""

    SERVERLESS = "serverless"
    WARM_BUSY = "warm_busy"
    WARM_IDLE = "warm_idle"
    KEPT_WARM = "kept_warm"


class Alternative(StrEnum):
    """What the same requests might have run on instead (see `policy.alternatives`)."""

    ALWAYS_SERVERLESS = "always_serverless"
    ALWAYS_WARM = "always_warm"


class ObjectiveResult(StrEnum):
    """What became of a model's objective with one request."""

    MET = "met"
    LATE = "late"
    COLD = "cold"
    FAILED = "failed"


_FAILURES = frozenset(
    {Outcome.SHED, Outcome.UPSTREAM_FAILED, Outcome.DEADLINE_EXCEEDED, Outcome.INTERNAL_ERROR}
)


def objective_results(outcome: Outcome) -> tuple[ObjectiveResult, ObjectiveResult] | None:
    """The results of a request that ended so, in time and late; None: it says nothing.

    What clients or models got wrong says nothing of the gateway, and neither does who went away.
    """
    if outcome is Outcome.OK:
        return ObjectiveResult.MET, ObjectiveResult.LATE
    return (ObjectiveResult.FAILED, ObjectiveResult.FAILED) if outcome in _FAILURES else None


_RESULTS: dict[type[AttemptError], AttemptResult] = {
    ConnectFailedError: AttemptResult.CONNECT_FAILED,
    ResponseLostError: AttemptResult.RESPONSE_LOST,
    UpstreamTimeoutError: AttemptResult.TIMEOUT,
    TimeLimitError: AttemptResult.TIME_LIMIT,
    UpstreamRejectedError: AttemptResult.REJECTED,
    EncodedTooLargeError: AttemptResult.ENCODED_TOO_LARGE,
    AnswerTooLargeError: AttemptResult.ANSWER_TOO_LARGE,
    ModelFailedError: AttemptResult.MODEL_FAILED,
    FunctionUnfitError: AttemptResult.BROKEN,
    UpstreamBrokenError: AttemptResult.BROKEN,
    PlatformRefusedError: AttemptResult.ACCESS_REFUSED,
    CallRefusedError: AttemptResult.ACCESS_REFUSED,
}


def attempt_result(error: AttemptError) -> AttemptResult:
    """The result that `error` stands for; `failed` where no name is more specific."""
    return _RESULTS.get(type(error), AttemptResult.FAILED)


class SpanResult(StrEnum):
    """What became of spans that were to go to the collector."""

    SENT = "sent"
    REJECTED = "rejected"
    FAILED = "failed"
    QUEUE_FULL = "queue_full"


class StallCause(StrEnum):
    """What kept the event loop, as far as can be told."""

    WORK = "work"
    """The loop's own thread computed."""
    MACHINE = "machine"
    """The thread had to wait: for a core, or for another thread of the process."""
    COLLECTION = "collection"
    """Garbage was collected; part of the work as well."""
