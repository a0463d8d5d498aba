"""The shortcut: requests to a warm replica or a function, by callbacks, without a task.

A small one is complete when it gets here; of a long one the first part has come, and the rest is
passed on as it comes.

Takes only what the director would have sent to a free slot at once; what it declines the director
has from the beginning (`direct`), or aiohttp's request handling where the head is new. An attempt
that fails here is handed over with its record, and the director goes on from there.

Most lines of a head repeat from request to request, so what was understood of one is remembered by
those that decide (see `known_heads`).
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from aiohttp.http_parser import RawRequestMessage

from router.domain.decision import Backend, Reason, Verdict
from router.domain.errors import RouterError
from router.domain.request import InferenceRequest
from router.domain.snapshot import ServerlessLimits
from router.gateway import client_address, cors
from router.gateway.body import STREAM_ABOVE_BYTES, WINDOW_BYTES
from router.gateway.intake import read_intent
from router.gateway.protocols.base import Target
from router.gateway.sampling import Sampling, sampling
from router.gateway.shortcut.fast_attempt import Attempt, Ground
from router.gateway.shortcut.fast_function import FunctionSide
from router.gateway.shortcut.fast_hedge import Hedged
from router.gateway.shortcut.fast_pool import PoolSide
from router.gateway.shortcut.fast_route import Fork, KnownHead, Route, Routes
from router.gateway.shortcut.fast_upload import Sender, Upload
from router.gateway.shortcut.fast_watch import Watched
from router.gateway.shortcut.fast_way import Alike, Assigned, Place
from router.gateway.shortcut.known_heads import KnownHeads, Sorted
from router.gateway.variant import Assignment, assigned_variant
from router.policy.canary import Shadow, Side
from router.policy.rules import Rule, first_match
from router.policy.warm import Warm, prepare
from router.runtime import ModelRuntime, Runtime, RuntimeRef
from router.shadow.copies import Copy

MAX_BODY_BYTES = STREAM_ABOVE_BYTES
_NEVER_FAST = ("expect", "upgrade", "transfer-encoding")
_KEEP_ALIVE = "keep-alive"

Known = tuple[KnownHead, Sorted]
"""What is known of a head, and what was its own this time."""
Entered = tuple[Place, Reason, Upload | None]
"""A place with a slot, why it is that one, and the attempt where it is of a kind of its own."""


class FastPath:
    """Serves what it can; one for all connections of a data plane."""

    def __init__(self, runtime: RuntimeRef, ground: Ground, ids: Iterator[bytes]) -> None:
        self._ground = ground
        self._clock = ground.clock
        self._runtime = runtime
        self._ids = ids
        self._of: Runtime | None = None
        self._known: KnownHeads[KnownHead] = KnownHeads()

    @property
    def in_flight(self) -> int:
        """Attempts that have not ended."""
        return self._ground.in_flight

    def known(self, data: bytes) -> Known | None:
        """The head that `data` begins with, if one like it is known."""
        if self._of is not self._runtime.current:
            self._forget()
        head = self._known.sort(data)
        if head is None or not head.body_bytes:
            return None  # what has no body is a question, or a mistake
        known = self._known.get(head)
        return None if known is None else (known, head)

    def understand(self, message: RawRequestMessage, raw_head: bytes) -> Known | None:
        """Understand and remember a head that aiohttp's parser has read; None if it is special."""
        if self._of is not self._runtime.current:
            self._forget()
        runtime, headers = self._runtime.current, message.headers
        head = self._known.sort(raw_head)
        if head is None or not head.body_bytes or any(n in headers for n in _NEVER_FAST):
            return None
        if headers.get("connection", _KEEP_ALIVE).lower() != _KEEP_ALIVE:
            return None  # it names headers that go no further
        try:
            intent = read_intent(
                message.method, message.path, headers, runtime, self._clock(), is_ready=True
            )
        except RouterError:
            return None  # the ordinary path says why
        target = intent.target
        if not isinstance(target, Target) or not target.is_inference:
            return None
        known = KnownHead(runtime, intent, target, self._known.decides)
        self._known.remember(head, known)
        return known, head

    def _forget(self) -> None:
        """Start anew: another configuration decides by other lines, and may know other callers."""
        runtime = self._of = self._runtime.current
        server = runtime.settings.server
        names = runtime.deciding_headers
        if cors.is_on(server):
            names |= {cors.ORIGIN}
        if client_address.is_made(server):
            names |= client_address.NAMES
        for model in runtime.models.values():
            if model.serverless is not None:
                names |= model.serverless.caller.own_headers
        self._known = KnownHeads(names, server.max_header_bytes)

    def completed(
        self, known: KnownHead, head: Sorted, client: asyncio.BaseTransport | None
    ) -> Sorted:
        """The head, with what the gateway itself says in it.

        That is an id where the request has none and its id decides, and what is seen of the client
        where backends are told that.
        """
        if known.tells_client:
            seen = client_address.seen_of(client)
            lines = "".join(f"{name}: {value}\r\n" for name, value in seen)
            head = head._replace(passing=head.passing + lines.encode("ascii"))
        if head.request_id is None and known.is_drawn:
            return head._replace(request_id=next(self._ids))
        return head

    def begin(self, client: Sender, known: KnownHead, head: Sorted, body: bytes) -> Attempt | None:
        """Send the request to a free slot, or None if that is not what it clearly needs.

        `body` is all of it, or the first part if it has more than MAX_BODY_BYTES: that gives an
        `Upload`.
        """
        is_long = head.body_bytes > MAX_BODY_BYTES
        if head.body_bytes > known.max_body_bytes or (is_long and known.target.model is None):
            return None  # it is refused, or the model is in the body
        if self._ground.tracer.is_on:
            head = Sorted(*head[:-1], self._ground.tracer.lines(head.trace))
        route, shadow = self._drawn(known, head, body)
        if route is None or not _is_watchable(route, shadow, head):
            return None
        now = self._clock()
        request_id = head.request_id or next(self._ids)
        entered = self._at_pool(client, known, head, route, body, now)
        if entered is None and not is_long:
            entered = self._at_function(known, head, route, body, request_id, now)
        if entered is None:
            return None
        place, reason, upload = entered
        is_watched = shadow is not None or route.alike.model.samples_next
        route.count_arrival()
        watcher: Copy | Sampling | None = None
        if is_watched:
            request = known.one_request(route.alike.model, head, request_id.decode("ascii"), now)
            watcher = self._watcher(shadow, known.runtime, route, request, body)
        of = (self._ground, client, head, route, reason)
        attempt: Attempt
        if upload is not None:
            attempt = upload
        elif watcher is not None:
            attempt = Watched(of, watcher)
        else:
            attempt = Hedged(*of) if route.hedges else Attempt(*of)
        attempt.begin(place, body, request_id, now)
        return attempt

    def _at_pool(
        self, client: Sender, known: KnownHead, head: Sorted, route: Route, body: bytes, now: float
    ) -> Entered | None:
        """A slot of a warm replica, if it is certain that the request goes there."""
        side = route.pool
        if side is None or (reason := side.reason(now, head.deadline_ms)) is None:
            return None
        size = head.body_bytes
        is_long = size > MAX_BODY_BYTES
        room = WINDOW_BYTES if is_long else size
        if not self._ground.bodies.has_room(room) or (endpoint := side.reserve(now)) is None:
            return None
        pool, upload, may_wait = side.pool, None, True
        if is_long:
            upload = Upload((self._ground, client, head, route, reason), client, pool)
            may_wait = size == len(body) or pool.takes_upload(route.alike.request, upload, now)
        # The rate last: what is declined is not taken from it.
        if not may_wait or not known.admit(now):
            if upload is not None:
                pool.upload_left(upload)
            pool.release(endpoint, Verdict.UNTRIED, now, now)
            return None
        return side.way(endpoint), reason, upload

    def _at_function(
        self,
        known: KnownHead,
        head: Sorted,
        route: Route,
        body: bytes,
        request_id: bytes,
        now: float,
    ) -> Entered | None:
        """A slot for a call of the function, if it is decided that the request goes there now."""
        side = route.function
        if side is None or not (side.is_callable and side.function.is_free(now)):
            return None
        if not self._ground.bodies.has_room(len(body)):
            return None
        decision = side.decision(head, request_id, now)
        prepared = None if decision is None else side.prepared(head, request_id, body)
        # In this order: what is declined takes neither of the caller's rate nor an environment.
        if decision is None or prepared is None or not known.admit(now):
            return None
        call = side.call(prepared, now)
        if decision.reason is Reason.EXPLORE:
            route.alike.model.explores(Backend.SERVERLESS, len(body), now)
        return call, decision.reason, None

    def _watcher(
        self,
        shadow: Shadow | None,
        runtime: Runtime,
        route: Route,
        request: InferenceRequest,
        body: bytes,
    ) -> Copy | Sampling | None:
        """Who gets the request and its answer: the shadow or the quality room, if it has room."""
        if shadow is not None:
            return self._ground.shadows.begin(shadow, runtime, request, body)
        alike = route.alike
        assignment = None if alike.assigned is None else alike.assigned.assignment
        return sampling(runtime.quality, alike.model, request, body, assignment)

    def _drawn(
        self, known: KnownHead, head: Sorted, body: bytes
    ) -> tuple[Route | None, Shadow | None]:
        """The request's route, and the shadow that gets a copy of it."""
        shadow, route = None, self._route(known, head.body_bytes, body)
        if type(route) is Fork:
            assert head.request_id is not None  # noqa: S101  see `completed`
            route, shadow = route.route(head.request_id)
        if not isinstance(route, Route):
            return None, None
        return route, shadow

    def _route(self, known: KnownHead, size: int, body: bytes) -> Route | Fork | None:
        name = known.target.model
        if known.is_indirect:
            return None
        if name is None:
            try:
                asked = known.target.protocol.asked_at_once(body)
            except RouterError:
                return None
            if asked.stream:
                return None
            name = asked.model
        routes = known.routes.get(name)
        if routes is None:
            routes = known.routes_to(name)
        try:
            return routes.get(size)
        except KeyError:
            return self._new_route(known, routes, size)

    def _new_route(self, known: KnownHead, routes: Routes, size: int) -> Route | Fork | None:
        """The route of requests of about that size; remembered where all of them have the same."""
        if routes.model is None:
            return None
        request = known.request(routes.model, size)
        rule = first_match(routes.model.policy.rules, request)
        route: Route | Fork | None
        if rule.diverts(request):
            route, is_for_all = self._fork(known, routes.model, rule, request)
        else:
            route, is_for_all = self._straight(known, routes.model, request, None)
        if is_for_all:
            routes.remember(size, route)
        return route

    def _fork(
        self, known: KnownHead, model: ModelRuntime, rule: Rule, request: InferenceRequest
    ) -> tuple[Fork, bool]:
        """The routes of both sides; whether all requests of about that size have the same."""
        trial = known.runtime.trials.get(rule.name)
        if trial is None:
            stable, is_for_all = self._straight(known, model, request, None, is_assigned=True)
            return Fork(rule, None, request, {Side.STABLE: stable}), is_for_all
        by_side, for_all = {}, True
        for side in Side:
            assignment = Assignment(rule.name, side, trial)
            variant = assigned_variant(known.runtime, model, request, assignment)
            by_side[side], is_for_all = self._straight(
                known, variant.model, variant.request, Assigned(assignment, model.name)
            )
            for_all &= is_for_all
        return Fork(rule, trial, request, by_side), for_all

    def _straight(
        self,
        known: KnownHead,
        model: ModelRuntime,
        request: InferenceRequest,
        assigned: Assigned | None,
        *,
        is_assigned: bool = False,
    ) -> tuple[Route | None, bool]:
        """The route to one model; whether all requests of about that size have the same."""
        asked = assigned.asked_model if assigned is not None else model.name
        if assigned is not None and model.hedging is not None:
            return None, True  # the side may be another one by the time of a second attempt
        if not known.may_go_to(model, asked):
            return None, True
        first, last = model.policy.alike(request.payload_bytes)
        warm, *others = (
            prepare(
                replace(request, payload_bytes=each), model.policy.rules, _limits(model),
                is_assigned=is_assigned or assigned is not None,
            )
            for each in (request.payload_bytes, first, min(last, known.max_body_bytes))
        )  # fmt: skip
        is_for_all = all(other == warm for other in others)
        rule = first_match(model.policy.rules, request).name
        route = self._sides(known, Alike(model, request, rule, assigned), warm)
        return route, is_for_all

    def _sides(self, known: KnownHead, alike: Alike, warm: Warm | None) -> Route | None:
        """The route to a model's backends, as far as requests may go there without a task."""
        model = alike.model
        at_pool: PoolSide | None = None
        at_function: FunctionSide | None = None
        if warm is not None and model.pool is not None and model.pool.params.enabled:
            at_pool = PoolSide(alike, model.pool, warm)
        function = model.serverless
        if function is not None and function.params.enabled:
            at_function = FunctionSide(alike, function, self._ground.attempts)
        if at_pool is None and at_function is None:
            return None
        return Route(alike, self._ground.tally, known.body_timeout_s, at_pool, at_function)


def _is_watchable(route: Route, shadow: Shadow | None, head: Sorted) -> bool:
    """Whether nobody is to watch the request, or one who can have it as it passes."""
    samples = route.alike.model.samples_next
    if shadow is None and not samples:
        return True
    is_long = head.body_bytes > MAX_BODY_BYTES  # an `Upload`, which is not a `Watched`
    is_for_two = shadow is not None and samples
    return not (is_long or is_for_two or route.hedges)


def _limits(model: ModelRuntime) -> ServerlessLimits | None:
    """What the model's function can carry, None where it has none that may be used."""
    function = model.serverless
    usable = function is not None and function.params.enabled
    return function.params.limits if function is not None and usable else None
