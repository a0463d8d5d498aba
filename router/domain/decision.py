"""The closed vocabulary of decisions: where a request runs, why, and how it ended.

These enums are the only values that headers, log lines, metrics and `explain` use for them.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import NamedTuple


class Backend(StrEnum):
    """A place where a model can run."""

    SERVERLESS = "serverless"
    POOL = "pool"

    @property
    def other(self) -> "Backend":
        """The alternative to this backend."""
        return Backend.POOL if self is Backend.SERVERLESS else Backend.SERVERLESS


class Reason(StrEnum):
    """Why a request runs where it runs."""

    RULE = "rule"
    LIMIT_PAYLOAD = "limit_payload"
    LIMIT_TIMEOUT = "limit_timeout"
    LIMIT_STREAM = "limit_stream"
    WARM_CAPACITY = "warm_capacity"
    BELOW_BREAK_EVEN = "below_break_even"
    SPILLOVER = "spillover"
    DEADLINE = "deadline"
    POOL_STARTING = "pool_starting"
    BREAKER_OPEN = "breaker_open"
    NO_ENDPOINT = "no_endpoint"
    FALLBACK = "fallback"
    HEDGE = "hedge"
    STICKY = "sticky"
    HINT = "hint"
    STALE_SIGNALS = "stale_signals"
    ONLY_BACKEND = "only_backend"
    EXPLORE = "explore"


REASON_HELP: dict[Reason, str] = {
    Reason.RULE: "a rule names this backend (or its weights drew it)",
    Reason.LIMIT_PAYLOAD: "the encoded payload is over the function's size limit",
    Reason.LIMIT_TIMEOUT: "the expected time is over the function's time limit",
    Reason.LIMIT_STREAM: "the function cannot stream",
    Reason.WARM_CAPACITY: "a running replica has room and meets the deadline, at no extra cost",
    Reason.BELOW_BREAK_EVEN: "traffic is too light to pay for a replica: the function is cheaper",
    Reason.SPILLOVER: "the preferred backend is full, so the other one takes it",
    Reason.DEADLINE: "only this backend meets the deadline, or it is the one that finishes first",
    Reason.POOL_STARTING: "a replica is on its way; the function bridges, or the request is held",
    Reason.BREAKER_OPEN: "the other backend failed again and again, or asked for a pause; or this"
    " one did, and is the only one to wait for",
    Reason.NO_ENDPOINT: "the pool should have replicas but none is healthy",
    Reason.FALLBACK: "the other backend failed this request before, or the model asked for did",
    Reason.HEDGE: "an extra copy, sent because the first attempt is slow",
    Reason.STICKY: "the sequence already lives on this endpoint",
    Reason.HINT: "the client asked for this backend and the configuration allows hints",
    Reason.STALE_SIGNALS: "the shared state is stale and no replica is known: the safe backend",
    Reason.ONLY_BACKEND: "the model has no other backend that is enabled",
    Reason.EXPLORE: "believed too slow, but untried or long untried: a few requests find out",
}


class Cause(StrEnum):
    """Why a backend cannot carry a request."""

    NOT_CONFIGURED = "not_configured"
    DISABLED = "disabled"
    PAYLOAD = "payload"
    TIMEOUT = "timeout"
    STREAM = "stream"
    CONCURRENCY = "concurrency"
    BREAKER_OPEN = "breaker_open"
    NO_REPLICA = "no_replica"
    STARTING = "starting"
    NO_ENDPOINT = "no_endpoint"
    QUEUE_FULL = "queue_full"
    FAILED = "failed"


class Outcome(StrEnum):
    """How a request ended, from the client's point of view."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    MODEL_ERROR = "model_error"
    RATE_LIMITED = "rate_limited"
    SHED = "shed"
    UPSTREAM_FAILED = "upstream_failed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CLIENT_CLOSED = "client_closed"
    INTERNAL_ERROR = "internal_error"


class Verdict(StrEnum):
    """What an attempt says about the backend that had it.

    `model_error` is an error that the model's server answered: it may be the request's fault.
    `cancelled` says nothing; `untried` that the backend never had it.
    """

    OK = "ok"
    MODEL_ERROR = "model_error"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    UNTRIED = "untried"


class TraceStep(NamedTuple):
    """One line of an explanation: the stage that spoke, its subject, and what it said."""

    stage: str
    subject: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one attempt of a request goes, and why.

    `hold` says that no slot is free now: the request waits in the backend's queue. `price_usd` is
    the extra money this attempt is expected to cost, `finish_s` its predicted time from now.
    A request that is held waits for `patience_s` at most, and is then decided anew; one that
    is held `anywhere` takes the first capacity that appears, on either side.
    """

    backend: Backend
    reason: Reason
    rule: str
    hold: bool = False
    finish_s: float = 0.0
    price_usd: float = 0.0
    trace: tuple[TraceStep, ...] = ()
    patience_s: float = inf
    anywhere: bool = False
