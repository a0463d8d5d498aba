"""One request of the fast path at one replica, by the callbacks of its connection.

Ends in a reply, or hands the request over to the ordinary path with what is known of it.
"""

from dataclasses import dataclass
from math import inf
from typing import Protocol as Interface

import numpy as np
from msgspec.structs import replace

from router.backends.pool.endpoint import Endpoint
from router.backends.refusal import refusal_of, verdict_of_answer
from router.dispatch.attempts import Record, verdict_of
from router.dispatch.hedging import Hedger
from router.dispatch.outcomes import outcome_of
from router.domain.clock import Clock
from router.domain.decision import Backend, Outcome, Reason, Verdict
from router.domain.errors import AttemptError, ConnectFailedError, ResponseLostError
from router.domain.tokens import Tokens
from router.domain.trace_context import trace_id_of
from router.gateway.body import BodyBudget
from router.gateway.exchange import Exchange, Telemetry
from router.gateway.responses import CLIENT_CLOSED, outcome_of_status
from router.gateway.shortcut.fast_reply import ReplyStarts
from router.gateway.shortcut.fast_route import Route
from router.gateway.shortcut.fast_stream import AnswerStream, Reader
from router.gateway.shortcut.fast_tally import Tally
from router.gateway.shortcut.known_heads import Sorted
from router.gateway.usage import tokens_of
from router.shadow.copies import Shadows
from router.telemetry.labels import AttemptResult, attempt_result
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
_HEDGE_TICK_S = 0.002
"""How coarse the wheel of hedges is: what is to be hedged is often a matter of milliseconds."""
_BAD = 400
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
        self.access_log = telemetry.access_log
        self.upstream = upstream
        self.bodies = bodies
        self.in_flight = 0
        self.starts = ReplyStarts()


