"""Begins the traces of requests, says which are kept, and holds those until they are sent.

Of a request that is not kept, only the lines of its head are made anew: everything else is worked
out when it has ended. Nothing here waits, and what is held is bounded; what finds no room is
dropped and counted.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from random import Random
from typing import NamedTuple

from msgspec.structs import replace

from router.domain.decision import Backend, Decision, Reason
from router.domain.trace_context import (
    SAMPLED,
    TraceParent,
    begun,
    continued,
    is_sampled,
    read_lines,
    read_traceparent,
    told,
)
from router.telemetry.labels import AttemptResult, SpanResult
from router.telemetry.logs import AccessRecord, Answered
from router.telemetry.metrics import Metrics
from router.telemetry.trace import FAILED, Asked, Kept, Span, Trace

MAX_HELD = 4096
"""Traces that wait to be sent; a few kilobytes each at most."""
BATCH = 512
"""So many are sent at once, and as soon as there are so many."""
_RANDOM = 2**56 - 1
"""The bits of a trace's id by which a share is drawn: those that level 2 says are random."""


class Keeping(NamedTuple):
    """Which traces are kept: a `share` of those that begin here, and what `tail` says.

    `objectives_s` has what each model promises: a request that takes longer is slow.
    """

    share: float
    tail: frozenset[Kept]
    objectives_s: Mapping[str, float]


class EndedTrace(NamedTuple):
    """A request whose spans are to be sent. `kept` says why; times are monotonic seconds."""

    parent: TraceParent | None
    own: TraceParent
    asked: Asked
    kept: Kept
    start: float
    end: float
    record: AccessRecord
    spans: Sequence[Span]


