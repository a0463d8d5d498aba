"""The fast path: requests to a warm replica, by callbacks, without a task.

A small one is complete when it gets here; of a long one the first part has come, and the rest is
passed on as it comes.

Takes only what the ordinary path would have understood the same way and sent to a free slot at
once; everything else it declines, and the ordinary path has it from the first byte. An attempt
that fails here is handed over with its record, and the director goes on from there.

Heads repeat from request to request, so what was understood of one is remembered by its bytes.
"""

from collections.abc import Iterator

from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDictProxy

from router.domain.clock import Clock
from router.domain.decision import Verdict
from router.domain.errors import RouterError
from router.gateway import openai
from router.gateway.access import may_use
from router.gateway.body import STREAM_ABOVE_BYTES, WINDOW_BYTES, BodyBudget
from router.gateway.exchange import Exchange, Telemetry
from router.gateway.fast_attempt import Attempt, Ground
from router.gateway.fast_route import KnownHead, Route, remember
from router.gateway.fast_tally import Tally
from router.gateway.fast_upload import Sender, Upload
from router.gateway.intake import read_intent, request_of
from router.gateway.target import Target
from router.policy.warm import prepare
from router.runtime import RuntimeRef
from router.upstream.client import UpstreamClient

MAX_HEAD_BYTES = 4096
MAX_BODY_BYTES = STREAM_ABOVE_BYTES
_NEVER_FAST = ("expect", "upgrade", "transfer-encoding", "x-router-deadline-ms")


class FastPath:
    """Serves what it can; one for all connections of a data plane."""

    def __init__(
        self,
        runtime: RuntimeRef,
        upstream: UpstreamClient,
        telemetry: Telemetry,
        bodies: BodyBudget,
        clock: Clock,
        ids: Iterator[bytes],
    ) -> None:
        self._tally = Tally(telemetry, clock)
        self._ground = Ground(upstream, self._tally, bodies, clock)
        self._upstream = upstream
        self._bodies = bodies
        self._clock = clock
        self._runtime = runtime
        self._ids = ids
        self._known: dict[bytes, KnownHead] = {}

    @property
    def in_flight(self) -> int:
        """Attempts that have not ended."""
        return self._ground.in_flight

    def known(self, data: bytes) -> tuple[KnownHead, int] | None:
        """The head that `data` begins with, if it is known, and where its body begins."""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
        if end < 4:
            return None
        head = self._known.get(data[:end])
        if head is None:
            return None
        if head.runtime is not self._runtime.current:
            del self._known[data[:end]]  # or it would keep a replaced configuration alive
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
        if body_bytes > runtime.settings.server.max_body_bytes:
            return None
        try:
            intent = read_intent(
                message.method, message.path, headers, runtime, self._clock(), is_ready=True
            )
        except RouterError:
            return None  # the ordinary path says why
        target = intent.target
        if not isinstance(target, Target) or not target.is_inference:
            return None
        head = KnownHead(runtime, intent, target, body_bytes)
        remember(self._known, raw_head, head)
        return head

    def begin(self, client: Sender, head: KnownHead, body: bytes) -> Attempt | None:
        """Send the request to a warm replica, or None if that is not what it clearly needs.

        `body` is all of it, or the first part if it has more than MAX_BODY_BYTES: that gives an
        `Upload`.
        """
        is_long = head.body_bytes > MAX_BODY_BYTES
        route = head.only_route
        if route is None:
            if is_long and head.target.model is None:
                return None  # the model is in the body
            route = self._route(head, body)
            if route is None:
                return None
        now = self._clock()
        reason = route.reason(now)
        if reason is None:
            return None
        pool = route.pool
        room = WINDOW_BYTES if is_long else len(body)
        if not self._bodies.has_room(room) or (endpoint := route.reserve(now)) is None:
            return None
        connection = self._upstream.take_idle(endpoint.address)
        if connection is None:  # opening one takes a while, and may fail
            pool.release(endpoint, Verdict.UNTRIED, now, now)
            return None
        route.count_arrival()
        attempt = (Upload if is_long else Attempt)(self._ground, client, head, route, reason)
        attempt.send(endpoint, connection, body, head.request_id or next(self._ids), now)
        return attempt

    def _route(self, head: KnownHead, body: bytes) -> Route | None:
        name = head.target.model
        if name is None:
            try:
                asked = openai.read_small(body)
            except RouterError:
                return None
            if asked.stream:
                return None
            name = asked.model
        if name in head.routes:
            return head.routes[name]
        route = self._new_route(head, name)
        remember(head.routes, name, route)
        if head.target.model is not None:
            head.only_route = route
        return route

    def _new_route(self, head: KnownHead, name: str) -> Route | None:
        runtime, intent = head.runtime, head.intent
        model = runtime.models.get(name)
        if model is None or model.pool is None or not model.pool.params.enabled:
            return None
        if model.needs_director:
            return None
        if head.target.model is None and model.settings.backend_name != name:
            return None  # the name in the body has to be changed
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
        return Route(model, model.pool, request, warm, self._tally)
