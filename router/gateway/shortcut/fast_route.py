"""What the fast path knows of a head it has seen: its routes, by model and endpoint.

Worked out once for a head that repeats; holds no state of requests.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from router.backends.forwarding import forwarded_headers
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.serverless.function import Function
from router.dispatch.attempts import Record
from router.domain.decision import Backend, Decision, Outcome, Reason
from router.domain.request import InferenceRequest
from router.gateway import client_address
from router.gateway.access import may_use
from router.gateway.cors import cors_headers
from router.gateway.exchange import Exchange
from router.gateway.intake import Intent, request_of
from router.gateway.protocols.base import Target
from router.gateway.responses import outcome_of_status
from router.gateway.shortcut.fast_tally import Answers, Tally
from router.gateway.shortcut.known_heads import TENSORS, Sorted, read_line
from router.gateway.usage import tells_tokens
from router.gateway.variant import Assignment
from router.policy.canary import Shadow, Side, is_copied, key_of, own_key, side_by
from router.policy.rules import Rule
from router.policy.trial import CanaryTrial
from router.policy.warm import Warm
from router.runtime import ModelRuntime, Runtime
from router.telemetry.logs import AccessRecord
from router.upstream.head import open_head
from router.upstream.response_head import ResponseHead

_MAX_KNOWN = 512
ESTIMATES_FRESH_S = 0.1
_OWN = ("x-request-id", TENSORS)
_OWN_OF_REPLIES = ("x-request-id", "server-timing")
_OWN_LINES = b"%b%bx-request-id: %b\r\nContent-Length: %d\r\n\r\n"

K = TypeVar("K")
V = TypeVar("V")


def remember(known: dict[K, V], key: K, value: V) -> None:
    """Keep a value; the oldest goes when there are too many."""
    if len(known) >= _MAX_KNOWN:
        del known[next(iter(known))]
    known[key] = value


class Assigned(NamedTuple):
    """A side of a canary, and the model that its requests ask for."""

    assignment: Assignment
    asked_model: str


class Fork:
    """The routes of requests under a rule that diverts some: each is drawn by its id.

    A side without a route is not for the shortcut.
    """

    __slots__ = ("_by_side", "_key", "_rule", "_trial")

    def __init__(
        self,
        rule: Rule,
        trial: CanaryTrial | None,
        request: InferenceRequest,
        by_side: Mapping[Side, "Route | None"],
    ) -> None:
        self._rule = rule
        self._trial = trial
        self._key = None if trial is None else key_of(trial.canary, request)
        self._by_side = by_side

    def route(self, request_id: bytes) -> "tuple[Route | None, Shadow | None]":
        """The one of the request with that id, and who gets a copy of it."""
        name, trial, shadow = request_id.decode("ascii"), self._trial, self._rule.shadow
        side = Side.STABLE
        if trial is not None and not trial.is_rolled_back:
            side = side_by(trial.current, self._rule.name, self._key or own_key(name))
        if side is not Side.STABLE or shadow is None or not is_copied(shadow, name):
            shadow = None
        return self._by_side[side], shadow


class Routes:
    """The routes of one head to one model, by the size of the body. `model` None: not configured.

    Bodies between two neighbours of `ModelPolicy.sizes` share one.
    """

    __slots__ = ("_by_start", "_sizes", "model")

    def __init__(self, model: ModelRuntime | None) -> None:
        self.model = model
        self._sizes = model.policy.sizes if model is not None else ()
        self._by_start: dict[int, Route | Fork | None] = {}

    def get(self, size_bytes: int) -> "Route | Fork | None":
        """The one for bodies of that size. Raises KeyError as long as it is not known."""
        return self._by_start[bisect_right(self._sizes, size_bytes)]

    def remember(self, size_bytes: int, route: "Route | Fork | None") -> None:
        """Keep it for all bodies like those of that size."""
        self._by_start[bisect_right(self._sizes, size_bytes)] = route


class KnownHead:
    """A head that was understood, with its routes: one model's, or by the model in the body.

    Of its headers it has those that decide, by `decides`; the others are different each time.
    `is_drawn` says that a request's id may decide, too. `cors` is what its answers tell browsers,
    and `tells_client` that backends are told what is seen of the client. `is_indirect`: no request
    with such a head is for the shortcut. `decisions` are those of late for its model's function
    (see `function_call`).
    """

    __slots__ = (
        "_intent",
        "_shared",
        "body_timeout_s",
        "cors",
        "decisions",
        "is_drawn",
        "is_indirect",
        "max_body_bytes",
        "routes",
        "runtime",
        "target",
        "tells_client",
    )

    def __init__(
        self, runtime: Runtime, intent: Intent, target: Target, decides: Callable[[str], bool]
    ) -> None:
        headers = {name: text for name, text in intent.head.headers.items() if decides(name)}
        head = replace(intent.head, headers=headers, request_id=None, deadline_ms=None)
        self.runtime = runtime
        self._intent = replace(intent, head=head)
        self.target = target
        server = runtime.settings.server
        self.max_body_bytes = server.max_body_bytes
        self.body_timeout_s = server.body_timeout_s
        self.cors = cors_headers(server, intent.method, headers)
        self.tells_client = client_address.is_made(server)
        # What is seen of a client is of its connection, and so cannot decide on routes for all.
        is_seen = self.tells_client and runtime.deciding_headers & client_address.NAMES
        self.is_indirect = bool(self.cors or is_seen)
        self.routes: dict[str, Routes] = {}
        self._shared: dict[str, InferenceRequest] = {}
        self.decisions: dict[int, tuple[float, Decision]] = {}
        asked = [target.model] if target.model is not None else runtime.models
        self.is_drawn = any(
            model.policy.may_divert for name in asked if (model := runtime.models.get(name))
        )

    def intent(self, head: Sorted) -> Intent:
        """What one of its heads says, with the lines that are its own."""
        request_id = None if head.request_id is None else head.request_id.decode("ascii")
        own = replace(
            self._intent.head, headers=self._headers(head), request_id=request_id,
            deadline_ms=head.deadline_ms,
        )  # fmt: skip
        return replace(self._intent, head=own)

    def _headers(self, head: Sorted) -> dict[str, str]:
        headers = dict(self._intent.head.headers)
        headers.pop(TENSORS, None)  # another request's: this one's is among the lines
        for line in head.passing.split(b"\r\n")[:-1]:
            name, value = read_line(line)
            before = headers.get(name)
            headers[name] = value if before is None else f"{before}, {value}"
        if head.request_id is not None:
            headers["x-request-id"] = head.request_id.decode("ascii")
        return headers

    @property
    def function_model(self) -> ModelRuntime | None:
        """The model, if its requests may be calls of a function and nothing beside."""
        model = self.runtime.models.get(self.target.model or "")
        function = model.serverless if model is not None else None
        if model is None or function is None or not function.params.enabled:
            return None
        caller = self._intent.caller
        needs_director = (
            model.settings.read_parameters or model.samples_next or model.hedging is not None
        )
        is_special = needs_director or model.policy.may_divert or not function.caller.is_simple
        may_use_it = caller is None or may_use(caller, model.name)
        return model if may_use_it and not is_special else None

    def one_request(
        self, model: ModelRuntime, head: Sorted, request_id: str, now: float
    ) -> InferenceRequest:
        """The facts of one request to that model; its body tells nothing more."""
        shared = self._shared.get(model.name)
        if shared is None:
            shared = self.request(model, 0)
            remember(self._shared, model.name, shared)
        deadline = None if head.deadline_ms is None else now + head.deadline_ms / 1e3
        return replace(
            shared, request_id=request_id, payload_bytes=head.body_bytes, received_at=now,
            headers=self._headers(head), deadline=deadline,
        )  # fmt: skip

    def routes_to(self, name: str) -> Routes:
        """The routes to a model, from now on."""
        routes = Routes(self.runtime.models.get(name))
        remember(self.routes, name, routes)
        return routes

    def may_go_to(self, model: ModelRuntime, asked: str) -> bool:
        """Whether requests that ask for a model of that name may go to a replica of this one."""
        if model.pool is None or not model.pool.params.enabled or model.settings.read_parameters:
            return False
        if not self.target.is_for(asked):
            return False  # which the client is told
        if self.target.model is None and model.settings.backend_name != asked:
            return False  # the name in the body has to be changed
        caller = self._intent.caller
        return caller is None or may_use(caller, model.name)

    def admit(self, now: float) -> bool:
        """Take one request of the caller's rate, if it has one left."""
        caller = self._intent.caller
        return caller is None or self.runtime.over_limit_s(caller, now) <= 0

    def request(self, model: ModelRuntime, size_bytes: int) -> InferenceRequest:
        """The facts that all its requests of that size to that model share."""
        exchange = Exchange("", 0.0, payload_bytes=size_bytes)
        return request_of(self._intent, self.target, model, self.runtime, exchange, stream=False)


