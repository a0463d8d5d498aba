"""One request at a function, by the callbacks of its connection: no task as long as nothing waits.

Takes only what goes to a free slot at once, over a connection that is open. What fails goes on with
the director; how a call is made and what its answer means is the function's business.
"""

import asyncio
from bisect import bisect_right
from typing import NamedTuple
from typing import Protocol as Interface

from router.backends.serverless.function import Function, FunctionLease
from router.dispatch.attempts import Attempts, Record, Try, timeout_s_of
from router.dispatch.outcomes import outcome_of
from router.domain.decision import Backend, Decision, Reason
from router.domain.errors import AttemptError, ResponseLostError, RouterError
from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest
from router.gateway.direct import Client as DirectClient
from router.gateway.direct import Direct, answer_head
from router.gateway.exchange import Exchange
from router.gateway.responses import outcome_of_status
from router.gateway.shortcut.fast_attempt import Carried, Ground
from router.gateway.shortcut.fast_route import ESTIMATES_FRESH_S, KnownHead
from router.gateway.shortcut.known_heads import Sorted
from router.gateway.usage import Watched
from router.policy.decide import decide
from router.runtime import ModelRuntime
from router.telemetry.labels import AttemptResult, attempt_result
from router.upstream.response import Collector, UpstreamResponse


class Client(DirectClient, Interface):
    """The client's connection, as a call uses it."""

    def hand_over(self, carried: Carried) -> None:
        """Let the director have the request; `carried` is what is known of it."""
        ...


class FunctionCalls:
    """Begins calls; one for all connections of a data plane."""

    def __init__(self, ground: Ground) -> None:
        self.bodies = ground.bodies
        self.telemetry = ground.telemetry
        self.clock = ground.clock
        self.attempts = Attempts(ground.metrics, ground.clock)
        self.in_flight = 0
        self._upstream = ground.upstream

    def begin(
        self, client: Client, known: KnownHead, head: Sorted, request_id: str, body: bytes
    ) -> "FunctionCall | None":
        """Call the function, or None if that is not what the request clearly needs."""
        model, now = known.function_model, self.clock()
        if model is None or not self.bodies.has_room(len(body)):
            return None
        request = known.one_request(model, head, request_id, now)
        decision = _remembered(known, model, request, now)
        if decision is None:
            return None
        assert model.serverless is not None  # noqa: S101  it was decided for
        until = now + timeout_s_of(model, Backend.SERVERLESS)
        if request.deadline is not None:
            until = min(until, request.deadline)
        try:
            address, call = model.serverless.caller.prepare(request, body)
        except AttemptError:
            return None  # the director says so
        # In this order: what is declined takes neither of the caller's rate nor an environment.
        if not self._upstream.has_idle(address) or not known.admit(now):
            return None
        if (lease := model.serverless.try_reserve(request, now)) is None:
            return None
        lease.begin(request)
        model.pass_sample()
        collector = self._upstream.begin(address, call, until)
        self._count(model, request, decision, now)
        return FunctionCall(self, client, request, Placed(model, decision, lease), collector)

    def _count(
        self, model: ModelRuntime, request: InferenceRequest, decision: Decision, now: float
    ) -> None:
        self.in_flight += 1
        self.bodies.held_bytes += request.payload_bytes
        model.count_arrival(request.payload_bytes, now, is_captive=False)
        self.telemetry.metrics.record_decision(model.name, decision.backend, decision.reason)
        model.matched[decision.rule] += 1
        if decision.reason is Reason.EXPLORE:
            model.explores(decision.backend, request.payload_bytes, now)


class Placed(NamedTuple):
    """Where a request goes, and the slot that it holds there."""

    model: ModelRuntime
    decision: Decision
    lease: FunctionLease


