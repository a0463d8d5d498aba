"""The fast path: small complete requests to a warm replica, by callbacks, without a task.

Takes only what the ordinary path would have understood the same way and sent to a free slot at
once; everything else it declines, and the ordinary path has it from the first byte. An attempt
that fails here is handed over with its record, and the director goes on from there.

Heads repeat from request to request, so what was understood of one is remembered by its bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol as Interface
from typing import TypeVar

from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDictProxy

from router.backends.forwarding import forwarded_headers
from router.backends.pool.endpoints import Endpoint, Pool
from router.backends.refusal import refusal_of
from router.backends.serverless.function import Function
from router.director import Record, verdict_of
from router.domain.clock import Clock
from router.domain.decision import Backend, Decision, Outcome, Reason, Verdict
from router.domain.errors import AttemptError, ResponseLostError, RouterError
from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest
from router.gateway import openai
from router.gateway.access import may_use
from router.gateway.body import BodyBudget
from router.gateway.exchange import Exchange, Telemetry
from router.gateway.intake import Intent, read_intent, request_of
from router.gateway.relay import SERVER, is_relayed
from router.gateway.responses import outcome_of_status
from router.gateway.target import Target
from router.policy.warm import Warm, prepare
from router.runtime import ModelRuntime, Runtime, RuntimeRef
from router.telemetry.labels import AttemptResult, attempt_result
from router.telemetry.logs import AccessRecord
from router.telemetry.metrics import WarmSeries
from router.upstream.client import UpstreamClient
from router.upstream.connection import Connection, WireRequest
from router.upstream.head import build_head
from router.upstream.response import BodyStream
from router.upstream.response_head import ResponseHead

MAX_HEAD_BYTES = 4096
MAX_BODY_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024
"""A larger answer is streamed, which the ordinary path does."""
_MAX_KNOWN = 512
_ESTIMATES_FRESH_S = 0.1
_NEVER_FAST = ("expect", "upgrade", "transfer-encoding", "x-router-deadline-ms")
_ID_PLACE = b"\r\nx-request-id: "
_VARIABLE_LINES = (
    b"%bx-request-id: %b\r\nserver-timing: router;dur=%.3f, upstream;dur=%.3f\r\n"
    b"content-length: %d\r\n\r\n"
)


class Client(Interface):
    """The client's connection, as the fast path uses it."""

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends with this response."""
        ...

    def reply(self, data: bytes) -> None:
        """Send a whole response; the connection is free for the next request."""
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


class KnownHead:
    """A head that was understood, with its routes: one, or by the model that is in the body."""

    __slots__ = ("body_bytes", "intent", "routes", "runtime", "target")

    def __init__(self, runtime: Runtime, intent: Intent, target: Target, body_bytes: int) -> None:
        self.runtime = runtime
        self.intent = intent
        self.target = target
        self.body_bytes = body_bytes
        self.routes: dict[str, Route | None] = {}


class Route:
    """A known head for one model: all that does not change from request to request."""

    __slots__ = (
        "_fresh_until", "_function_s", "_pool_upper_s", "_price_usd", "_work_s", "function",
        "model", "pool", "request", "series", "timeout_s", "warm", "ways",
    )  # fmt: skip

    def __init__(
        self,
        model: ModelRuntime,
        pool: Pool,
        request: InferenceRequest,
        warm: Warm,
        series: WarmSeries,
    ) -> None:
        self.model = model
        self.pool = pool
        self.request = request
        self.warm = warm
        self.series = series
        function = model.serverless
        usable = function is not None and function.params.enabled
        self.function: Function | None = function if usable else None
        pool_settings = model.settings.pool
        self.timeout_s = pool_settings.timeouts.response_s if pool_settings is not None else 0.0
        self.ways: dict[str, Way] = {}
        self._fresh_until = 0.0
        self._work_s = self._pool_upper_s = self._function_s = self._price_usd = 0.0

    def reason(self, now: float) -> Reason | None:
        """Why the pool has the request, if that is certain (see `policy.warm`)."""
        if now >= self._fresh_until:
            self._refresh(now)
        warm, function = self.warm, self.function
        if warm.settled is not None or function is None:
            return warm.settled
        return warm.reason(
            self.model.policy.slo.latency_s,
            self._pool_upper_s,
            self._function_s,
            breaker_open=function.circuit.is_open(now),
        )

    def _refresh(self, now: float) -> None:
        """Read the estimates; they move slowly, and reading them costs as much as a decision."""
        self._fresh_until = now + _ESTIMATES_FRESH_S
        size = self.request.payload_bytes
        on_pool = self.pool.service_times.estimate(size)
        self._work_s, self._pool_upper_s = on_pool.mean_s, on_pool.upper_s
        if self.function is not None:
            self._function_s = self.function.service_times.estimate(size).mean_s
            is_captive = self.warm.is_captive
            self._price_usd = 0.0 if is_captive else self.function.expected_price_usd(size)

    def count_arrival(self, now: float) -> None:
        """As `ModelRuntime.count_arrival`, with the estimates read before."""
        model = self.model
        model.budget.deposit(now)
        model.signals.arrived(self._work_s, self._price_usd, self.warm.is_captive)

    def decision(self, reason: Reason) -> Decision:
        """The decision, without the predictions that only `explain` shows."""
        return Decision(Backend.POOL, reason, self.warm.rule)

    def way(self, endpoint: Endpoint) -> "Way":
        """What is known of the route to that endpoint."""
        found = self.ways.get(endpoint.id)
        if found is None:
            found = Way(self.request, endpoint)
            _remember(self.ways, endpoint.id, found)
        return found


class Way:
    """A route to one endpoint: the request's head towards it, and how a reply names it."""

    __slots__ = ("_endpoint_id", "_lines", "_reason", "after_id", "before_id")

    def __init__(self, request: InferenceRequest, endpoint: Endpoint) -> None:
        target = f"{request.path}?{request.query}" if request.query else request.path
        host = endpoint.address.host_header
        head = build_head(
            request.method, target, host, forwarded_headers(request), request.payload_bytes
        )
        before, place, self.after_id = head.partition(_ID_PLACE)
        self.before_id = before + place
        self._endpoint_id = endpoint.id
        self._reason: Reason | None = None
        self._lines = b""

    def reply_lines(self, reason: Reason) -> bytes:
        """The lines of a reply that name the decision; the reason is mostly the last one's."""
        if reason is not self._reason:
            self._reason = reason
            self._lines = (
                f"x-router-backend: {Backend.POOL}\r\nx-router-reason: {reason}\r\n"
                f"x-router-endpoint: {self._endpoint_id}\r\nx-router-attempts: 1\r\n"
            ).encode()
        return self._lines


