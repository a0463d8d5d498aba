"""From the wire to a request that can be decided: path, head, caller, body, in that order.

What can be refused is refused from the head, before a byte of the body has been read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TypeVar, assert_never

from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDictProxy

from router.dispatch.chain import Link
from router.dispatch.director import Director
from router.domain.addressing import clean_query
from router.domain.clock import Clock
from router.domain.errors import (
    BodyTimeoutError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
)
from router.domain.ports import Payload
from router.domain.request import InferenceRequest
from router.domain.trace_context import TRACEPARENT
from router.gateway import client_address
from router.gateway.access import admit, identify, model_for, stand_ins
from router.gateway.body import STREAM_ABOVE_BYTES, WINDOW_BYTES, Body
from router.gateway.cors import cors_headers, is_preflight
from router.gateway.exchange import Exchange
from router.gateway.head import Head, read_head
from router.gateway.protocols.base import (
    Asked,
    BodyQuestion,
    CountsQuestion,
    Document,
    Own,
    Question,
    Target,
)
from router.gateway.protocols.registry import protocol_of
from router.gateway.protocols.request_line import origin_form, segments_of
from router.gateway.variant import variant_of
from router.policy.canary import Shadow
from router.policy.decide import prioritised
from router.runtime import ModelRuntime, Runtime
from router.settings.keys import ApiKey
from router.settings.server import BackendHint
from router.telemetry.metrics import Metrics
from router.telemetry.trace import asked as asked_for
from router.telemetry.tracer import Tracer
from router.turns import in_turns

T = TypeVar("T")

MAX_QUESTION_BYTES = 64 * 1024
"""A question to the gateway itself is no longer than that."""
_OPEN_PATHS = ("/v2/health/",)
"""Answered without a key: probes have none."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What the head of a request alone says."""

    target: Target | Own
    head: Head
    caller: ApiKey | None
    method: str
    query: str

    @property
    def tenant(self) -> str | None:
        """The tenant of the caller's key."""
        return self.caller.tenant if self.caller is not None else None

    def from_client(self, seen: Iterable[tuple[str, str]]) -> "Intent":
        """This intent with headers that tell backends what is seen of the client."""
        head = replace(self.head, headers={**self.head.headers, **dict(seen)})
        return replace(self, head=head)


@dataclass(frozen=True, slots=True)
class Taken:
    """A request whose model is known, and whose body is here or is passed on as it comes.

    `chain` begins with that model; those that may stand in for it follow.
    """

    chain: tuple[Link, ...]
    body: Payload
    shadow: Shadow | None = None


def read_intent(
    method: str,
    raw_target: str,
    headers: CIMultiDictProxy[str],
    runtime: Runtime,
    now: float,
    *,
    is_ready: bool,
) -> Intent:
    """Understand a head. Raises RouterError."""
    identified = partial(identify, runtime)
    line = method, raw_target
    return resolved_intent(line, headers, runtime, now, caller=identified, is_ready=is_ready)


def resolved_intent(
    line: tuple[str, str],
    headers: CIMultiDictProxy[str],
    runtime: Runtime,
    now: float,
    *,
    caller: Callable[[str | None], ApiKey | None],
    is_ready: bool,
) -> Intent:
    """As `read_intent`; `line` is method and target, `caller` says who it is that has such a key.

    Raises RouterError.
    """
    method, raw_target = line
    # Whoever sends the answer leaves out its body.
    asked = "GET" if method == "HEAD" else method
    path, _, query = origin_form(raw_target).partition("?")
    protocol = protocol_of(path, headers, runtime.openai_paths)
    is_made = client_address.is_made(runtime.settings.server)
    head = read_head(
        headers,
        keys_are_ours=not runtime.keys.is_open,
        media=protocol.media,
        dropped=client_address.NAMES if is_made else frozenset(),
    )
    # Before the path is looked at: a stranger learns nothing of the models that there are.
    known = None if path.startswith(_OPEN_PATHS) else caller(head.key)
    target = protocol.resolve(Question(asked, segments_of(path), runtime, known, now, is_ready))
    if isinstance(target, Target) and target.model is None:
        target.protocol.check_head(head.headers)
    return Intent(target, head, known, asked, clean_query(query))


def request_of(
    intent: Intent,
    target: Target,
    model: ModelRuntime,
    runtime: Runtime,
    exchange: Exchange,
    *,
    stream: bool,
) -> InferenceRequest:
    """The facts of a request to a known model, as far as its body does not add to them."""
    head = intent.head
    return InferenceRequest(
        request_id=exchange.request_id,
        protocol=target.protocol,
        model=model.name,
        method=intent.method,
        action=target.action,
        path=target.protocol.path(target.action, model.settings.backend_name, target.version),
        payload_bytes=exchange.payload_bytes,
        received_at=exchange.received_at,
        version=target.version,
        query=intent.query,
        is_text=head.is_text,
        headers=head.headers,
        tenant=intent.tenant,
        weight=intent.caller.weight if intent.caller is not None else 1.0,
        deadline=_deadline(head, exchange),
        hint=head.hint if _hints_allowed(runtime) else None,
        stream=stream,
        is_idempotent=model.settings.idempotent or not target.is_inference,
        is_inference=target.is_inference,
    )


