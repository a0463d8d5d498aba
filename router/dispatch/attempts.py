"""One attempt of a request at one backend: its slot, its time, its end, and what it tells.

Decides nothing: which backend and whether again is the director's business.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from router.backends.pool.endpoints import Pool
from router.backends.refusal import verdict_of_answer
from router.backends.serverless.function import Function
from router.domain.clock import Clock
from router.domain.decision import Backend, Decision, Reason, Verdict
from router.domain.errors import AttemptError
from router.domain.ports import BackendResponse, Lease, Payload
from router.domain.request import InferenceRequest
from router.domain.spent import Spent
from router.runtime import ModelRuntime
from router.telemetry.labels import AttemptResult, attempt_result
from router.telemetry.metrics import Metrics
from router.telemetry.trace import Sent, Trace


@dataclass(slots=True)
class Try:
    """One attempt: why it goes where it goes, the slot it holds, and how long it took.

    `sent` is what its span will say of it, once it has been sent and if it is traced.
    """

    decision: Decision
    lease: Lease
    took_s: float = 0.0
    sent: Sent | None = None


@dataclass(slots=True)
class Running:
    """A first attempt that was sent at `started` and is slow, and a second one to race it.

    Who does not await `answer` calls `cancel`, which ends the first.
    """

    model: ModelRuntime
    first: Try
    answer: Coroutine[Any, Any, BackendResponse]
    cancel: Callable[[], None]
    started: float
    second: Try


@dataclass(slots=True)
class Record:
    """What happened to a request, as it goes along; ends up in headers, log and metrics.

    `upstream_s` is the time during which a backend had it. `passed_to` is the model that got it in
    place of the one asked for, `earlier_attempts` and `earlier_queue_s` what came before that.
    `ruled_out` are those of `failed` that would fail this request again for certain.
    `whole_body` is a body that was to come and then had to be kept. `is_counted` says that its
    arrival is known, and what it takes of its caller's rate taken. `running` are attempts that are
    under way when the director gets the request. `tenant` pays `cost_usd`: calls as billed, and the
    seconds of slots at the price of their replicas; `gb_s` is the memory of functions times the
    seconds billed. `trace` is None where nothing is traced.
    """

    decision: Decision | None = None
    endpoint_id: str = ""
    attempts: int = 0
    queue_s: float = 0.0
    upstream_s: float = 0.0
    cold_start: bool | None = None
    cost_usd: float = 0.0
    gb_s: float = 0.0
    failed: dict[Backend, Reason] = field(default_factory=dict)
    ruled_out: set[Backend] = field(default_factory=set)
    avoid: set[str] = field(default_factory=set)
    carried: AttemptError | None = None
    passed_to: str | None = None
    earlier_attempts: int = 0
    earlier_queue_s: float = 0.0
    whole_body: bytes | None = None
    is_counted: bool = False
    tenant: str = ""
    running: Running | None = None
    trace: Trace | None = None

    @property
    def tries(self) -> int:
        """Attempts at the model that has the request now."""
        return self.attempts - self.earlier_attempts

    @property
    def waited_s(self) -> float:
        """Time in queues of the model that has the request now, all waits together."""
        return self.queue_s - self.earlier_queue_s

    def paid(self, spent: Spent) -> None:
        """One of its attempts has cost that."""
        self.cost_usd += spent.usd
        self.gb_s += spent.gb_s

    def was_untried(self) -> None:
        """The only attempt met a connection that the other side had closed: there was none."""
        self.attempts, self.decision = 0, None

    def pass_to(self, model: str) -> None:
        """Another model gets the request; what failed before tells nothing about its backends."""
        self.passed_to = model
        self.earlier_attempts = self.attempts
        self.earlier_queue_s = self.queue_s
        self.decision, self.endpoint_id, self.cold_start = None, "", None
        self.failed.clear()
        self.ruled_out.clear()
        self.avoid.clear()


class Attempts:
    """Sends attempts and releases their slots, each exactly once."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock

    async def send(
        self, model: ModelRuntime, request: InferenceRequest, body: Payload, tried: Try,
        record: Record,
    ) -> BackendResponse:  # fmt: skip
        """One try; its slot is released here unless it succeeds. Raises RouterError."""
        started = self._clock()
        timeout_s = timeout_s_of(model, tried.decision.backend)
        if request.deadline is not None:
            timeout_s = min(timeout_s, request.deadline - started)
        told = self.told(model, request, tried, record)
        sending = tried.lease.send(told, body, max(timeout_s, 0.001))
        return await self.under_way(model, request, tried, record, sending, started)

    def told(
        self, model: ModelRuntime, request: InferenceRequest, tried: Try, record: Record
    ) -> InferenceRequest:
        """The request as this attempt sends it: its own span is what the backend's come under."""
        if record.trace is None:
            return request
        endpoint_id, now = tried.lease.endpoint_id, self._clock()
        tried.sent = record.trace.sending(model.name, tried.decision, endpoint_id, now)
        return replace(request, headers=record.trace.headers(request.headers, tried.sent))

    async def under_way(
        self, model: ModelRuntime, request: InferenceRequest, tried: Try, record: Record,
        sending: Awaitable[BackendResponse], started: float,
    ) -> BackendResponse:  # fmt: skip
        """As `send`, for an attempt that is being sent since `started`."""
        result = AttemptResult.CANCELLED
        response = None
        try:
            response = await sending
        except AttemptError as error:
            late = request.deadline is not None and self._clock() >= request.deadline
            # A client's short deadline says nothing about the backend's health.
            result = AttemptResult.CANCELLED if late else attempt_result(error)
            raise
        finally:
            tried.took_s = self._clock() - started
            if response is None:
                self.release(model, tried, record, result, None)
        return response

    async def end(
        self, model: ModelRuntime, tried: Try, record: Record, result: AttemptResult,
        response: BackendResponse,
    ) -> None:  # fmt: skip
        """An attempt that was answered is over: drop what was not read, free its slot."""
        try:
            await response.close()
        finally:
            self.release(model, tried, record, result, response)

    def abandon(self, record: Record) -> None:
        """Give up attempts that were under way and that nobody has gone on with."""
        running, record.running = record.running, None
        if running is None:
            return
        running.answer.close()
        running.cancel()
        for tried in (running.first, running.second):
            self.release(running.model, tried, record, AttemptResult.CANCELLED, None)

    def release(
        self, model: ModelRuntime, tried: Try, record: Record, result: AttemptResult,
        response: BackendResponse | None,
    ) -> None:  # fmt: skip
        """Free the slot of an attempt that is over, and count it and what it has cost."""
        verdict = verdict_of(result)
        if record.trace is not None and tried.sent is not None:
            _note_end(record.trace, tried.sent, result, self._clock(), response)
        if verdict is Verdict.OK and response is not None:
            verdict = verdict_of_answer(response.status)
        spent = self.settle(model, tried.lease, verdict, response)
        record.paid(spent)
        self._metrics.add_call_cost(model.name, record.tenant, spent)
        self._metrics.record_attempt(model.name, tried.decision.backend, result, tried.took_s)

    def settle(
        self, model: ModelRuntime, lease: Lease, verdict: Verdict, response: BackendResponse | None
    ) -> Spent:
        """Free the slot of an attempt that is over; returns what it has cost, to be counted."""
        function = model.serverless
        cost_before = function.cost_usd if function is not None else 0.0
        gb_s_before = function.gb_s if function is not None else 0.0
        used_s = lease.release(verdict, self._clock(), response)
        # Only now: a stream tells at its end how it began.
        if response is not None and response.cold_start:
            self._metrics.record_cold_start(model.name, response.init_s)
        if function is None or function.cost_usd == cost_before:
            return Spent(used_s * model.replica_usd_per_s)
        return Spent(0.0, function.cost_usd - cost_before, function.gb_s - gb_s_before)


