"""What the fast path knows of a head it has seen: its routes, by model and endpoint.

Worked out once for a head that repeats; holds no state of requests.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from router.backends.forwarding import forwarded_headers
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.serverless.function import Function
from router.domain.decision import Backend, Decision, Outcome, Reason
from router.domain.request import InferenceRequest
from router.gateway.fast_tally import Answers, Tally
from router.gateway.intake import Intent
from router.gateway.responses import outcome_of_status
from router.gateway.target import Target
from router.policy.warm import Warm
from router.runtime import ModelRuntime, Runtime
from router.telemetry.logs import AccessRecord
from router.upstream.head import build_head
from router.upstream.response_head import ResponseHead

_MAX_KNOWN = 512
_ESTIMATES_FRESH_S = 0.1
_ID_PLACE = b"\r\nx-request-id: "

K = TypeVar("K")
V = TypeVar("V")


def remember(known: dict[K, V], key: K, value: V) -> None:
    """Keep a value; the oldest goes when there are too many."""
    if len(known) >= _MAX_KNOWN:
        del known[next(iter(known))]
    known[key] = value


class KnownHead:
    """A head that was understood, with its routes: one, or by the model that is in the body."""

    __slots__ = (
        "body_bytes", "intent", "only_route", "request_id", "routes", "runtime", "target",
    )  # fmt: skip

    def __init__(self, runtime: Runtime, intent: Intent, target: Target, body_bytes: int) -> None:
        self.runtime = runtime
        self.intent = intent
        self.target = target
        self.body_bytes = body_bytes
        given_id = intent.head.request_id
        self.request_id = given_id.encode("ascii") if given_id is not None else None
        self.only_route: Route | None = None
        self.routes: dict[str, Route | None] = {}


class Route:
    """A known head for one model: all that does not change from request to request."""

    __slots__ = (
        "_arrived", "_fresh_until", "_function_s", "_pool_upper_s", "_price_usd", "_reason",
        "_tally", "_work_s", "function", "model", "pool", "request", "reserve", "timeout_s", "warm",
        "ways",
    )  # fmt: skip

    def __init__(
        self,
        model: ModelRuntime,
        pool: Pool,
        request: InferenceRequest,
        warm: Warm,
        tally: Tally,
    ) -> None:
        self.model = model
        self.pool = pool
        self.request = request
        self.warm = warm
        self._tally = tally
        self._arrived = 0
        self.reserve: Callable[[float], Endpoint | None] = pool.reserve_warm
        if request.version is not None:
            self.reserve = partial(pool.reserve_warm_version, request.version)
        function = model.serverless
        usable = function is not None and function.params.enabled
        self.function: Function | None = function if usable else None
        pool_settings = model.settings.pool
        self.timeout_s = pool_settings.timeouts.response_s if pool_settings is not None else 0.0
        self.ways: dict[str, Way] = {}
        self._fresh_until = 0.0
        self._work_s = self._pool_upper_s = self._function_s = self._price_usd = 0.0
        self._reason: Reason | None = None

    def reason(self, now: float) -> Reason | None:
        """Why the pool has the request, if that is certain (see `policy.warm`)."""
        if now >= self._fresh_until:
            self._refresh(now)
        function = self.function
        if function is None or not function.circuit.is_open(now):
            return self._reason
        return self._reason_while(breaker_open=True)

    def _reason_while(self, *, breaker_open: bool) -> Reason | None:
        if self.function is None:
            return self.warm.settled
        left_s = self.model.policy.slo.latency_s
        return self.warm.reason(
            left_s, self._pool_upper_s, self._function_s, breaker_open=breaker_open
        )

    def _refresh(self, now: float) -> None:
        """Read the estimates; they move slowly, and reading them costs as much as a decision."""
        self._fresh_until = now + _ESTIMATES_FRESH_S
        size = self.request.payload_bytes
        self._work_s = self.model.believed_work_s(size)
        self._pool_upper_s = self.pool.service_times.estimate(size).upper_s
        if self.function is not None:
            self._function_s = self.function.service_times.estimate(size).mean_s
            is_captive = self.warm.is_captive
            self._price_usd = 0.0 if is_captive else self.function.expected_price_usd(size)
        self._reason = None if self._may_explore(now) else self._reason_while(breaker_open=False)

    def _may_explore(self, now: float) -> bool:
        """Whether the function might be tried instead, which is for `decide` to say."""
        function, size = self.function, self.request.payload_bytes
        if function is None or self._function_s <= self.model.policy.slo.latency_s:
            return False
        times = function.service_times.estimate(size)
        requests = self.model.signals.arrivals
        return times.is_untried and function.exploration.is_due(size, 0, requests, now)

    def count_arrival(self) -> None:
        """As `ModelRuntime.count_arrival`, before long and with the estimates read before."""
        if not self._arrived:
            self._tally.expect(self)
        self._arrived += 1

    def fold(self, tally: Tally) -> None:
        """Count what has arrived."""
        model, arrived = self.model, self._arrived
        self._arrived = 0
        model.budget.deposit(tally.clock(), arrived)
        model.signals.arrived(self._work_s, self._price_usd, self.warm.is_captive, arrived)

    def decision(self, reason: Reason) -> Decision:
        """The decision, without the predictions that only `explain` shows."""
        return Decision(Backend.POOL, reason, self.warm.rule)

    def way(self, endpoint: Endpoint) -> "Way":
        """What is known of the route to that endpoint."""
        found = self.ways.get(endpoint.id)
        if found is None:
            found = Way(self, endpoint)
            remember(self.ways, endpoint.id, found)
        return found


class ReplyStart(NamedTuple):
    """The lines that replies to such an answer share, and where these add up."""

    head: ResponseHead
    reason: Reason
    lines: bytes
    answers: Answers
    fresh_until: float


class Way:
    """A route to one endpoint: the request's head towards it, and what becomes of its answers."""

    __slots__ = ("_answers", "_endpoint", "_route", "after_id", "before_id", "recent")

    def __init__(self, route: Route, endpoint: Endpoint) -> None:
        self._route = route
        request = route.request
        host = endpoint.address.host_header
        head = build_head(
            request.method, request.target, host, forwarded_headers(request), request.payload_bytes
        )
        before, place, self.after_id = head.partition(_ID_PLACE)
        self.before_id = before + place
        self._endpoint = endpoint
        self._answers: dict[tuple[str, int], Answers] = {}
        self.recent: ReplyStart | None = None

    def reply_lines(self, reason: Reason) -> bytes:
        """The lines of a reply that name the decision."""
        return (
            f"x-router-backend: {Backend.POOL}\r\nx-router-reason: {reason}\r\n"
            f"x-router-endpoint: {self._endpoint.id}\r\nx-router-attempts: 1\r\n"
        ).encode()

    def answers(self, reason: Reason, status: int) -> Answers:
        """Where those of that reason and status add up."""
        found = self._answers.get((reason, status))
        if found is None:
            route = self._route
            record = self.access_record(reason, status, outcome_of_status(status))
            learn = partial(route.pool.learn, self._endpoint, route.request.payload_bytes)
            found = Answers(route.request, reason, status, learn, record)
            remember(self._answers, (reason, status), found)
        return found

    def access_record(self, reason: Reason, status: int, outcome: Outcome) -> AccessRecord:
        """What is logged of a request; its id and times are still to be filled in."""
        request = self._route.request
        return AccessRecord(
            request_id="",
            protocol=request.protocol,
            model=request.model,
            version=request.version,
            tenant=request.tenant,
            payload_bytes=request.payload_bytes,
            backend=Backend.POOL,
            reason=reason,
            rule=self._route.warm.rule,
            endpoint=self._endpoint.id,
            attempts=1,
            status=status,
            outcome=outcome,
            cold_start=None,
            total_ms=0.0,
            upstream_ms=0.0,
            queue_ms=0.0,
            deadline_ms=None,
            cost_usd=0.0,
        )