def _chain(
    intent: Intent,
    asked: Asked,
    model: ModelRuntime,
    request: InferenceRequest,
    runtime: Runtime,
) -> tuple[Link, ...]:
    """The model asked for, and those of its fallbacks that the caller may use."""
    first = _link(model, request, asked)
    if not model.settings.fallback or not request.is_inference:
        return (first,)
    others = stand_ins(runtime, intent.caller, model)
    return first, *(_stand_in(other, request, asked) for other in others)


def _stand_in(model: ModelRuntime, request: InferenceRequest, asked: Asked) -> Link:
    addressed = replace(
        model.addressed(request, None),
        is_idempotent=model.settings.idempotent and request.is_idempotent,
        sequence_id=None,
    )
    return _link(model, addressed, asked)


def _link(model: ModelRuntime, request: InferenceRequest, asked: Asked) -> Link:
    name = model.settings.backend_name
    rewrite = None
    if asked.model != name and asked.renamed is not None:
        rewrite = partial(asked.renamed, model=name)
    return Link(model, prioritised(request, model.policy), rewrite)


class Intake:
    """Reads requests of the data port."""

    def __init__(self, director: Director, metrics: Metrics, tracer: Tracer, clock: Clock) -> None:
        self._director = director
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock

    async def take(
        self,
        message: RawRequestMessage,
        client: asyncio.BaseTransport | None,
        body: Body,
        exchange: Exchange,
        runtime: Runtime,
        *,
        is_ready: bool,
    ) -> Taken | Document:
        """The request, or the answer where the gateway has it itself.

        `client` is its connection. Raises RouterError.
        """
        method, headers = message.method, message.headers
        path = origin_form(message.path).partition("?")[0]
        exchange.protocol = protocol_of(path, headers, runtime.openai_paths)
        exchange.cors = cors_headers(runtime.settings.server, method, headers)
        if exchange.cors and is_preflight(method, headers):
            return Document({})  # without a key: browsers send none with such a question
        intent = read_intent(
            method, message.path, headers, runtime, exchange.received_at, is_ready=is_ready
        )
        if client_address.is_made(runtime.settings.server):
            intent = intent.from_client(client_address.seen_of(client))
        exchange.request_id = intent.head.request_id or exchange.request_id
        target = intent.target
        if isinstance(target, Target):
            return await self.understood(intent, target, body, exchange, runtime)
        return await self._own(target, body, exchange, runtime)

    async def _own(self, asked: Own, body: Body, exchange: Exchange, runtime: Runtime) -> Document:
        """The answer to what the gateway is asked itself. Raises RouterError."""
        match asked:
            case Document():
                return asked
            case BodyQuestion():
                return asked.answer(await self._read(body, exchange, runtime, MAX_QUESTION_BYTES))
            case CountsQuestion():
                return await in_turns(asked.answer(self._metrics.counts))
            case _:
                assert_never(asked)

    async def understood(
        self,
        intent: Intent,
        target: Target,
        body: Body,
        exchange: Exchange,
        runtime: Runtime,
    ) -> Taken:
        """The request behind a head that is understood. Raises RouterError."""
        exchange.key = intent.caller.name if intent.caller is not None else ""
        exchange.record.tenant = intent.tenant or ""
        exchange.traceparent = intent.head.headers.get(TRACEPARENT, "")
        if exchange.record.trace is None:
            exchange.record.trace = self._tracer.begin(exchange.traceparent)
        if exchange.record.trace is not None:
            exchange.record.trace.asked = asked_for(target.protocol, target.action, intent.method)
        exchange.deadline_ms = intent.head.deadline_ms
        exchange.model, exchange.version = target.model or "", target.version
        exchange.payload_bytes = body.declared_bytes or 0

        content = None
        asked = Asked(target.model or "")
        if target.model is None:
            content = await self._read(body, exchange, runtime)
            asked = await target.protocol.asked(content, intent.head.headers)
            exchange.model = asked.model
        model = model_for(runtime, intent.caller, asked.model)
        if not target.is_for(model.name):
            raise NotFoundError(f"model {model.name!r} has no such path: see its openai_paths")
        if not exchange.is_resumed:
            admit(runtime, intent.caller, exchange.received_at)
        request = request_of(intent, target, model, runtime, exchange, stream=asked.stream)
        variant = variant_of(runtime, model, request)
        model, request = variant.model, variant.request
        exchange.assign(variant)
        if content is None:
            if not exchange.is_resumed:
                self._director.check(_chain(intent, asked, model, request, runtime))
            if not body.is_held and _may_stream(model, target, request):
                request = replace(request, kept_bytes=WINDOW_BYTES)
                upload = await self._upload(body, exchange, runtime)
                chain = _chain(intent, asked, model, request, runtime)
                return Taken(chain, upload, variant.shadow)
            content = await self._read(body, exchange, runtime)
            request = await _with_body(request, target, model, content, exchange)
        return Taken(_chain(intent, asked, model, request, runtime), content, variant.shadow)

    async def _upload(self, body: Body, exchange: Exchange, runtime: Runtime) -> "ClientUpload":
        """The body, to be passed on as it comes, once its first part is here. Raises RouterError.

        Not before, for a slot that waits for its client is lost to the others.
        """
        server = runtime.settings.server
        body.check_size(exchange.payload_bytes, server.max_body_bytes)
        body.hold(WINDOW_BYTES)
        await self._in_time(body, exchange, partial(body.read_ahead, server.body_timeout_s))
        return ClientUpload(body, lambda: self._read(body, exchange, runtime), runtime)

    async def _read(
        self, body: Body, exchange: Exchange, runtime: Runtime, most_bytes: int | None = None
    ) -> bytes:
        server = runtime.settings.server
        read = partial(body.read, most_bytes or server.max_body_bytes, server.body_timeout_s)
        content = await self._in_time(body, exchange, read)
        exchange.payload_bytes = len(content)
        return content

    async def _in_time(
        self, body: Body, exchange: Exchange, read: Callable[[float], Awaitable[T]]
    ) -> T:
        """Read, within the client's own deadline too. Raises DeadlineExceededError after it."""
        left_s = inf
        if exchange.deadline_ms is not None:
            left_s = exchange.received_at + exchange.deadline_ms / 1e3 - self._clock()
        try:
            return await read(left_s)
        except BodyTimeoutError:
            if body.waited_s < left_s:
                raise
            message = "the deadline passed before the body had arrived"
            raise DeadlineExceededError(message) from None
        finally:
            exchange.read_s = body.waited_s


