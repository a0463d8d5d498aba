"""What the fast path knows of a head it has seen: its routes, by model and size of the body.

Worked out once for a head that repeats; holds no state of requests.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace

from router.backends.forwarding import read_line
from router.domain.request import InferenceRequest
from router.gateway import client_address
from router.gateway.access import may_use
from router.gateway.cors import cors_headers
from router.gateway.exchange import Exchange
from router.gateway.intake import Intent, request_of
from router.gateway.protocols.base import Target
from router.gateway.shortcut.fast_function import FunctionSide
from router.gateway.shortcut.fast_pool import ESTIMATES_FRESH_S, PoolSide
from router.gateway.shortcut.fast_tally import Tally
from router.gateway.shortcut.fast_way import Alike, remember
from router.gateway.shortcut.known_heads import TENSORS, Sorted
from router.gateway.usage import tells_tokens
from router.policy.canary import Shadow, Side, is_copied, key_of, own_key, side_by
from router.policy.rules import Rule
from router.policy.trial import CanaryTrial
from router.runtime import ModelRuntime, Runtime


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
    with such a head is for the shortcut.
    """

    __slots__ = (
        "_intent",
        "_shared",
        "body_timeout_s",
        "cors",
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
        for line in (head.passing + head.trace).split(b"\r\n")[:-1]:
            name, value = read_line(line)
            before = headers.get(name)
            headers[name] = value if before is None else f"{before}, {value}"
        if head.request_id is not None:
            headers["x-request-id"] = head.request_id.decode("ascii")
        return headers

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
        """Whether requests that ask for a model of that name may go to this one without a task."""
        if model.settings.read_parameters:
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
    """A known head for one model: where its requests may go without a task, and what they share.

    To the pool where that is certain, else to the function where it is decided at once.
    """

    __slots__ = (
        "_arrived", "_fresh_until", "_price_usd", "_tally", "_work_s", "alike", "body_timeout_s",
        "function", "pool", "tells_tokens",
    )  # fmt: skip

    def __init__(
        self,
        alike: Alike,
        tally: Tally,
        body_timeout_s: float,
        pool: PoolSide | None,
        function: FunctionSide | None,
    ) -> None:
        self.alike = alike
        self.body_timeout_s = body_timeout_s
        self.pool = pool
        self.function = function
        self.tells_tokens = tells_tokens(alike.request.protocol)
        self._tally = tally
        self._arrived = 0
        self._fresh_until = 0.0
        self._work_s = self._price_usd = 0.0

    @property
    def hedges(self) -> bool:
        """Whether a slow attempt gets a second one beside it."""
        return self.alike.model.hedging is not None and self.alike.request.is_idempotent

    def count_arrival(self) -> None:
        """As `ModelRuntime.count_arrival`, before long and with estimates of late."""
        self.alike.model.pass_sample()
        if not self._arrived:
            self._tally.expect(self)
        self._arrived += 1

    def fold(self, tally: Tally) -> None:
        """Count what has arrived."""
        now, model = tally.clock(), self.alike.model
        if now >= self._fresh_until:
            self._refresh(now)
        arrived, self._arrived = self._arrived, 0
        model.arrived(now, self._work_s, self._price_usd, self._is_captive, arrived)
        model.matched[self.alike.rule] += arrived

    @property
    def _is_captive(self) -> bool:
        return self.pool is not None and self.pool.warm.is_captive

    def _refresh(self, now: float) -> None:
        """Read the estimates, which move slowly."""
        self._fresh_until = now + ESTIMATES_FRESH_S
        model, size = self.alike.model, self.alike.request.payload_bytes
        self._work_s = model.believed_work_s(size)
        if (function := model.serverless) is not None and function.params.enabled:
            captive = self._is_captive
            self._price_usd = 0.0 if captive else function.expected_price_usd(size)