class Tracer:
    """The traces of one gateway process. All of it belongs to the event loop's thread."""

    def __init__(self, metrics: Metrics, rng: Random) -> None:
        self._metrics = metrics
        self._bits = rng.getrandbits
        self._keeping: Keeping | None = None
        self._below = 0
        self._held: deque[EndedTrace] = deque()
        self.is_on = False
        self.has_some = asyncio.Event()
        self.has_many = asyncio.Event()

    def configure(self, keeping: Keeping | None) -> None:
        """Trace from now on, or (None) no longer; what is held is still to be sent."""
        self._keeping = keeping
        self.is_on = keeping is not None
        self._below = round(keeping.share * (_RANDOM + 1)) if keeping is not None else 0

    # -- requests that begin ---------------------------------------------------------------------

    def lines(self, came: bytes) -> bytes:
        """The lines about the trace that an attempt sends in place of those that came."""
        span_id = self._bits(64) or 1
        made = continued(came, span_id)
        if made is not None:
            return made
        parent = read_lines(came) if came else None
        if parent is None:
            trace_id = self._bits(128) or 1
            return begun(trace_id, span_id, self._drawn(trace_id))
        return told(parent._replace(parent_id=f"{span_id:016x}")) + came.partition(b"\r\n")[2]

    def begin(self, traceparent: str) -> Trace | None:
        """The trace of a request with that header; None where nothing is traced."""
        if not self.is_on:
            return None
        parent = read_traceparent(traceparent)
        return Trace(parent, self._own(parent), self._draw)

    def resumed(self, came: bytes, sent: bytes) -> Trace:
        """The trace of a request whose first attempt has sent the lines that `lines` has made."""
        attempt = read_lines(sent)
        assert attempt is not None  # noqa: S101  it was made here
        return Trace(read_lines(came), self._named(attempt), self._draw, attempt.parent_id)

    def _own(self, parent: TraceParent | None) -> TraceParent:
        if parent is not None:
            return self._named(parent)
        trace_id = self._bits(128) or 1
        return TraceParent(f"{trace_id:032x}", self._draw(), self._drawn(trace_id))

    def _drawn(self, trace_id: int) -> int:
        """The flags of a trace that begins here."""
        return SAMPLED if trace_id & _RANDOM < self._below else 0

    def _named(self, parent: TraceParent) -> TraceParent:
        return parent._replace(parent_id=self._draw())

    def _draw(self) -> str:
        return f"{self._bits(64) or 1:016x}"

    # -- requests that have ended ----------------------------------------------------------------

    def ended(
        self, trace: Trace, record: AccessRecord, start: float, end: float, read_s: float = 0.0
    ) -> None:
        """A request has ended: keep its trace, or forget it.

        `read_s` is what its client kept the gateway waiting for.
        """
        keeping = self._keeping
        if keeping is None:
            return
        kept = Kept.HEAD if trace.is_sampled else None
        if kept is None:
            is_slow = end - start - read_s > keeping.objectives_s.get(record.model, inf)
            found = trace.tail(record.status, is_slow=is_slow)
            kept = next((why for why in found if why in keeping.tail), None)
        if kept is not None:
            own = trace.own
            self._keep(
                EndedTrace(trace.parent, own, trace.asked, kept, start, end, record, trace.spans)
            )

    def ended_alike(
        self, asked: Asked, record: AccessRecord, usd_per_s: float, ended: Iterable[Answered]
    ) -> None:
        """As `ended` for requests that were answered at once, alike but for what is `Answered`."""
        keeping = self._keeping
        if keeping is None:
            return
        tail = keeping.tail
        kept = Kept.ERRORS if record.status >= FAILED and Kept.ERRORS in tail else None
        if kept is None and record.cold_start and Kept.COLD in tail:
            kept = Kept.COLD
        slow_s = keeping.objectives_s.get(record.model, inf) if Kept.SLOW in tail else inf
        for each in ended:
            came, sent = each[7:9]
            if sent is came:  # before tracing was turned on
                continue
            if is_sampled(sent):
                self._keep(self._alike(Kept.HEAD, asked, record, usd_per_s, each))
            elif kept is not None or each[2] > slow_s:
                self._keep(self._alike(kept or Kept.SLOW, asked, record, usd_per_s, each))

    def _alike(
        self, kept: Kept, asked: Asked, record: AccessRecord, usd_per_s: float, each: Answered
    ) -> EndedTrace:
        request_id, end, total_s, upstream_s, _, size, deadline_ms = each[:7]
        came, lines, init_s, tokens, spent = each[7:]
        trace = self.resumed(came, lines)
        start, sent_at = end - total_s, end - upstream_s
        decision = Decision(
            Backend(record.backend or ""), Reason(record.reason or ""), record.rule or ""
        )
        trace.decided(decision, start, sent_at)
        sent = trace.sent_as_told(record.model, decision, record.endpoint or "", sent_at)
        trace.attempted(sent, AttemptResult.OK, end, record.status)
        if record.cold_start:
            trace.started_cold(sent, end, init_s)
        own_record = replace(
            record, request_id=request_id.decode("ascii"), payload_bytes=size,
            deadline_ms=deadline_ms,
            cost_usd=total_s * usd_per_s + (0.0 if spent is None else spent.call_usd),
            input_tokens=None if tokens is None else tokens.input,
            output_tokens=None if tokens is None else tokens.output,
        )  # fmt: skip
        return EndedTrace(trace.parent, trace.own, asked, kept, start, end, own_record, trace.spans)

    def _keep(self, ended: EndedTrace) -> None:
        if len(self._held) >= MAX_HELD:
            self._metrics.record_spans(SpanResult.QUEUE_FULL, 1 + len(ended.spans))
            return
        self._held.append(ended)
        record, took_s = ended.record, ended.end - ended.start
        self._metrics.exemplify(record.model, record.backend or "", took_s, ended.own.trace_id)
        self.has_some.set()
        if len(self._held) >= BATCH:
            self.has_many.set()

    def take(self) -> list[EndedTrace]:
        """The oldest of those that wait, to be sent."""
        taken = [self._held.popleft() for _ in range(min(BATCH, len(self._held)))]
        if not self._held:
            self.has_some.clear()
        if len(self._held) < BATCH:
            self.has_many.clear()
        return taken
