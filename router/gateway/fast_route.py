"""What the fast path knows of a head it has seen: its routes, by model and endpoint.

Worked out once for a head that repeats; holds no state of requests.
"""

from typing import TypeVar

from router.backends.forwarding import forwarded_headers
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.serverless.function import Function
from router.domain.decision import Backend, Decision, Reason
from router.domain.request import InferenceRequest
from router.gateway.intake import Intent
from router.gateway.target import Target
from router.policy.warm import Warm
from router.runtime import ModelRuntime, Runtime
from router.telemetry.metrics import WarmSeries
from router.upstream.head import build_head

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
            remember(self.ways, endpoint.id, found)
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