class ClientUpload:
    """A body that is passed on as it comes (an `Upload`)."""

    def __init__(
        self, body: Body, read_whole: Callable[[], Awaitable[bytes]], runtime: Runtime
    ) -> None:
        self._body = body
        self._read_whole = read_whole
        self._timeout_s = runtime.settings.server.body_timeout_s
        self._waited_before_s = body.waited_s

    @property
    def waited_s(self) -> float:
        """How long the client has let us wait since the first part was here."""
        return self._body.waited_s - self._waited_before_s

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come."""
        return self._body.is_complete

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has been passed on."""
        return self._body.is_untouched

    async def read(self) -> bytes:
        """The next bytes."""
        return await self._body.read_part(self._timeout_s)

    async def whole(self) -> bytes:
        """All of it, within the limits of a body that is kept."""
        return await self._read_whole()


def _may_stream(model: ModelRuntime, target: Target, request: InferenceRequest) -> bool:
    """Whether a body needs not be kept: it is long, nobody looks inside, and a pool may get it.

    A chunked one is kept: no decision can be taken before its length is known.
    """
    return (
        request.payload_bytes > STREAM_ABOVE_BYTES
        and model.pool is not None
        and model.pool.params.enabled
        and not (model.settings.read_parameters and target.protocol.tells_in_body)
    )


def _deadline(head: Head, exchange: Exchange) -> float | None:
    if head.deadline_ms is None:
        return None
    return exchange.received_at + head.deadline_ms / 1e3


def _hints_allowed(runtime: Runtime) -> bool:
    return runtime.settings.server.backend_hint is BackendHint.ALLOW


async def _with_body(
    request: InferenceRequest,
    target: Target,
    model: ModelRuntime,
    content: bytes,
    exchange: Exchange,
) -> InferenceRequest:
    """Complete the facts that only the body tells: a chunked length, and OIP parameters."""
    if request.is_inference and not content:
        raise InvalidRequestError("the request has no body; send an inference request")
    if len(content) != request.payload_bytes:
        request = replace(request, payload_bytes=len(content))
    if not (model.settings.read_parameters and target.protocol.tells_in_body and content):
        return request
    told = await target.protocol.told(content, request.headers)
    deadline = request.deadline
    if told.timeout_s is not None:
        asked = exchange.received_at + told.timeout_s
        deadline = asked if deadline is None else min(deadline, asked)
        exchange.deadline_ms = (deadline - exchange.received_at) * 1e3
    return replace(request, deadline=deadline, priority=told.priority, sequence_id=told.sequence_id)