def _note_end(
    trace: Trace, sent: Sent, result: AttemptResult, now: float, response: BackendResponse | None
) -> None:
    trace.attempted(sent, result, now, None if response is None else response.status)
    if response is not None and response.cold_start:
        trace.started_cold(sent, now, response.init_s)


_VERDICTS = {
    AttemptResult.OK: Verdict.OK,
    AttemptResult.REJECTED: Verdict.REJECTED,
    AttemptResult.CANCELLED: Verdict.CANCELLED,
    # The platform did its part: what went wrong is this request's, and others must not pay for it.
    AttemptResult.MODEL_FAILED: Verdict.OK,
    AttemptResult.TIME_LIMIT: Verdict.OK,
    AttemptResult.ANSWER_TOO_LARGE: Verdict.OK,
    # Nothing was sent and the backend is not to blame.
    AttemptResult.ENCODED_TOO_LARGE: Verdict.UNTRIED,
}


def verdict_of(result: AttemptResult) -> Verdict:
    """What the end of an attempt says about its backend."""
    return _VERDICTS.get(result, Verdict.FAILED)


def slots_of(model: ModelRuntime, backend: Backend) -> Pool | Function:
    """The model's backend, as something with slots; the policy only chooses what is configured."""
    slots = model.pool if backend is Backend.POOL else model.serverless
    assert slots is not None  # noqa: S101
    return slots


def timeout_s_of(model: ModelRuntime, backend: Backend) -> float:
    """How long an attempt at that backend may take."""
    if backend is Backend.POOL and model.settings.pool is not None:
        return model.settings.pool.timeouts.response_s
    assert model.serverless is not None  # noqa: S101
    # Time limits count from when the handler starts: add what a cold start may take.
    return model.serverless.params.limits.timeout_s + 3 * model.serverless.init.upper_s + 1.0