class FunctionCall:
    """One request at a function; its connection reports what the client does."""

    __slots__ = (
        "_calls", "_client", "_collector", "_direct", "_exchange", "_lease", "_model", "_request",
        "_started", "_tried",
    )  # fmt: skip

    def __init__(
        self,
        calls: FunctionCalls,
        client: Client,
        request: InferenceRequest,
        placed: Placed,
        collector: Collector,
    ) -> None:
        model, decision, lease = placed
        self._calls = calls
        self._client = client
        self._model = model
        self._request = request
        self._lease = lease
        self._tried = Try(decision, lease)
        self._collector = collector
        self._direct: Direct | None = None
        self._started = calls.clock()
        record = Record(
            decision, lease.endpoint_id, attempts=1, is_counted=True, tenant=request.tenant or ""
        )
        self._exchange = Exchange(
            request.request_id, request.received_at, request.protocol, request.model,
            request.version, payload_bytes=request.payload_bytes,
            deadline_ms=_deadline_ms(request), record=record,
            traceparent=request.headers.get("traceparent", ""),
        )  # fmt: skip
        collector.result.add_done_callback(self._on_result)

    # -- what the client's connection reports ----------------------------------------------------

    def on_client_ready(self) -> None:
        """The client takes more of its answer."""
        if self._direct is not None:
            self._direct.on_client_ready()

    def client_gone(self) -> None:
        """The client has closed its connection: so does the function's work end."""
        if self._direct is not None:
            self._direct.client_gone()
            return
        self._collector.result.remove_done_callback(self._on_result)
        self._collector.cancel()
        self._end(AttemptResult.CANCELLED, None)
        self._exchange.client_left()
        self._finish()

    # -- the answer ------------------------------------------------------------------------------

    def _on_result(self, result: "asyncio.Future[UpstreamResponse]") -> None:
        try:
            response = self._understood(result)
        except AttemptError as error:
            self._go_on_after(error)
            return
        if response.rest is not None:
            self._direct = Direct(self._client)
            self._direct.start(self._stream(self._direct, response))
            return
        self._end(AttemptResult.OK, response)
        usage = Watched.of(self._request.protocol, response)
        self._exchange.tokens = usage.tokens if usage is not None else None
        headers = self._headers(response)
        head = answer_head(self._client, response.status, headers, len(response.body))
        self._client.reply(head + response.body)
        self._finish()

    def _understood(self, result: "asyncio.Future[UpstreamResponse]") -> BackendResponse:
        lease = self._lease
        try:
            answer = result.result()
            try:
                response = self._function.caller.understand(answer)
            except AttemptError:
                self._collector.cancel()  # what is still to come of it
                raise
        except AttemptError as error:
            return lease.failed(self._request, error)
        return lease.answered(response)

    async def _stream(self, direct: Direct, response: BackendResponse) -> None:
        result = AttemptResult.CANCELLED
        usage = Watched.of(self._request.protocol, response)
        try:
            await direct.stream(response, self._headers(response))
            self._exchange.tokens = usage.tokens if usage is not None else None
            result = AttemptResult.OK
        except AttemptError as error:
            result = attempt_result(error)
            self._exchange.outcome = outcome_of(error)
        except BaseException:
            self._exchange.client_left()
            raise
        finally:
            await response.close()
            self._end(result, response)
            self._finish()

    def _headers(self, response: BackendResponse) -> list[tuple[str, str]]:
        exchange = self._exchange
        exchange.status, exchange.outcome = response.status, outcome_of_status(response.status)
        exchange.record.cold_start = response.cold_start
        return exchange.relayed(response.headers) + exchange.headers(self._calls.clock())

    def _go_on_after(self, error: AttemptError) -> None:
        """Let the director decide what follows a failed attempt."""
        now, request, record = self._calls.clock(), self._request, self._exchange.record
        result = attempt_result(error)
        if request.deadline is not None and now >= request.deadline:
            result = AttemptResult.CANCELLED  # says nothing about the function's health
        is_lost = isinstance(error, ResponseLostError)
        idempotent = request.is_idempotent
        if is_lost and self._collector.was_no_attempt(
            now - self._started, is_idempotent=idempotent
        ):
            record.was_untried()
            self._lease.may_have_run = False
            result = AttemptResult.CANCELLED
        else:
            record.carried = error
        self._end(result, None)
        self._client.hand_over(Carried(request.request_id, request.received_at, record))

    # -- bookkeeping -----------------------------------------------------------------------------

    @property
    def _function(self) -> Function:
        assert self._model.serverless is not None  # noqa: S101  it was called
        return self._model.serverless

    def _end(self, result: AttemptResult, response: BackendResponse | None) -> None:
        calls, record = self._calls, self._exchange.record
        calls.in_flight -= 1
        calls.bodies.release(self._request.payload_bytes)
        self._tried.took_s = record.upstream_s = calls.clock() - self._started
        calls.attempts.release(self._model, self._tried, record, result, response)

    def _finish(self) -> None:
        self._exchange.finish(self._calls.clock(), self._calls.telemetry)


def _remembered(
    known: KnownHead, model: ModelRuntime, request: InferenceRequest, now: float
) -> Decision | None:
    """The decision, if it is for the function at once.

    Where there is no pool, all that could change it for a request of about that size, given that a
    slot is free, are estimates; they move slowly.
    """
    if model.pool is not None or request.deadline is not None:
        return _decided(model, request, now)
    kind = bisect_right(model.policy.sizes, request.payload_bytes)
    until, known_decision = known.decisions.get(kind, (0.0, None))
    if known_decision is not None and now < until:
        return known_decision
    decision = _decided(model, request, now)
    is_drawn = any(rule.route.serverless_share is not None for rule in model.policy.rules)
    if decision is not None and not is_drawn:
        known.decisions[kind] = now + ESTIMATES_FRESH_S, decision
    return decision


def _decided(model: ModelRuntime, request: InferenceRequest, now: float) -> Decision | None:
    """The decision, if it is for the function at once."""
    try:
        decision = decide(
            request, model.policy, model.state(request, now, {}, is_counted=False), now
        )
    except RouterError:
        return None
    is_at_once = decision.backend is Backend.SERVERLESS and not decision.hold
    return decision if is_at_once else None


def _deadline_ms(request: InferenceRequest) -> float | None:
    if request.deadline is None:
        return None
    return (request.deadline - request.received_at) * 1e3