class Route:
    """A known head for one model: all that does not change from request to request."""

    __slots__ = (
        "_arrived", "_explores", "_fresh_until", "_function_s", "_pool_upper_s", "_price_usd",
        "_reason", "_tally", "_work_s", "assigned", "body_timeout_s", "function", "model", "pool",
        "request", "reserve", "tells_tokens", "tenant", "timeout_s", "warm", "ways",
    )  # fmt: skip

    def __init__(
        self,
        model: ModelRuntime,
        request: InferenceRequest,
        warm: Warm,
        tally: Tally,
        body_timeout_s: float,
        assigned: Assigned | None = None,
    ) -> None:
        assert model.pool is not None  # noqa: S101  see `KnownHead.may_go_to`
        self.model = model
        self.pool: Pool = model.pool
        self.request = request
        self.tenant = request.tenant or ""
        self.warm = warm
        self._tally = tally
        self._arrived = 0
        self.reserve: Callable[[float], Endpoint | None] = self.pool.reserve_warm
        if request.version is not None:
            self.reserve = partial(self.pool.reserve_warm_version, request.version)
        function = model.serverless
        usable = function is not None and function.params.enabled
        self.function: Function | None = function if usable else None
        pool_settings = model.settings.pool
        self.body_timeout_s = body_timeout_s
        self.assigned = assigned
        self.timeout_s = pool_settings.timeouts.response_s if pool_settings is not None else 0.0
        self.ways: dict[str, Way] = {}
        self._fresh_until = 0.0
        self._work_s = self._pool_upper_s = self._function_s = self._price_usd = 0.0
        self._reason: Reason | None = None
        self._explores = False
        self.tells_tokens = tells_tokens(request.protocol)

    @property
    def hedges(self) -> bool:
        """Whether a slow attempt gets a second one beside it."""
        return self.model.hedging is not None and self.request.is_idempotent

    def reason(self, now: float, deadline_ms: float | None) -> Reason | None:
        """Why the pool has the request, if that is certain (see `policy.warm`)."""
        if now >= self._fresh_until:
            self._refresh(now)
        if self._explores:
            return None
        function = self.function
        is_open = function is not None and function.circuit.is_open(now)
        if deadline_ms is None and not is_open:
            return self._reason
        left_s = self.model.policy.slo.latency_s if deadline_ms is None else deadline_ms / 1e3
        return self._reason_with(left_s, breaker_open=is_open)

    def _reason_with(self, left_s: float, *, breaker_open: bool) -> Reason | None:
        if self.function is None:
            return self.warm.settled
        return self.warm.reason(
            left_s, self._pool_upper_s, self._function_s, breaker_open=breaker_open
        )

    def _refresh(self, now: float) -> None:
        """Read the estimates; they move slowly, and reading them costs as much as a decision."""
        self._fresh_until = now + ESTIMATES_FRESH_S
        size = self.request.payload_bytes
        self._work_s = self.model.believed_work_s(size)
        self._pool_upper_s = self.pool.service_times.estimate(size).upper_s
        if self.function is not None:
            self._function_s = self.function.service_times.estimate(size).mean_s
            is_captive = self.warm.is_captive
            self._price_usd = 0.0 if is_captive else self.function.expected_price_usd(size)
        self._explores = self._may_explore(now)
        self._reason = self._reason_with(self.model.policy.slo.latency_s, breaker_open=False)

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
        self.model.pass_sample()
        if not self._arrived:
            self._tally.expect(self)
        self._arrived += 1

    def fold(self, tally: Tally) -> None:
        """Count what has arrived."""
        arrived, self._arrived = self._arrived, 0
        is_captive = self.warm.is_captive
        self.model.arrived(tally.clock(), self._work_s, self._price_usd, is_captive, arrived)
        self.model.matched[self.warm.rule] += arrived

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

    __slots__ = ("_answers", "_endpoint", "_head", "_route", "recent")

    def __init__(self, route: Route, endpoint: Endpoint) -> None:
        self._route = route
        request = route.request
        host = endpoint.address.host_header
        headers = [header for header in forwarded_headers(request) if header[0] not in _OWN]
        self._head = open_head(request.method, request.target, host, headers)
        self._endpoint = endpoint
        self._answers: dict[tuple[str, int], Answers] = {}
        self.recent: ReplyStart | None = None

    def head(self, passing: bytes, request_id: bytes, body_bytes: int) -> bytes:
        """The head of one request; `passing` are whole lines that go on as they came."""
        return _OWN_LINES % (self._head, passing, request_id, body_bytes)

    def reply_lines(self, reason: Reason) -> bytes:
        """The lines of a reply that name the decision."""
        headers = self._exchange(reason).headers(0.0)
        lines = [f"{name}: {value}\r\n" for name, value in headers if name not in _OWN_OF_REPLIES]
        return "".join(lines).encode()

    def _exchange(self, reason: Reason) -> Exchange:
        """A request on this way; its id and times are still to be filled in."""
        route, request = self._route, self._route.request
        decision = route.decision(reason)
        record = Record(decision, self._endpoint.id, attempts=1, tenant=request.tenant or "")
        return Exchange(
            "", 0.0, request.protocol, request.model, request.version,
            asked_model=route.assigned.asked_model if route.assigned is not None else None,
            payload_bytes=request.payload_bytes, record=record,
        )  # fmt: skip

    @property
    def request(self) -> InferenceRequest:
        """The facts that its requests share."""
        return self._route.request

    @property
    def usd_per_s(self) -> float:
        """What a slot of the endpoint costs."""
        return self._route.model.replica_usd_per_s / self._endpoint.capacity

    def answers(self, reason: Reason, status: int) -> Answers:
        """Where those of that reason and status add up."""
        found = self._answers.get((reason, status))
        if found is None:
            route = self._route
            record = self.access_record(reason, status, outcome_of_status(status))
            learn = partial(route.pool.learn, self._endpoint)
            found = Answers(self, reason, status, learn, record)
            remember(self._answers, (reason, status), found)
        return found

    def access_record(self, reason: Reason, status: int, outcome: Outcome) -> AccessRecord:
        """What is logged of a request; its id and times are still to be filled in."""
        exchange = self._exchange(reason)
        exchange.status, exchange.outcome = status, outcome
        return exchange.access_record(0.0)