K = TypeVar("K")
V = TypeVar("V")


def _remember(known: dict[K, V], key: K, value: V) -> None:
    if len(known) >= _MAX_KNOWN:
        del known[next(iter(known))]
    known[key] = value


class FastPath:
    """Serves what it can; one for all connections of a data plane."""

    def __init__(
        self,
        runtime: RuntimeRef,
        upstream: UpstreamClient,
        telemetry: Telemetry,
        bodies: BodyBudget,
        clock: Clock,
        ids: Iterator[str],
    ) -> None:
        self.clock = clock
        self.metrics = telemetry.metrics
        self.access_log = telemetry.access_log
        self.upstream = upstream
        self.bodies = bodies
        self.in_flight = 0
        self._runtime = runtime
        self._ids = ids
        self._known: dict[bytes, KnownHead] = {}
        self._relayed: dict[int, tuple[ResponseHead, bytes, bool]] = {}
        self._date_text, self._date_line = "", b""

    def known(self, data: bytes) -> tuple[KnownHead, int] | None:
        """The head that `data` begins with, if it is known, and where its body begins."""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
        if end < 4:
            return None
        head = self._known.get(data[:end])
        if head is None or head.runtime is not self._runtime.current:
            return None
        return head, end

    def understand(
        self, message: RawRequestMessage, raw_head: bytes, body_bytes: int
    ) -> KnownHead | None:
        """Understand and remember a head that aiohttp's parser has read; None if it is special."""
        headers = CIMultiDictProxy(message.headers)
        runtime = self._runtime.current
        max_head = min(MAX_HEAD_BYTES, runtime.settings.server.max_header_bytes)
        if not body_bytes or len(raw_head) > max_head or any(n in headers for n in _NEVER_FAST):
            return None
        try:
            intent = read_intent(
                message.method, message.path, headers, runtime, self.clock(), is_ready=True
            )
        except RouterError:
            return None  # the ordinary path says why
        target = intent.target
        if not isinstance(target, Target) or not target.is_inference:
            return None
        head = KnownHead(runtime, intent, target, body_bytes)
        _remember(self._known, raw_head, head)
        return head

    def begin(self, client: Client, head: KnownHead, body: bytes) -> "Attempt | None":
        """Send the request to a warm replica, or None if that is not what it clearly needs."""
        route = self._route(head, body)
        if route is None:
            return None
        now = self.clock()
        reason = route.reason(now)
        if reason is None:
            return None
        pool = route.pool
        if not self.bodies.has_room(len(body)) or (endpoint := pool.reserve_warm(now)) is None:
            return None
        connection = self.upstream.take_idle(endpoint.address)
        if connection is None:  # opening one takes a while, and may fail
            pool.release(endpoint, Verdict.CANCELLED, now, now)
            return None
        route.count_arrival(now)
        request_id = head.intent.head.request_id or next(self._ids)
        attempt = Attempt(self, client, head, route, reason)
        attempt.send(endpoint, connection, body, request_id.encode("ascii"), now)
        return attempt

    def _route(self, head: KnownHead, body: bytes) -> Route | None:
        name = head.target.model
        if name is None:
            try:
                asked = openai.read(body)
            except RouterError:
                return None
            if asked.stream:
                return None
            name = asked.model
        if name in head.routes:
            return head.routes[name]
        route = self._new_route(head, name)
        _remember(head.routes, name, route)
        return route

    def _new_route(self, head: KnownHead, name: str) -> Route | None:
        runtime, intent = head.runtime, head.intent
        model = runtime.models.get(name)
        if model is None or model.pool is None or not model.pool.params.enabled:
            return None
        if model.settings.read_parameters:
            return None
        caller = intent.caller
        if caller is not None and (caller.rate_per_s is not None or not may_use(caller, name)):
            return None
        exchange = Exchange("", 0.0, payload_bytes=head.body_bytes)
        request = request_of(intent, head.target, model, runtime, exchange, stream=False)
        function = model.serverless
        usable = function is not None and function.params.enabled
        limits = function.params.limits if function is not None and usable else None
        warm = prepare(request, model.policy.rules, limits)
        if warm is None:
            return None
        return Route(model, model.pool, request, warm, self.metrics.warm_series(name))

    def reply_start(self, head: ResponseHead) -> bytes:
        """Status line and the lines of an answer's head that depend on nothing else."""
        found = self._relayed.get(id(head))  # equal heads of one upstream are one object
        if found is not None and found[0] is head:
            _, block, has_date = found
        else:
            lines = [f"HTTP/1.1 {head.status} {head.reason}"]
            lines += [f"{name}: {value}" for name, value in head.headers if is_relayed(name)]
            text = "\r\n".join([*lines, "server: " + SERVER[1], ""])
            block = text.encode("utf-8", "surrogateescape")
            has_date = any(name.lower() == "date" for name, _ in head.headers)
            _remember(self._relayed, id(head), (head, block, has_date))
        return block if has_date else block + self._date()

    def _date(self) -> bytes:
        text = rfc822_formatted_time()
        if text != self._date_text:
            self._date_text, self._date_line = text, f"date: {text}\r\n".encode()
        return self._date_line


