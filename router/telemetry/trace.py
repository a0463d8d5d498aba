"""One request's trace while it runs: its ids, and what has happened to it so far, as plain tuples.

Nothing is encoded here: `otlp` does that in the background, for the traces that are kept.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from router.domain.decision import Decision, Reason
from router.domain.request import Protocol
from router.domain.trace_context import TraceParent, passed_on
from router.telemetry.labels import AttemptResult

FAILED = 500
"""Statuses from here on are failures of the server's side."""
MAX_SPANS = 64
"""Of one request; what comes after them is left out."""

Value = str | int | float | bool
Attributes = tuple[tuple[str, Value], ...]


class Step(StrEnum):
    """What a span below the request's own is about."""

    DECISION = "decision"
    QUEUE = "queue"
    ATTEMPT = "attempt"
    COLD_START = "cold_start"


class Kept(StrEnum):
    """Why a trace is kept: its head was drawn, or how the request ended."""

    HEAD = "head"
    ERRORS = "errors"
    SLOW = "slow"
    COLD = "cold"
    HEDGED = "hedged"


class Span(NamedTuple):
    """One step of a request; times are monotonic seconds, `error` is empty where all went well.

    `span_id` is empty where nobody was told it, `parent_id` for a child of the request's own span.
    """

    step: Step
    start: float
    end: float
    attributes: Attributes = ()
    span_id: str = ""
    parent_id: str = ""
    error: str = ""


class Asked(NamedTuple):
    """What kind of request it is: method, route, and the operation as GenAI's conventions name it.

    `operation` is empty for what these have no name for.
    """

    method: str = ""
    route: str = ""
    operation: str = ""


_OPERATIONS = {
    "chat/completions": "chat",
    "messages": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
_MODEL = "MODEL"


@lru_cache(maxsize=256)
def asked(protocol: Protocol, action: str, method: str) -> Asked:
    """Of such a request; all of its names are the protocol's own."""
    route = protocol.path(action, _MODEL, None).replace(_MODEL, "{model}")
    return Asked(method, route, _OPERATIONS.get(action, ""))


class Sent(NamedTuple):
    """An attempt that is under way: its span's id, which one it is, since when, where, and why."""

    span_id: str
    number: int
    started: float
    model: str
    decision: Decision
    endpoint_id: str


class Trace:
    """The trace that one request is part of, and the gateway's own spans in it.

    `parent` is the client's span, None where the trace begins here; `own` names the request's span.
    `told_id` is the id of its first attempt's, where that was sent before there was this object.
    """

    __slots__ = ("_draw", "_number", "_told_id", "asked", "own", "parent", "spans")

    def __init__(
        self,
        parent: TraceParent | None,
        own: TraceParent,
        draw: Callable[[], str],
        told_id: str = "",
    ) -> None:
        self.parent = parent
        self.own = own
        self._draw = draw
        self._number = 0
        self._told_id = told_id
        self.asked = Asked()
        self.spans: list[Span] = []

    @property
    def is_sampled(self) -> bool:
        """Whether it is recorded whatever comes of it."""
        return self.own.is_sampled

    def headers(self, headers: Mapping[str, str], sent: Sent) -> dict[str, str]:
        """Those of a request, as that attempt sends them."""
        by_attempt = self.own._replace(parent_id=sent.span_id)
        return passed_on(headers, by_attempt, is_new=self.parent is None)

    # -- what happens ----------------------------------------------------------------------------

    def decided(self, decision: Decision, start: float, end: float) -> None:
        """A decision was taken."""
        facts = (*_where(decision), ("router.rule", decision.rule), ("router.hold", decision.hold))
        self._add(Span(Step.DECISION, start, end, facts))

    def queued(self, decision: Decision, start: float, end: float) -> None:
        """The request has waited for a slot, whether or not one came."""
        self._add(Span(Step.QUEUE, start, end, _where(decision)))

    def sending(self, model: str, decision: Decision, endpoint_id: str, now: float) -> Sent:
        """An attempt begins."""
        self._number += 1
        return Sent(self._draw(), self._number, now, model, decision, endpoint_id)

    def sent_as_told(self, model: str, decision: Decision, endpoint_id: str, at: float) -> Sent:
        """As `sending`, for the first attempt, which began then and has told its id."""
        sent = self.sending(model, decision, endpoint_id, at)
        return sent._replace(span_id=self._told_id)

    def attempted(self, sent: Sent, result: AttemptResult, end: float, status: int | None) -> None:
        """An attempt has ended; `status` is that of its answer, None without one."""
        self._add(attempt_span(sent, result, end, status))

    def started_cold(self, sent: Sent, end: float, init_s: float | None) -> None:
        """An attempt that ended then began with a cold start, of unknown length if None."""
        warm_at = end if init_s is None else min(end, sent.started + init_s)
        self._add(Span(Step.COLD_START, sent.started, warm_at, parent_id=sent.span_id))

    def _add(self, span: Span) -> None:
        if len(self.spans) < MAX_SPANS:
            self.spans.append(span)

    # -- what has come of it ---------------------------------------------------------------------

    def tail(self, status: int, *, is_slow: bool) -> Iterator[Kept]:
        """What makes it worth keeping, now that the request has been answered."""
        if status >= FAILED or any(span.error for span in self.spans):
            yield Kept.ERRORS
        if is_slow:
            yield Kept.SLOW
        if any(span.step is Step.COLD_START for span in self.spans):
            yield Kept.COLD
        if any(_HEDGED in span.attributes for span in self.spans):
            yield Kept.HEDGED


def attempt_span(sent: Sent, result: AttemptResult, end: float, status: int | None) -> Span:
    """The span of an attempt that has ended, as `Trace.attempted` notes it."""
    decision = sent.decision
    facts: Attributes = (
        *_where(decision),
        ("router.endpoint", sent.endpoint_id),
        ("router.attempt", sent.number),
        ("router.result", result.value),
        ("router.model", sent.model),
    )
    if status is not None:
        facts = (*facts, ("http.response.status_code", status))
    is_failed = result not in {AttemptResult.OK, AttemptResult.CANCELLED}
    error = result.value if is_failed else str(status) if (status or 0) >= FAILED else ""
    return Span(Step.ATTEMPT, sent.started, end, facts, sent.span_id, error=error)


def _where(decision: Decision) -> Attributes:
    return ("router.backend", decision.backend.value), ("router.reason", decision.reason.value)


_HEDGED = ("router.reason", Reason.HEDGE.value)