class Attempt:
    """One request at one replica, as the upstream connection reports it (a `Sink`)."""

    __slots__ = (
        "_body", "_client", "_connection", "_endpoint", "_ground", "_head", "_is_connected",
        "_reason",
        "_request_id", "_response", "_route", "_sent", "_started", "_stream", "_tick", "_waited_s",
        "_way", "_wheel",
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
        self._is_connected = False
        self._tick: int | None = None
        self._waited_s = 0.0  # for the client, while the replica had nothing to do

    def begin(self, endpoint: Endpoint, body: bytes, request_id: bytes, now: float) -> None:
        """Send the request once there is a connection; the slot is the attempt's to release.

        The body budget has room for it: whoever calls has asked.
        """
        self._endpoint = endpoint
        self._request_id = request_id
        self._started = self._sent = now
        ground = self._ground
        ground.in_flight += 1
        ground.bodies.held_bytes += self._held_bytes
        self._way = self._route.way(endpoint)
        connection = ground.upstream.connection(endpoint.address, self)
        if connection is not None:
            self._send(connection, body)
        else:
            self._body = body
            self._wait_for_connection()

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
            self._ground.upstream.forget(self._endpoint.address, self)
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
        self._connection, self._is_connected, head = connection, True, self._head
        raw_head = self._way.head(head.passing, self._request_id, head.body_bytes)
        connection.start(raw_head, body, self, self._bounded(self._started + self._route.timeout_s))
        self._sent = self._ground.clock()

    def _bounded(self, until: float) -> float:
        """That time, or the client's own deadline where it is sooner."""
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
        refusal = None
        if head.status >= _BAD:
            refusal = refusal_of(head.status, body, "a replica", head.headers)
        if refusal is None:
            self._reply(head, body)
        else:
            self._go_on_after(refusal)

    def on_head(self, head: ResponseHead) -> None:
        """Keep the head, or begin to pass on an answer that is long or comes bit by bit."""
        self._response = head
        length = head.content_length
        if head.is_event_stream or length is None or length > MAX_ANSWER_BYTES:
            refusal = refusal_of(head.status, b"", "a replica")
            if refusal is None:
                self._begin_stream(head)
            else:
                self._connection.cancel()
                self._go_on_after(refusal)

    def on_data(self, data: bytes) -> None:
        """Collect, or pass on to the stream."""
        if self._stream is not None:
            self._stream.push(data)
        else:
            self._body = self._body + data if self._body else data

    def on_done(self, error: AttemptError | None) -> None:
        """Reply, or hand over what went wrong."""
        if self._stream is not None:
            self._end_stream(self._stream, error)
            return
        response = self._response
        if error is not None or response is None:
            self._go_on_after(error or ResponseLostError("the replica gave no answer"))
        else:
            self.on_answer(response, self._body)

    def on_client_ready(self) -> None:
        """The client takes more of its answer."""
        if self._stream is not None:
            self._stream.resume()

    def client_gone(self) -> None:
        """The client has closed its connection: so does the upstream's work end."""
        if self._is_connected:
            self._connection.cancel()
        else:
            self._ground.upstream.forget(self._endpoint.address, self)
        now = self._ground.clock()
        self._settle(Verdict.CANCELLED, AttemptResult.CANCELLED, now)
        total_s, upstream_s = now - self._started, now - self._sent
        self._count(Outcome.CLIENT_CLOSED, total_s, upstream_s)
        self._log(CLIENT_CLOSED, Outcome.CLIENT_CLOSED, total_s, upstream_s)

    # -- ways out -------------------------------------------------------------------------------

    def _reply(self, response: ResponseHead, body: bytes) -> None:
        ground = self._ground
        done, started, sent = ground.clock(), self._started, self._sent
        upstream_s = done - sent
        self._release_answered(response.status, done)
        self._leave()
        client, request_id = self._client, self._request_id
        start = ground.starts.get(response, self._way, self._reason, done)
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
        if self._route.assigned is not None:  # at once: it decides about the next request
            self._end_assignment(outcome_of_status(response.status), total_s)
        head, served_s = self._head, upstream_s - self._waited_s
        answers.ended.append(
            (
                request_id,
                done,
                total_s,
                upstream_s,
                served_s,
                head.body_bytes,
                head.deadline_ms,
                head.traceparent,
                self._tokens(response.status, body),
            )
        )

    def _tokens(self, status: int, body: bytes) -> Tokens | None:
        return tokens_of(body) if self._route.tells_tokens and status < _BAD else None

    def _go_on_after(self, error: AttemptError) -> None:
        """Let the director decide what follows a failed attempt."""
        self._ground.tally.fold()  # the retry budget has to know of this request
        now = self._ground.clock()
        record = self._record_so_far(now)
        result = attempt_result(error)
        is_idempotent = self._route.request.is_idempotent
        is_lost = self._is_connected and isinstance(error, ResponseLostError)
        took_s = now - self._sent
        if is_lost and self._connection.was_no_attempt(took_s, is_idempotent=is_idempotent):
            # The replica had closed an idle connection: it has neither failed nor been tried.
            record.was_untried()
            record.cost_usd += self._settle(Verdict.UNTRIED, AttemptResult.CANCELLED, now)
        else:
            record.carried = error
            if self._is_late:  # a client's short deadline says nothing about the replica's health
                result = AttemptResult.CANCELLED
            record.cost_usd += self._settle(verdict_of(result), result, now)
        name = self._request_id.decode("ascii")
        self._client.hand_over(Carried(name, self._started, record, self._is_copied))

    def _begin_stream(self, head: ResponseHead) -> None:
        ground, route = self._ground, self._route
        now = ground.clock()
        upstream_s = now - self._sent
        if head.status < 400:
            served_s = upstream_s - self._waited_s
            route.pool.learn(self._endpoint, self._head.body_bytes, served_s)
        idle_s = ground.upstream.stream_idle_s
        self._stream = AnswerStream(
            self._client, self._connection, head, ground.clock, idle_s,
            tells_tokens=route.tells_tokens and head.status < _BAD,
        )  # fmt: skip
        variable = _VARIABLE_LINES_OF_STREAM % (
            CLOSE if self._client.is_closing else b"",
            self._request_id,
            (self._sent - self._started) * 1e3,
            upstream_s * 1e3,
            self._stream.framing,
        )
        start = ground.starts.get(head, self._way, self._reason, now)
        self._client.send_part(start.lines + variable)

    def _end_stream(self, stream: AnswerStream, error: AttemptError | None) -> None:
        """The answer is complete, or never will be: nothing can be repeated any more."""
        assert self._response is not None  # noqa: S101
        done = self._ground.clock()
        total_s, upstream_s = done - self._started, done - self._sent
        status = self._response.status
        if error is None:
            outcome = outcome_of_status(status)
            self._leave()
            self._release_answered(status, done)
            times = np.array([[total_s], [upstream_s]])
            metrics, name = self._ground.metrics, self._route.model.name
            metrics.record_warm(name, self._reason, outcome, *times)
            metrics.record_caller(self._route.tenant, name, outcome, total_s)
            self._end_assignment(outcome, total_s)
            self._client.reply(stream.end)
            if (tokens := stream.tokens) is not None:
                metrics.record_tokens(self._route.tenant, tokens)
        else:
            outcome, result = outcome_of(error), attempt_result(error)
            self._settle(verdict_of(result), result, done)
            self._count(outcome, total_s, upstream_s)
            self._client.abort()
        self._log(status, outcome, total_s, upstream_s, stream.tokens)

    def _count(self, outcome: Outcome, total_s: float, upstream_s: float) -> None:
        self._end_assignment(outcome, total_s)
        name, overhead_s = self._route.model.name, total_s - upstream_s
        metrics = self._ground.metrics
        metrics.record_request(name, Backend.POOL, outcome, total_s, overhead_s)
        metrics.record_caller(self._route.tenant, name, outcome, total_s)

    def _end_assignment(self, outcome: Outcome, total_s: float) -> None:
        assigned = self._route.assigned
        if assigned is not None:
            assigned.assignment.ended(outcome, total_s, self._started + total_s)

    def _record_so_far(self, now: float) -> Record:
        decision = self._route.decision(self._reason)
        record = Record(
            decision, self._endpoint.id, attempts=1, is_counted=True, tenant=self._route.tenant
        )
        record.upstream_s = now - self._started
        return record

    def _release_answered(self, status: int, now: float) -> None:
        """Free the slot of a replica that has given an answer of the model's own."""
        pool, verdict = self._route.pool, verdict_of_answer(status)
        if verdict is Verdict.MODEL_ERROR:
            pool.erred(self._endpoint, self._route.request)
        pool.release(self._endpoint, verdict, self._started, now, self._route.tenant)

    def _leave(self) -> None:
        ground = self._ground
        ground.in_flight -= 1
        ground.bodies.release(self._held_bytes)
        self._disarm()

    def _disarm(self) -> None:
        if self._tick is not None:
            self._wheel.disarm(self._tick, self)
            self._tick = None

    def _settle(self, verdict: Verdict, result: AttemptResult, now: float) -> float:
        """Release the slot and count the attempt; returns what it has cost."""
        ground, route = self._ground, self._route
        self._leave()
        name = route.model.name
        used_s = route.pool.release(self._endpoint, verdict, self._started, now, route.tenant)
        ground.metrics.record_decision(name, Backend.POOL, self._reason)
        ground.metrics.record_attempt(name, Backend.POOL, result, now - self._started)
        return used_s * route.model.replica_usd_per_s

    def _log(
        self, status: int, outcome: Outcome, total_s: float, upstream_s: float,
        tokens: Tokens | None = None,
    ) -> None:  # fmt: skip
        """One line for the finished request."""
        access_log = self._ground.access_log
        if access_log.is_on:
            record = self._way.access_record(self._reason, status, outcome)
            access_log.record(
                replace(
                    record,
                    request_id=self._request_id.decode("ascii"),
                    payload_bytes=self._head.body_bytes,
                    deadline_ms=self._head.deadline_ms,
                    total_ms=round(total_s * 1e3, 3),
                    upstream_ms=round(upstream_s * 1e3, 3),
                    cost_usd=round(total_s * self._way.usd_per_s, 12),
                    trace_id=trace_id_of(self._head.traceparent.decode("latin-1")),
                    input_tokens=None if tokens is None else tokens.input,
                    output_tokens=None if tokens is None else tokens.output,
                )
            )