class Attempt:
    """One request at one replica, as the upstream connection reports it (a `Sink`)."""

    __slots__ = (
        "_body", "_client", "_connection", "_endpoint", "_head", "_known", "_path", "_reason",
        "_request_id", "_response", "_route", "_sent", "_started", "_stream", "_way",
    )  # fmt: skip

    def __init__(
        self, path: FastPath, client: Client, known: KnownHead, route: Route, reason: Reason
    ) -> None:
        self._path = path
        self._client = client
        self._known = known
        self._route = route
        self._reason = reason
        self._response: ResponseHead | None = None
        self._body = b""
        self._stream: BodyStream | None = None

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
        path, route = self._path, self._route
        path.in_flight += 1
        path.bodies.held_bytes += len(body)  # `begin` has asked whether there is room
        way = self._way = route.way(endpoint)
        head = way.before_id + request_id + way.after_id
        connection.start(WireRequest(head, body, is_head=False), self, now + route.timeout_s)
        self._sent = path.clock()

    # -- what the upstream connection reports ---------------------------------------------------

    def on_head(self, head: ResponseHead) -> None:
        """Keep the head; an answer to be streamed goes on as an ordinary request, unrepeated."""
        self._response = head
        length = head.content_length
        if head.is_event_stream or length is None or length > MAX_ANSWER_BYTES:
            self._go_on_as_stream(head)

    def on_data(self, data: bytes) -> None:
        """Collect, or pass on to the stream."""
        if self._stream is not None:
            self._stream.push(data)
        else:
            self._body = self._body + data if self._body else data

    def on_done(self, error: AttemptError | None) -> None:
        """Reply, or hand over what went wrong."""
        if self._stream is not None:
            self._stream.finish(error)
            return
        response = self._response
        if error is None and response is not None:
            error = refusal_of(response.status, "a replica")
        if error is not None or response is None:
            self._go_on_after(error or ResponseLostError("the replica gave no answer"))
        else:
            self._reply(response)

    def client_gone(self) -> None:
        """The client has closed its connection: so does the upstream's work end."""
        self._connection.cancel()
        now = self._path.clock()
        self._settle(Verdict.CANCELLED, AttemptResult.CANCELLED, now)
        total_s, upstream_s = now - self._started, now - self._sent
        metrics, name = self._path.metrics, self._route.model.name
        overhead_s = total_s - upstream_s
        metrics.record_request(name, Backend.POOL, Outcome.CLIENT_CLOSED, total_s, overhead_s)
        self._log(499, Outcome.CLIENT_CLOSED, total_s, upstream_s)

    # -- ways out -------------------------------------------------------------------------------

    def _reply(self, response: ResponseHead) -> None:
        path, route = self._path, self._route
        done = path.clock()
        upstream_s = done - self._sent
        pool = route.pool
        if response.status < 400:
            pool.service_times.observe(route.request.payload_bytes, upstream_s)
        pool.release(self._endpoint, Verdict.OK, self._started, done)
        self._leave()
        body = self._body
        closing = b"connection: close\r\n" if self._client.is_closing else b""
        variable = _VARIABLE_LINES % (
            closing,
            self._request_id,
            (self._sent - self._started + path.clock() - done) * 1e3,
            upstream_s * 1e3,
            len(body),
        )
        lines = self._way.reply_lines(self._reason)
        self._client.reply(b"".join((path.reply_start(response), lines, variable, body)))
        outcome = outcome_of_status(response.status)
        total_s = path.clock() - self._started
        route.series.record(self._reason, outcome, total_s, upstream_s)
        self._log(response.status, outcome, total_s, upstream_s)

    def _go_on_after(self, error: AttemptError) -> None:
        """Let the director decide what follows a failed attempt."""
        now = self._path.clock()
        record = self._record_so_far(now)
        result = attempt_result(error)
        if self._connection.is_stale and self._route.request.is_idempotent:
            # The replica had closed an idle connection: it has neither failed nor been tried.
            record.attempts, record.decision = 0, None
            self._settle(Verdict.CANCELLED, AttemptResult.CANCELLED, now)
        else:
            record.carried = error
            self._settle(verdict_of(result), result, now)
        self._client.hand_over(Carried(self._request_id.decode("ascii"), self._started, record))

    def _go_on_as_stream(self, head: ResponseHead) -> None:
        """Give the answer, whose beginning is here, to the ordinary path."""
        now = self._path.clock()
        route = self._route
        self._stream = self._path.upstream.stream_of(self._connection)
        size = route.request.payload_bytes
        lease = route.pool.adopt(self._endpoint, self._started, size, now - self._sent)
        record = self._record_so_far(now)
        answer = BackendResponse(head.status, head.headers, b"", self._stream)
        record.answered = lease, answer
        self._leave()
        self._path.metrics.record_decision(route.model.name, Backend.POOL, self._reason)
        self._client.hand_over(Carried(self._request_id.decode("ascii"), self._started, record))

    def _record_so_far(self, now: float) -> Record:
        decision = self._route.decision(self._reason)
        record = Record(decision, self._endpoint.id, attempts=1)
        record.upstream_s = now - self._started
        return record

    def _leave(self) -> None:
        self._path.in_flight -= 1
        self._path.bodies.release(self._known.body_bytes)

    def _settle(self, verdict: Verdict, result: AttemptResult, now: float) -> None:
        """Release the slot and count the attempt."""
        path, route = self._path, self._route
        self._leave()
        name, ejections = route.model.name, route.pool.ejections
        route.pool.release(self._endpoint, verdict, self._started, now)
        if route.pool.ejections > ejections:
            path.metrics.record_ejection(name)
        path.metrics.record_decision(name, Backend.POOL, self._reason)
        path.metrics.record_attempt(name, Backend.POOL, result, now - self._started)

    def _log(self, status: int, outcome: Outcome, total_s: float, upstream_s: float) -> None:
        """One line for the finished request."""
        request, path = self._route.request, self._path
        if not path.access_log.is_on:
            return
        path.access_log.record(
            AccessRecord(
                self._request_id.decode("ascii"),
                request.protocol,
                request.model,
                request.version,
                request.tenant,
                request.payload_bytes,
                Backend.POOL,
                self._reason,
                self._route.warm.rule,
                self._endpoint.id,
                1,
                status,
                outcome,
                None,
                round(total_s * 1e3, 3),
                round(upstream_s * 1e3, 3),
                0.0,
                None,
                0.0,
            )
        )
