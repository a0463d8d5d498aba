"""Requests of a route at its model's pool: when that is certain, and how a replica has them."""

from collections.abc import Callable
from functools import partial

from router.backends.forwarding import forwarded_headers
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.pool.lease import PoolLease
from router.backends.refusal import refusal_of, verdict_of_answer
from router.backends.serverless.function import Function
from router.domain.decision import Backend, Reason, Verdict
from router.domain.errors import AttemptError
from router.domain.spent import Spent
from router.gateway.shortcut.fast_way import Alike, Answer, Way, remember
from router.gateway.shortcut.known_heads import TENSORS, Sorted
from router.policy.warm import Warm
from router.upstream.address import Address
from router.upstream.head import open_head
from router.upstream.response_head import ResponseHead

ESTIMATES_FRESH_S = 0.1
_OWN = ("x-request-id", TENSORS)
_OWN_LINES = b"%b%b%bx-request-id: %b\r\nContent-Length: %d\r\n\r\n"
_BAD = 400


class PoolSide:
    """A route to a pool, by what is certain from its head (see `policy.warm`)."""

    __slots__ = (
        "_alike", "_explores", "_fresh_until", "_function", "_function_s", "_pool_upper_s",
        "_reason", "pool", "reserve", "timeout_s", "warm", "ways",
    )  # fmt: skip

    def __init__(self, alike: Alike, pool: Pool, warm: Warm) -> None:
        self._alike = alike
        self.pool = pool
        self.warm = warm
        self.reserve: Callable[[float], Endpoint | None] = pool.reserve_warm
        if alike.request.version is not None:
            self.reserve = partial(pool.reserve_warm_version, alike.request.version)
        function = alike.model.serverless
        usable = function is not None and function.params.enabled
        self._function: Function | None = function if usable else None
        settings = alike.model.settings.pool
        self.timeout_s = settings.timeouts.response_s if settings is not None else 0.0
        self.ways: dict[str, PoolWay] = {}
        self._fresh_until = 0.0
        self._pool_upper_s = self._function_s = 0.0
        self._reason: Reason | None = None
        self._explores = False

    def reason(self, now: float, deadline_ms: float | None) -> Reason | None:
        """Why the pool has the request, if that is certain (see `policy.warm`)."""
        if now >= self._fresh_until:
            self._refresh(now)
        if self._explores:
            return None
        function = self._function
        is_open = function is not None and function.circuit.is_open(now)
        if deadline_ms is None and not is_open:
            return self._reason
        slo_s = self._alike.model.policy.slo.latency_s
        left_s = slo_s if deadline_ms is None else deadline_ms / 1e3
        return self._reason_with(left_s, breaker_open=is_open)

    def _reason_with(self, left_s: float, *, breaker_open: bool) -> Reason | None:
        if self._function is None:
            return self.warm.settled
        return self.warm.reason(
            left_s, self._pool_upper_s, self._function_s, breaker_open=breaker_open
        )

    def _refresh(self, now: float) -> None:
        """Read the estimates; they move slowly, and reading them costs as much as a decision."""
        self._fresh_until = now + ESTIMATES_FRESH_S
        size = self._alike.request.payload_bytes
        self._pool_upper_s = self.pool.service_times.estimate(size).upper_s
        if self._function is not None:
            self._function_s = self._function.service_times.estimate(size).mean_s
        self._explores = self._may_explore(now)
        self._reason = self._reason_with(self._alike.model.policy.slo.latency_s, breaker_open=False)

    def _may_explore(self, now: float) -> bool:
        """Whether the function might be tried instead, which is for `decide` to say."""
        function, size, model = self._function, self._alike.request.payload_bytes, self._alike.model
        if function is None or self._function_s <= model.policy.slo.latency_s:
            return False
        times = function.service_times.estimate(size)
        requests = model.signals.arrivals
        return times.is_untried and function.exploration.is_due(size, 0, requests, now)

    def way(self, endpoint: Endpoint) -> "PoolWay":
        """What is known of the route to that endpoint, of which a slot was reserved."""
        found = self.ways.get(endpoint.id)
        if found is None:
            found = PoolWay(self._alike, self.pool, endpoint, self.timeout_s)
            remember(self.ways, endpoint.id, found)
        return found


class PoolWay(Way):
    """A route to one endpoint; the place of each of its attempts, for these need no more."""

    __slots__ = ("_head", "endpoint", "pool", "timeout_s")

    connect_timeout_s = None
    max_answer_bytes = float("inf")
    spent = None
    init_s = None

    def __init__(self, alike: Alike, pool: Pool, endpoint: Endpoint, timeout_s: float) -> None:
        super().__init__(alike, Backend.POOL, endpoint.id, partial(pool.learn, endpoint))
        request = alike.request
        host = endpoint.address.host_header
        headers = [header for header in forwarded_headers(request) if header[0] not in _OWN]
        self._head = open_head(request.method, request.target, host, headers)
        self.endpoint = endpoint
        self.pool = pool
        self.timeout_s = timeout_s

    @property
    def way(self) -> "PoolWay":
        """Itself."""
        return self

    @property
    def address(self) -> Address:
        """The endpoint's."""
        return self.endpoint.address

    @property
    def usd_per_s(self) -> float:
        """What a slot of the endpoint costs."""
        return self.alike.model.replica_usd_per_s / self.endpoint.capacity

    def message(self, head: Sorted, request_id: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Whole lines of the request's head go on as they came, and so does its body."""
        lines = _OWN_LINES % (self._head, head.passing, head.told, request_id, head.body_bytes)
        return lines, body

    def passes_on(self, head: ResponseHead, size_bytes: int, start: bytes) -> bool:
        """Always. Raises AttemptError for a refusal."""
        del size_bytes, start
        if (refusal := refusal_of(head.status, b"", "a replica")) is not None:
            raise refusal
        return True

    def understood(self, head: ResponseHead, body: bytes) -> Answer:
        """As it is. Raises AttemptError for a refusal."""
        if head.status >= _BAD:
            refusal = refusal_of(head.status, body, "a replica", head.headers)
            if refusal is not None:
                raise refusal
        return Answer(head, body)

    def read(
        self, head: ResponseHead, body: bytes, told: Callable[[Callable[[], Answer]], None]
    ) -> None:
        """At once: what is long is passed on as it comes."""
        told(partial(self.understood, head, body))

    def stream_begun(self, head: ResponseHead, size_bytes: int, served_s: float) -> None:
        """Learn how long the endpoint took to begin."""
        if head.status < _BAD:
            self.pool.learn(self.endpoint, size_bytes, served_s)

    def answered(self, status: int, started: float, now: float) -> None:
        """Free the slot of a replica that has given an answer of the model's own."""
        verdict = verdict_of_answer(status)
        if verdict is Verdict.MODEL_ERROR:
            self.pool.erred(self.endpoint, self.alike.request)
        self.pool.release(self.endpoint, verdict, started, now, self.alike.tenant)

    def own_answer(self, error: AttemptError) -> Answer | None:
        """None: a replica's failures are no answers."""
        del error
        return None

    def untried(self) -> None:
        """Nothing was noted of it."""

    def release(self, verdict: Verdict, started: float, now: float) -> Spent:
        """Free the slot; returns what its time has cost."""
        used_s = self.pool.release(self.endpoint, verdict, started, now, self.alike.tenant)
        return Spent(used_s * self.alike.model.replica_usd_per_s)

    def lease(self, started: float) -> PoolLease:
        """The slot."""
        return self.pool.lease_of(self.endpoint, started)
