"""One request of the fast path at one replica, by the callbacks of its connection.

Ends in a reply, or hands the request over to the ordinary path with what is known of it.
"""

from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np
from msgspec.structs import replace

from router.backends.pool.endpoint import Endpoint
from router.backends.refusal import refusal_of, verdict_of_answer
from router.dispatch.attempts import Record, verdict_of
from router.dispatch.outcomes import outcome_of
from router.domain.clock import Clock
from router.domain.decision import Backend, Outcome, Reason, Verdict
from router.domain.errors import AttemptError, ResponseLostError
from router.gateway.body import BodyBudget
from router.gateway.fast_reply import ReplyStarts
from router.gateway.fast_route import KnownHead, Route
from router.gateway.fast_stream import AnswerStream, Reader
from router.gateway.fast_tally import Tally
from router.gateway.responses import outcome_of_status
from router.telemetry.labels import AttemptResult, attempt_result
from router.upstream.client import UpstreamClient
from router.upstream.connection import Connection
from router.upstream.response_head import ResponseHead

MAX_ANSWER_BYTES = 64 * 1024
"""A larger answer is passed on as it comes."""
OWN_LINES = b"%bx-request-id: %b\r\nserver-timing: router;dur=%.3f, upstream;dur=%.3f\r\n"
_VARIABLE_LINES = OWN_LINES + b"content-length: %d\r\n\r\n"
_VARIABLE_LINES_OF_STREAM = OWN_LINES + b"%b\r\n\r\n"
_NO_CONTENT = 204
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
    """A request that began on the fast path and goes on as an ordinary one."""

    request_id: str
    received_at: float
    record: Record


class Ground:
    """What all attempts share: where they send, count and log, and what they hold."""

    def __init__(
        self, upstream: UpstreamClient, tally: Tally, bodies: BodyBudget, clock: Clock
    ) -> None:
        self.clock = clock
        self.tally = tally
        self.metrics = tally.metrics
        self.access_log = tally.access_log
        self.upstream = upstream
        self.bodies = bodies
        self.in_flight = 0
        self.starts = ReplyStarts()


