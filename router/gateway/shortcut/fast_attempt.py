"""One request of the fast path at one place, by the callbacks of its connection.

Ends in a reply, or hands the request over to the ordinary path with what is known of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Protocol as Interface

import numpy as np
from msgspec.structs import replace

from router.dispatch.attempts import Attempts, Record, verdict_of
from router.dispatch.hedging import Hedger
from router.dispatch.outcomes import outcome_of
from router.domain.clock import Clock
from router.domain.decision import Backend, Outcome, Reason, Verdict
from router.domain.errors import (
    AnswerTooLargeError,
    AttemptError,
    ConnectFailedError,
    ResponseLostError,
)
from router.domain.spent import Spent
from router.domain.tokens import Tokens
from router.domain.trace_context import read_lines
from router.gateway.body import BodyBudget
from router.gateway.exchange import Exchange, Telemetry
from router.gateway.responses import CLIENT_CLOSED, outcome_of_status
from router.gateway.shortcut.fast_reply import ReplyStarts
from router.gateway.shortcut.fast_route import Route
from router.gateway.shortcut.fast_stream import AnswerStream, Reader
from router.gateway.shortcut.fast_tally import Tally
from router.gateway.shortcut.fast_way import Answer, Place, Reading
from router.gateway.shortcut.known_heads import Sorted
from router.gateway.usage import TELLING_BELOW, tokens_of
from router.shadow.copies import Shadows
from router.telemetry.labels import AttemptResult, attempt_result
from router.telemetry.logs import AccessRecord
from router.telemetry.trace import Sent, Trace, asked
from router.upstream.client import UpstreamClient
from router.upstream.connection import Connection
from router.upstream.deadlines import DeadlineWheel
from router.upstream.response_head import ResponseHead

MAX_ANSWER_BYTES = 64 * 1024
"""A larger answer is passed on as it comes."""
OWN_LINES = b"%bx-request-id: %b\r\nserver-timing: router;dur=%.3f, upstream;dur=%.3f\r\n"
_VARIABLE_LINES = OWN_LINES + b"content-length: %d\r\n\r\n"
_VARIABLE_LINES_OF_STREAM = OWN_LINES + b"%b\r\n\r\n"
_NO_CONTENT = 204
_BAD = 400
_HEDGE_TICK_S = 0.002
"""How coarse the wheel of hedges is: what is to be hedged is often a matter of milliseconds."""
CLOSE = b"connection: close\r\n"


class Client(Reader, Interface):
    """The client's connection, as the fast path uses it."""

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends with this response."""
        ...

    def reply(self, data: bytes) -> None:
        """Send a whole response, or the end of one; the connection is then free again."""
        ...

    def abort(self) -> None:
        """Break off a response that cannot be completed."""
        ...

    def hand_over(self, carried: "Carried") -> None:
        """Let the ordinary path have the request; `carried` is what is known of it."""
        ...


@dataclass(frozen=True, slots=True)
class Carried:
    """A request that began on the fast path and goes on as an ordinary one.

    `is_copied` says that a shadow was to get a copy of it, and still is.
    """

    request_id: str
    received_at: float
    record: Record
    is_copied: bool = False

    def exchange(self) -> Exchange:
        """The request as the ordinary path goes on with it."""
        return Exchange(
            self.request_id, self.received_at, record=self.record, is_copied=self.is_copied
        )


class Ground:
    """What all attempts share: where they send, count and log, and what they hold."""

    def __init__(
        self,
        upstream: UpstreamClient,
        telemetry: Telemetry,
        bodies: BodyBudget,
        clock: Clock,
        hedger: Hedger,
        shadows: Shadows,
    ) -> None:
        self.clock = clock
        self.shadows = shadows
        self.hedger = hedger
        self.hedges = DeadlineWheel(clock, _HEDGE_TICK_S)
        self.telemetry = telemetry
        self.tally = Tally(telemetry, clock)
        self.metrics = telemetry.metrics
        self.attempts = Attempts(telemetry.metrics, clock)
        self.access_log = telemetry.access_log
        self.tracer = telemetry.tracer
        self.upstream = upstream
        self.bodies = bodies
        self.in_flight = 0
        self.starts = ReplyStarts()


class Attempt:
    """One request at one place, as the upstream connection reports it (a `Sink`)."""

    __slots__ = (
        "_body", "_client", "_connection", "_ground", "_head", "_is_connected", "_place",
        "_reading", "_reason",
        "_request_id", "_response", "_route", "_sent", "_started", "_stream", "_tick", "_waited_s",
        "_wheel",
    )  # fmt: skip

    def __init__(
        self, ground: Ground, client: Client, head: Sorted, route: Route, reason: Reason
    ) -> None:
        self._ground = ground
        self._client = client
        self._head = head
        self._route = route
        self._reason = reason
        self._response: ResponseHead | None = None
        self._body = b""
        self._stream: AnswerStream | None = None
        self._reading: Reading | None = None
        self._is_connected = False
        self._tick: int | None = None
        self._waited_s = 0.0  # for the client, while the place had nothing to do

    def begin(self, place: Place, body: bytes, request_id: bytes, now: float) -> None:
        """Send the request once there is a connection; the slot is the attempt's to release.

        The body budget has room for it: whoever calls has asked.
        """
        self._place = place
        self._request_id = request_id
        self._started = self._sent = now
        ground = self._ground
        ground.in_flight += 1
        ground.bodies.held_bytes += self._held_bytes
        connection = ground.upstream.connection(place.address, self, place.connect_timeout_s)
        if connection is not None:
            self._send(connection, body)
        else:
            self._body = body
            self._wait_for_connection()

    @property
    def backend(self) -> Backend:
        """Where it is tried."""
        return self._place.way.backend

    @property
    def _is_copied(self) -> bool:
        """Whether a shadow gets a copy."""
        return False

    @property
    def _held_bytes(self) -> int:
        """What the body takes of the budget."""
        return self._head.body_bytes

    def _wait_for_connection(self) -> None:
        """Nothing to do meanwhile, but for a deadline."""
        if self._head.deadline_ms is not None:
            self._wheel = self._ground.upstream.wheel
            self._tick = self._wheel.arm(self._bounded(inf), self)

    def expire(self) -> None:
        """The client's deadline has passed before there was a connection."""
        self._tick = None
        if not self._is_connected:
            self._ground.upstream.forget(self._place.address, self)
            self.on_not_connected(ConnectFailedError("the upstream could not be reached in time"))

    def on_connected(self, connection: Connection) -> None:
        """Send the request that has waited for this."""
        body, self._body = self._body, b""
        self._send(connection, body)

    def on_not_connected(self, error: AttemptError) -> None:
        """Hand over what went wrong."""
        self._body = b""
        self._go_on_after(error)

    def _send(self, connection: Connection, body: bytes) -> None:
        self._connection, self._is_connected, place = connection, True, self._place
        raw_head, body = place.message(self._head, self._request_id, body)
        connection.start(raw_head, body, self, self._bounded(self._started + place.timeout_s))
        self._sent = self._ground.clock()

    def _bounded(self, until: float) -> float:
        """The sooner one of `until` and the client's own deadline."""
        asked_ms = self._head.deadline_ms
        return until if asked_ms is None else min(until, self._started + asked_ms / 1e3)

    @property
    def _is_late(self) -> bool:
        """Whether the client's own deadline has passed."""
        asked_ms = self._head.deadline_ms
        return asked_ms is not None and self._ground.clock() >= self._started + asked_ms / 1e3

    # -- what the upstream connection reports ---------------------------------------------------

    def on_answer(self, head: ResponseHead, body: bytes) -> None:
        """Reply, or hand over what went wrong."""
        try:
            head, body = self._place.understood(head, body)
        except AttemptError as error:
            self._go_on_after(error)
        else:
            self._reply(head, body)

    def on_head(self, head: ResponseHead) -> None:
        """Keep the head, or begin to pass on an answer that is long or comes bit by bit."""
        self._response = head
        length = head.content_length
        if head.is_event_stream or length is None or length > MAX_ANSWER_BYTES:
            self._look_at_long(head)

    def on_data(self, data: bytes) -> None:
        """Collect, or pass on to the stream."""
        stream = self._stream
        if stream is None:
            self._body = self._body + data if self._body else data
            if len(self._body) > MAX_ANSWER_BYTES and self._response is not None:
                self._look_at_long(self._response)
        elif stream.passed_bytes + len(data) <= self._place.max_answer_bytes:
            stream.push(data)
        else:
            limit = self._place.max_answer_bytes
            self._connection.fail(AnswerTooLargeError(f"the answer is over {limit} bytes"))

    def on_done(self, error: AttemptError | None) -> None:
        """Reply, or hand over what went wrong."""
        if self._stream is not None:
            self._end_stream(self._stream, error)
            return
        response = self._response
        if error is not None or response is None:
            self._go_on_after(error or ResponseLostError("the upstream gave no answer"))
        else:
            self._reading = self._place.read(response, self._body, self._on_read)

    def on_client_ready(self) -> None:
        """The client takes more of its answer."""
        if self._stream is not None:
            self._stream.resume()

    def client_gone(self) -> None:
        """The client has closed its connection: so does the upstream's work end."""
        if self._reading is not None:
            self._reading.cancel()
        if self._is_connected:
            self._connection.cancel()
        else:
            self._ground.upstream.forget(self._place.address, self)
        now = self._ground.clock()
        self._settle(Verdict.CANCELLED, AttemptResult.CANCELLED, now)
        total_s, upstream_s = now - self._started, now - self._sent
        self._count(Outcome.CLIENT_CLOSED, total_s, upstream_s)
        times = total_s, upstream_s
        self._log(CLIENT_CLOSED, Outcome.CLIENT_CLOSED, times, AttemptResult.CANCELLED)

    def _look_at_long(self, head: ResponseHead) -> None:
        """Pass a long answer on from here, if it is one to pass on."""
        start = self._body
        try:
            is_passed = self._place.passes_on(head, len(start), start)
        except AttemptError as error:
            self._connection.cancel()
            self._go_on_after(error)
            return
        if is_passed:
            self._body = b""
            self._begin_stream(head)
            if start and self._stream is not None:
                self._stream.push(start)

    def _on_read(self, read: Callable[[], Answer]) -> None:
        self._reading = None
        try:
            answer = read()
        except AttemptError as error:
            self._go_on_after(error)
        else:
            self._reply(*answer)

    # -- ways out -------------------------------------------------------------------------------

    def _reply(self, response: ResponseHead, body: bytes) -> None:
        ground, place = self._ground, self._place
        done, started, sent = ground.clock(), self._started, self._sent
        upstream_s = done - sent
        place.answered(response.status, started, done)
        self._leave()
        client, request_id = self._client, self._request_id
        start = ground.starts.get(response, place.way, self._reason, done)
        variable = _VARIABLE_LINES % (
            CLOSE if client.is_closing else b"",
            request_id,
            (sent - started) * 1e3,
            upstream_s * 1e3,
            len(body),
        )
        if response.status == _NO_CONTENT:  # no body, so no length of it (RFC 9110 section 8.6)
            variable = variable.replace(b"content-length: 0\r\n", b"")
        client.reply(start.lines + variable + body)
        answers = start.answers
        if not answers.ended:
            ground.tally.expect(answers)
        total_s = ground.clock() - started
        if self._route.alike.assigned is not None:  # at once: it decides about the next request
            self._end_assignment(outcome_of_status(response.status), total_s)
        head, served_s = self._head, upstream_s - self._waited_s
        tells_tokens = self._route.tells_tokens and response.status < TELLING_BELOW
        answers.ended.append(
            (
                request_id,
                done,
                total_s,
                upstream_s,
                served_s,
                head.body_bytes,
                head.deadline_ms,
                head.trace,
                head.told,
                place.init_s,
                tokens_of(body) if tells_tokens else None,
                place.spent,
            )
        )

    def _go_on_after(self, error: AttemptError) -> None:
        """Let the director decide what follows a failed attempt."""
        ground, place, now = self._ground, self._place, self._ground.clock()
        is_lost = self._is_connected and isinstance(error, ResponseLostError)
        is_idempotent = self._route.alike.request.is_idempotent
        took_s = now - self._sent
        if is_lost and self._connection.was_no_attempt(took_s, is_idempotent=is_idempotent):
            # The place had closed an idle connection: it has neither failed nor been tried.
            place.untried()
            record = self._record_so_far(now)
            record.was_untried()
            result = AttemptResult.CANCELLED
            record.paid(self._settle(Verdict.UNTRIED, result, now))
        elif (answer := place.own_answer(error)) is not None:
            self._reply(*answer)
            return
        else:
            record = self._record_so_far(now)
            record.carried = error
            result = attempt_result(error)
            if self._is_late:  # a client's short deadline says nothing about the place's health
                result = AttemptResult.CANCELLED
            record.paid(self._settle(verdict_of(result), result, now))
        if record.trace is not None:  # also of no attempt: the place may have been told of it
            record.trace.attempted(self._in(record.trace), result, now, None)
        ground.tally.fold()  # the retry budget has to know of this request
        name = self._request_id.decode("ascii")
        self._client.hand_over(Carried(name, self._started, record, self._is_copied))

    def _begin_stream(self, head: ResponseHead) -> None:
        ground, place = self._ground, self._place
        now = ground.clock()
        upstream_s = now - self._sent
        place.stream_begun(head, self._head.body_bytes, upstream_s - self._waited_s)
        idle_s = ground.upstream.stream_idle_s
        self._stream = AnswerStream(
            self._client, self._connection, head, ground.clock, idle_s,
            tells_tokens=self._route.tells_tokens and head.status < TELLING_BELOW,
        )  # fmt: skip
        variable = _VARIABLE_LINES_OF_STREAM % (
            CLOSE if self._client.is_closing else b"",
            self._request_id,
            (self._sent - self._started) * 1e3,
            upstream_s * 1e3,
            self._stream.framing,
        )
        start = ground.starts.get(head, place.way, self._reason, now)
        self._client.send_part(start.lines + variable)

    def _end_stream(self, stream: AnswerStream, error: AttemptError | None) -> None:
        """The answer is complete, or never will be: nothing can be repeated any more."""
        assert self._response is not None  # noqa: S101
        done, place, alike = self._ground.clock(), self._place, self._route.alike
        total_s, upstream_s = done - self._started, done - self._sent
        status, result = self._response.status, AttemptResult.OK
        if error is None:
            outcome = outcome_of_status(status)
            self._leave()
            place.answered(status, self._started, done)
            times, way = np.array([[total_s], [upstream_s]]), place.way
            metrics, name = self._ground.metrics, alike.model.name
            metrics.record_answered(name, way.backend, self._reason, outcome, *times)
            if place.spent is not None:
                metrics.add_call_cost(name, alike.tenant, place.spent)
            metrics.record_caller(alike.tenant, name, outcome, total_s, is_cold=bool(way.is_cold))
            self._end_assignment(outcome, total_s)
            self._client.reply(stream.end)
            if (tokens := stream.tokens) is not None:
                metrics.record_tokens(alike.tenant, tokens)
        else:
            outcome, result = outcome_of(error), attempt_result(error)
            self._settle(verdict_of(result), result, done)
            self._count(outcome, total_s, upstream_s)
            self._client.abort()
        self._log(status, outcome, (total_s, upstream_s), result, stream.tokens)

    def _count(self, outcome: Outcome, total_s: float, upstream_s: float) -> None:
        self._end_assignment(outcome, total_s)
        alike, way, metrics = self._route.alike, self._place.way, self._ground.metrics
        name, overhead_s = alike.model.name, total_s - upstream_s
        metrics.record_request(name, way.backend, outcome, total_s, overhead_s)
        metrics.record_caller(alike.tenant, name, outcome, total_s, is_cold=bool(way.is_cold))

    def _end_assignment(self, outcome: Outcome, total_s: float) -> None:
        assigned = self._route.alike.assigned
        if assigned is not None:
            assigned.assignment.ended(outcome, total_s, self._started + total_s)

    def _record_so_far(self, now: float) -> Record:
        record = self._place.way.record(self._reason)
        record.is_counted = True
        record.upstream_s = now - self._started
        record.trace = self._trace()
        return record

    def _trace(self) -> Trace | None:
        """The request's trace until it was sent; None where nothing is traced."""
        head, request = self._head, self._route.alike.request
        if head.told is head.trace:
            return None
        trace = self._ground.tracer.resumed(head.trace, head.told)
        trace.asked = asked(request.protocol, request.action, request.method)
        trace.decided(self._place.way.decision(self._reason), self._started, self._sent)
        return trace

    def _in(self, trace: Trace) -> Sent:
        """This attempt, in the request's trace."""
        way, name = self._place.way, self._route.alike.model.name
        return trace.sent_as_told(name, way.decision(self._reason), way.endpoint_id, self._sent)

    def _leave(self) -> None:
        ground = self._ground
        ground.in_flight -= 1
        ground.bodies.release(self._held_bytes)
        self._disarm()

    def _disarm(self) -> None:
        if self._tick is not None:
            self._wheel.disarm(self._tick, self)
            self._tick = None

    def _settle(self, verdict: Verdict, result: AttemptResult, now: float) -> Spent:
        """Release the slot and count the attempt; returns what it has cost."""
        metrics, backend = self._ground.metrics, self._place.way.backend
        self._leave()
        name = self._route.alike.model.name
        spent = self._place.release(verdict, self._started, now)
        metrics.record_decision(name, backend, self._reason)
        metrics.record_attempt(name, backend, result, now - self._started)
        metrics.add_call_cost(name, self._route.alike.tenant, spent)
        return spent

    def _log(
        self, status: int, outcome: Outcome, times_s: tuple[float, float], result: AttemptResult,
        tokens: Tokens | None = None,
    ) -> None:  # fmt: skip
        """One line for the finished request, and its spans.

        `times_s` is what it took in all and at the place, `result` how the attempt ended.
        """
        access_log, trace = self._ground.access_log, self._trace()
        if not access_log.is_on and trace is None:
            return
        way, (total_s, upstream_s) = self._place.way, times_s
        spent = self._place.spent or Spent(total_s * way.usd_per_s)
        traced = read_lines(self._head.told)
        record = replace(
            way.access_record(self._reason, status, outcome),
            request_id=self._request_id.decode("ascii"),
            payload_bytes=self._head.body_bytes,
            deadline_ms=self._head.deadline_ms,
            total_ms=round(total_s * 1e3, 3),
            upstream_ms=round(upstream_s * 1e3, 3),
            cost_usd=round(spent.usd, 12),
            trace_id=None if traced is None else traced.trace_id,
            gb_s=round(spent.gb_s, 9) if spent.gb_s else None,
            input_tokens=None if tokens is None else tokens.input,
            output_tokens=None if tokens is None else tokens.output,
        )
        access_log.record(record)
        if trace is not None:
            self._end_trace(trace, record, self._started + total_s, result)

    def _end_trace(
        self, trace: Trace, record: AccessRecord, ended: float, result: AttemptResult
    ) -> None:
        answered, sent = self._response, self._in(trace)
        trace.attempted(sent, result, ended, None if answered is None else answered.status)
        if self._place.way.is_cold:
            trace.started_cold(sent, ended, self._place.init_s)
        self._ground.tracer.ended(trace, record, self._started, ended, self._waited_s)
