"""One request as the data port sees it: its clock, what it became, and its line in log and metrics.

Collects while the request runs; writes exactly once at its end.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from router.dispatch.attempts import Record
from router.domain.decision import Outcome
from router.domain.request import InferenceRequest, Protocol
from router.domain.tokens import Tokens
from router.domain.trace_context import trace_id_of
from router.gateway.cors import TOLD_HERE
from router.gateway.protocols.oip import OIP
from router.gateway.relay import is_relayed
from router.gateway.responses import CLIENT_CLOSED, cause_of, code_of
from router.gateway.variant import Assignment, Variant
from router.telemetry.logs import AccessLog, AccessRecord
from router.telemetry.metrics import Metrics
from router.telemetry.tracer import Tracer


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where finished requests are counted and logged, and their traces kept."""

    metrics: Metrics
    access_log: AccessLog
    tracer: Tracer


@dataclass(slots=True)
class Exchange:
    """What is known of a request so far. `read_s` is time spent waiting for its body.

    `model` and `version` are those that answer; `asked_model` is the one that the client named,
    where another one might have answered. `is_copied` says that a shadow is to get a copy of a
    request that is resumed. `key` is the name of the caller's key, `error` what the gateway itself
    answered, `tokens` what its answer says it took. `cors` is what browsers are told, in the
    answer's head.
    """

    request_id: str
    received_at: float
    protocol: Protocol = OIP
    model: str | None = None
    version: str | None = None
    asked_model: str | None = None
    assignment: Assignment | None = None
    key: str = ""
    traceparent: str = ""
    payload_bytes: int = 0
    deadline_ms: float | None = None
    request: InferenceRequest | None = None
    record: Record = field(default_factory=Record)
    read_s: float = 0.0
    status: int = 0
    outcome: Outcome = Outcome.OK
    cors: list[tuple[str, str]] = field(default_factory=list)
    error: Exception | None = None
    is_copied: bool = False
    tokens: Tokens | None = None

    @property
    def is_resumed(self) -> bool:
        """Whether the fast path has tried this request already."""
        return self.record.is_counted

    def assign(self, variant: Variant) -> None:
        """Note who answers."""
        if variant.assignment is not None:
            self.asked_model = self.model
            self.assignment = variant.assignment
            self.model, self.version = variant.model.name, variant.request.version

    @property
    def answered_by(self) -> str:
        """The model that has answered, or was the last that could not."""
        return self.record.passed_to or self.model or ""

    def router_s(self, now: float) -> float:
        """Seconds so far that the gateway itself is answerable for."""
        waited_s = self.record.upstream_s + self.record.queue_s + self.read_s
        return max(0.0, now - self.received_at - waited_s)

    def headers(self, now: float) -> list[tuple[str, str]]:
        """The response headers that say what the gateway did."""
        record = self.record
        headers = [("x-request-id", self.request_id)]
        if record.decision is not None:
            headers += [
                ("x-router-backend", record.decision.backend),
                ("x-router-reason", record.decision.reason),
            ]
        if record.passed_to is not None:
            headers.append(("x-router-model", record.passed_to))
        elif self.asked_model is not None:
            headers.append(("x-router-model", self.model or ""))
            if self.version is not None:
                headers.append(("x-router-model-version", self.version))
        if record.attempts:
            headers += [
                ("x-router-endpoint", record.endpoint_id),
                ("x-router-attempts", str(record.attempts)),
            ]
        if record.cold_start is not None:
            headers.append(("x-router-cold-start", "true" if record.cold_start else "false"))
        router_ms, upstream_ms = self.router_s(now) * 1e3, record.upstream_s * 1e3
        timing = f"router;dur={router_ms:.3f}, upstream;dur={upstream_ms:.3f}"
        headers.append(("server-timing", timing))
        return headers + self.cors

    def relayed(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The headers of a backend's answer that this client gets."""
        passed = [header for header in headers if is_relayed(header[0])]
        if self.cors:
            passed = [each for each in passed if not each[0].lower().startswith(TOLD_HERE)]
        return passed

    def finish(self, now: float, telemetry: Telemetry) -> None:
        """Count and log the request; called once, however it ended."""
        record, decision = self.record, self.record.decision
        total_s = now - self.received_at
        backend = decision.backend if decision is not None else None
        metrics = telemetry.metrics
        metrics.record_request(self.answered_by, backend, self.outcome, total_s, self.router_s(now))
        metrics.record_caller(
            record.tenant, self.answered_by, self.outcome, total_s - self.read_s,
            is_cold=bool(record.cold_start),
        )  # fmt: skip
        if self.error is not None and (code := code_of(self.error)) is not None:
            metrics.record_refusal(self.key, code)
        if self.tokens is not None:
            metrics.record_tokens(record.tenant, self.tokens)
        logged = self.access_record(total_s)
        telemetry.access_log.record(logged)
        self.end_trace(logged, now, telemetry.tracer)
        if self.assignment is not None:
            self.assignment.ended(self._assigned_outcome, total_s - self.read_s, now)

    def end_trace(self, logged: AccessRecord, now: float, tracer: Tracer) -> None:
        """Hand over the trace, if there is one; `logged` is what the log says of the request."""
        if self.record.trace is not None:
            tracer.ended(self.record.trace, logged, self.received_at, now, self.read_s)

    def access_record(self, total_s: float) -> AccessRecord:
        """What is logged of it."""
        record, decision, error = self.record, self.record.decision, self.error
        return AccessRecord(
            request_id=self.request_id,
            protocol=self.protocol.name,
            model=self.answered_by,
            version=self.version if record.passed_to is None else None,
            tenant=record.tenant or None,
            payload_bytes=self.payload_bytes,
            backend=decision.backend if decision is not None else None,
            reason=decision.reason if decision is not None else None,
            rule=decision.rule if decision is not None else None,
            endpoint=record.endpoint_id or None,
            attempts=record.attempts,
            status=self.status,
            outcome=self.outcome,
            cold_start=record.cold_start,
            total_ms=round(total_s * 1e3, 3),
            upstream_ms=round(record.upstream_s * 1e3, 3),
            queue_ms=round(record.queue_s * 1e3, 3),
            deadline_ms=self.deadline_ms,
            cost_usd=round(record.cost_usd, 12),
            asked_model=self.asked_model or (self.model if record.passed_to else None),
            error=None if error is None else code_of(error),
            cause=None if error is None else cause_of(error),
            trace_id=self._trace_id,
            gb_s=round(record.gb_s, 9) if record.gb_s else None,
            input_tokens=None if self.tokens is None else self.tokens.input,
            output_tokens=None if self.tokens is None else self.tokens.output,
        )

    @property
    def _trace_id(self) -> str | None:
        if self.record.trace is not None:
            return self.record.trace.own.trace_id
        return trace_id_of(self.traceparent) if self.traceparent else None

    def client_left(self) -> None:
        """The client went away before it had its answer."""
        self.outcome, self.status = Outcome.CLIENT_CLOSED, CLIENT_CLOSED

    @property
    def _assigned_outcome(self) -> Outcome:
        """How the request ended for who got it first: an answer by another is none of its own."""
        return self.outcome if self.record.passed_to is None else Outcome.UPSTREAM_FAILED