class Attempt:
    """One request at one replica, as the upstream connection reports it (a `Sink`)."""

    __slots__ = (
        "_body", "_client", "_connection", "_endpoint", "_ground", "_known", "_reason",
        "_request_id", "_response", "_route", "_sent", "_started", "_stream", "_waited_s",
        "_way",
    )  # fmt: skip

    def __init__(
        self, ground: Ground, client: Client, known: KnownHead, route: Route, reason: Reason
    ) -> None:
        self._ground = ground
        self._client = client
        self._known = known
        self._route = route
        self._reason = reason
        self._response: ResponseHead | None = None
        self._body = b""
        self._stream: AnswerStream | None = None
        self._waited_s = 0.0  # for the client, while the replica had nothing to do

    def send(
        self,
        endpoint: Endpoint,
        connection: Connection,
        body: bytes,
        request_id: bytes,
        now: float,
    ) -> None:
        """Write the request; the slot of `endpoint` is the attempt's to release."""
        self._endpoint = endpoint
        self._connection = connection
        self._request_id = request_id
        self._started = now
        ground, route = self._ground, self._route
        ground.in_flight += 1
        ground.bodies.held_bytes += len(body)  # `begin` has asked whether there is room
        way = self._way = route.way(endpoint)
        head = way.before_id + request_id + way.after_id
        connection.start(head, body, self, now + route.timeout_s)
        self._sent = ground.clock()

    # -- what the upstream connection reports ---------------------------------------------------

    def on_answer(self, head: ResponseHead, body: bytes) -> None:
        """Reply, or hand over what went wrong."""
        refusal = refusal_of(head.status, body, "a replica") if head.status >= _BAD else None
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
        self._connection.cancel()
        now = self._ground.clock()
        self._settle(Verdict.CANCELLED, AttemptResult.CANCELLED, now)
        total_s, upstream_s = now - self._started, now - self._sent
        self._count(Outcome.CLIENT_CLOSED, total_s, upstream_s)
        self._log(499, Outcome.CLIENT_CLOSED, total_s, upstream_s)

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
        answers.ended.append((request_id, done, total_s, upstream_s, upstream_s - self._waited_s))

    def _go_on_after(self, error: AttemptError) -> None:
        """Let the director decide what follows a failed attempt."""
        now = self._ground.clock()
        record = self._record_so_far(now)
        result = attempt_result(error)
        is_idempotent = self._route.request.is_idempotent
        is_lost = isinstance(error, ResponseLostError)
        took_s = now - self._sent
        if is_lost and self._connection.was_no_attempt(took_s, is_idempotent=is_idempotent):
            # The replica had closed an idle connection: it has neither failed nor been tried.
            record.attempts, record.decision = 0, None
            self._settle(Verdict.UNTRIED, AttemptResult.CANCELLED, now)
        else:
            record.carried = error
            self._settle(verdict_of(result), result, now)
        self._client.hand_over(Carried(self._request_id.decode("ascii"), self._started, record))

    def _begin_stream(self, head: ResponseHead) -> None:
        ground, route = self._ground, self._route
        now = ground.clock()
        upstream_s = now - self._sent
        if head.status < 400:
            served_s = upstream_s - self._waited_s
            route.pool.learn(self._endpoint, route.request.payload_bytes, served_s)
        idle_s = ground.upstream.stream_idle_s
        self._stream = AnswerStream(self._client, self._connection, head, ground.clock, idle_s)
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
            self._ground.metrics.record_warm(self._route.model.name, self._reason, outcome, *times)
            self._client.reply(stream.end)
        else:
            outcome, result = outcome_of(error), attempt_result(error)
            self._settle(verdict_of(result), result, done)
            self._count(outcome, total_s, upstream_s)
            self._client.abort()
        self._log(status, outcome, total_s, upstream_s)

    def _count(self, outcome: Outcome, total_s: float, upstream_s: float) -> None:
        name, overhead_s = self._route.model.name, total_s - upstream_s
        metrics = self._ground.metrics
        metrics.record_request(name, Backend.POOL, outcome, total_s, overhead_s)

    def _record_so_far(self, now: float) -> Record:
        decision = self._route.decision(self._reason)
        record = Record(decision, self._endpoint.id, attempts=1)
        record.upstream_s = now - self._started
        return record

    def _release_answered(self, status: int, now: float) -> None:
        """Free the slot of a replica that has given an answer of the model's own."""
        pool, verdict = self._route.pool, verdict_of_answer(status)
        if verdict is Verdict.MODEL_ERROR:
            pool.erred(self._endpoint, self._route.request)
        pool.release(self._endpoint, verdict, self._started, now)

    def _leave(self) -> None:
        self._ground.in_flight -= 1
        self._ground.bodies.release(self._known.body_bytes)

    def _settle(self, verdict: Verdict, result: AttemptResult, now: float) -> None:
        """Release the slot and count the attempt."""
        ground, route = self._ground, self._route
        self._leave()
        name = route.model.name
        route.pool.release(self._endpoint, verdict, self._started, now)
        ground.metrics.record_decision(name, Backend.POOL, self._reason)
        ground.metrics.record_attempt(name, Backend.POOL, result, now - self._started)

    def _log(self, status: int, outcome: Outcome, total_s: float, upstream_s: float) -> None:
        """One line for the finished request."""
        access_log = self._ground.access_log
        if access_log.is_on:
            record = self._way.access_record(self._reason, status, outcome)
            access_log.record(
                replace(
                    record,
                    request_id=self._request_id.decode("ascii"),
                    total_ms=round(total_s * 1e3, 3),
                    upstream_ms=round(upstream_s * 1e3, 3),
                )
            )
