"""One model's function: its concurrency, its circuit, what its calls take and cost.

Holds the state of a serverless backend; carrying bytes is the caller's job, deciding the policy's.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection
from dataclasses import dataclass
from math import ceil, inf
from typing import Protocol

import msgspec

from router.admission.circuit import CircuitBreaker, CircuitParams
from router.admission.limits import AimdLimit
from router.admission.line import Ticket, ticket_of
from router.admission.slots import SlotQueue, Waiter
from router.backends.serverless.calls import Calls
from router.backends.serverless.cold_starts import FirstByteStep, FirstSeen, InitTimes
from router.domain.clock import Clock
from router.domain.decision import Verdict
from router.domain.errors import AttemptError, ModelFailedError, UpstreamRejectedError
from router.domain.events import EventKind, told
from router.domain.ports import BackendResponse, Payload, Upload
from router.domain.request import InferenceRequest
from router.domain.snapshot import ServerlessLimits, ServerlessSnapshot
from router.policy.estimates import FunctionTimes, WarmEnvironments
from router.policy.exploration import Exploration
from router.upstream.response import UpstreamResponse

_log = logging.getLogger(__name__)

_SAY_EVERY_S = 10.0
"""A function that works and fails in turn must not fill the log; the metric shows each turn."""

FUNCTION_CIRCUIT = CircuitParams(
    failures_to_open=5, pause_s=1.0, max_pause_s=30.0, window=20, failure_ratio=0.8
)
"""A function is one place for all callers: it is left alone only if it fails nearly all of them."""


class FunctionCaller(Protocol):
    """Carries calls to a platform. Raises AttemptError and nothing else."""

    @property
    def own_headers(self) -> frozenset[str]:
        """Headers (lower case) that it adds to calls: a client's own of that name do not go on."""
        ...

    def prepared(self, request: InferenceRequest, own: Collection[str] = ()) -> Calls | None:
        """The calls of requests like this one, for who sends by itself.

        `own` are headers that each of them has among lines of its own. None if an answer takes more
        than `Calls` can say.
        """
        ...

    async def call(
        self, request: InferenceRequest, body: bytes, timeout_s: float
    ) -> BackendResponse:
        """Call the function and return its answer."""
        ...

    async def finished(self, answer: UpstreamResponse) -> BackendResponse:
        """The answer to a call that somebody else has sent; what is none of it is closed."""
        ...


@dataclass(frozen=True, slots=True)
class KeptWarm:
    """Environments that never start cold and are paid for all the time.

    Calls use them first; `usd_per_billed_s` is what such a call costs beside `usd_per_s`, which is
    what all of them cost whether they are used or not.
    """

    environments: int = 0
    usd_per_billed_s: float = 0.0
    usd_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FunctionParams:
    """Bounds, prices and priors of a function; a reload replaces them."""

    endpoint_id: str
    enabled: bool
    limits: ServerlessLimits
    max_concurrency: int
    max_queued: int
    max_queued_bytes: int
    max_wait_s: float
    reclaim_s: float
    usd_per_request: float
    usd_per_billed_s: float
    service_time_s: float
    cold_start_s: float
    min_billed_s: float = 0.0
    billing_step_s: float = 0.0
    kept_warm: KeptWarm = KeptWarm()
    model: str = ""
    memory_gb: float = 0.0

    def price_usd(self, billed_s: float, *, is_kept: bool = False) -> float:
        """What a call of that duration costs, by the platform's least and rounded duration.

        `is_kept` says that it has an environment that is kept warm.
        """
        return self.price_of_billed_usd(self.billed_s(billed_s), is_kept=is_kept)

    def price_of_billed_usd(self, billed_s: float, *, is_kept: bool) -> float:
        """What a call costs of which so much is billed."""
        usd_per_s = self.kept_warm.usd_per_billed_s if is_kept else self.usd_per_billed_s
        return self.usd_per_request + billed_s * usd_per_s

    def billed_s(self, took_s: float) -> float:
        """What is billed of that duration."""
        billed_s = max(took_s, self.min_billed_s)
        if self.billing_step_s:
            # Not a step more for a float that came out a hair too long.
            billed_s = ceil(billed_s / self.billing_step_s - 1e-9) * self.billing_step_s
        return billed_s


class Function:
    """A serverless backend of one model."""

    def __init__(self, params: FunctionParams, caller: FunctionCaller, clock: Clock) -> None:
        self.params = params
        self.caller = caller
        self.circuit = CircuitBreaker(FUNCTION_CIRCUIT)
        self.limit = AimdLimit(params.max_concurrency)
        self.environments = WarmEnvironments(params.reclaim_s, params.max_concurrency)
        self.times = FunctionTimes(params.service_time_s, params.cold_start_s)
        self.service_times = self.times.service
        self.billed_times = self.times.billed
        self.init = self.times.init
        self.exploration = Exploration()
        self.in_flight = 0
        self.kept_in_flight = 0
        self.cost_usd = 0.0
        self.gb_s = 0.0
        self.calls = 0
        self.cold_calls = 0
        self.init_times = InitTimes()
        self.seen = FirstSeen()
        self.first_byte_step = FirstByteStep(params.service_time_s)
        self._clock = clock
        self._closed_at: float | None = None
        self._said_at = -inf
        self._timer: asyncio.TimerHandle | None = None
        self.queue: SlotQueue[bool] = SlotQueue(
            params.max_queued, params.max_queued_bytes, lambda _slot: self._vacate()
        )

    def reconfigure(self, params: FunctionParams, caller: FunctionCaller) -> None:
        """Take new bounds, prices and caller; what was learned stays."""
        if params != self.params:
            self.exploration.renewed()
        self.params = params
        self.caller = caller
        self.limit.resize(params.max_concurrency)
        self.environments.reclaim_s = params.reclaim_s
        self.environments.max_concurrency = params.max_concurrency
        self.queue.max_requests = params.max_queued
        self.queue.max_bytes = params.max_queued_bytes

    def snapshot(
        self,
        payload_bytes: int,
        now: float,
        ticket: Ticket | None = None,
        waited_s: float = 0.0,
        requests: int = 0,
    ) -> ServerlessSnapshot:
        """The function as it is now, for a request of that size with that place in its queue.

        `waited_s` is what the request has used up of the longest wait, `requests` how many have
        come for the model.
        """
        queued, queued_bytes = self.queue.seen_by(ticket)
        service = self.service_times.estimate(payload_bytes)
        return ServerlessSnapshot(
            enabled=self.params.enabled,
            breaker_open=self.circuit.is_open(now),
            open_for_s=self.circuit.open_for_s(now),
            in_flight=self.in_flight,
            max_concurrency=self.limit.current,
            queued=queued,
            queued_bytes=queued_bytes,
            max_queued=self.queue.max_requests,
            max_queued_bytes=self.queue.max_bytes,
            max_wait_s=max(0.0, self.params.max_wait_s - waited_s),
            limits=self.params.limits,
            expected_s=service.mean_s,
            upper_s=service.upper_s,
            is_learned=service.is_learned,
            is_untried=service.is_untried,
            may_try=self.exploration.is_due(payload_bytes, service.count, requests, now),
            p_cold=0.0 if self._kept_is_free else self.environments.p_cold(now),
            init_s=self.init.mean_s,
            price_usd=self.expected_price_usd(payload_bytes),
        )

    @property
    def kept_free(self) -> int:
        """Environments kept warm that no call uses now."""
        return max(0, self.params.kept_warm.environments - self.kept_in_flight)

    @property
    def _kept_is_free(self) -> bool:
        return self.kept_in_flight < self.params.kept_warm.environments

    def expected_price_usd(self, payload_bytes: int) -> float:
        """What a warm call of that size, made now, is expected to cost."""
        billed_s = self.billed_times.estimate(payload_bytes).mean_s
        return self.params.price_usd(billed_s, is_kept=self._kept_is_free)

    def try_reserve(
        self, request: InferenceRequest, now: float, avoid: Collection[str] = ()
    ) -> "FunctionLease | None":
        """A concurrency slot, None if all are taken, others wait, or no call may be made now."""
        del request, avoid  # a platform gives every call an environment of its own choice
        return self.take(now) if self.is_free(now) else None

    def is_free(self, now: float) -> bool:
        """Whether `try_reserve` gives a slot now."""
        return not self.queue.waiters and self._may_call(now)

    def take(self, now: float) -> "FunctionLease":
        """A slot, where `is_free` has said that there is one."""
        self._occupy(now)
        return self._lease(now)

    async def reserve(
        self, request: InferenceRequest, timeout_s: float, avoid: Collection[str] = ()
    ) -> "FunctionLease":
        """Wait for a concurrency slot, and while the circuit is open for its end."""
        del avoid
        waiter = Waiter()
        self.join(waiter, request)
        await waiter.slot(timeout_s)
        return self._lease(self._clock())

    def call_for_capacity(self) -> None:
        """Somebody waits: the platform starts what is needed by itself."""

    def join(self, waiter: Waiter, request: InferenceRequest) -> None:
        """Let a request wait for a concurrency slot. Raises QueueFullError."""
        self.queue.join(waiter, ticket_of(request))
        self._wake_when_reopened(self._clock())

    def lease(
        self, request: InferenceRequest, slot: bool, avoid: Collection[str] = ()
    ) -> "FunctionLease":
        """The slot that a request was handed: it came occupied."""
        del request, slot, avoid  # all slots are alike
        return self._lease(self._clock())

    def _may_call(self, now: float) -> bool:
        return self.in_flight < self.limit.current and not self.circuit.is_open(now)

    def _occupy(self, now: float) -> None:
        self.in_flight += 1
        self.circuit.admit(now)

    def _lease(self, now: float) -> "FunctionLease":
        if self._kept_is_free:
            self.kept_in_flight += 1
            return FunctionLease(self, self._clock, expected_warm=True, is_kept=True)
        return FunctionLease(self, self._clock, expected_warm=self.environments.take(now))

    def _vacate(self) -> None:
        self.in_flight -= 1
        if self.queue.waiters:
            self.pump(self._clock())

    def pump(self, now: float) -> None:
        """Hand slots to those who wait, as far as calls may be made."""
        # One by one: a trial closes the door behind it again.
        while self.queue.has_waiting and self._may_call(now):
            self._occupy(now)
            self.queue.hand_over(slot=True)
        if self.queue.has_waiting:
            self._wake_when_reopened(now)

    def _wake_when_reopened(self, now: float) -> None:
        """Nobody may be in flight whose end would serve the queue: a timer has to."""
        open_for_s = self.circuit.open_for_s(now)
        if open_for_s > 0.0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(open_for_s, self._reopened)

    def _reopened(self) -> None:
        self._timer = None
        self.pump(self._clock())

    def finish(self, lease: "FunctionLease", verdict: Verdict, now: float) -> None:
        """Learn from one call and free its slot."""
        self._judge(lease, verdict, now)
        self.kept_in_flight -= lease.is_kept
        if lease.response is not None:
            self._learn(lease, lease.response, now)
        elif lease.may_have_run:
            # Without telling what it cost.
            self._bill(lease, lease.served_s)
        self._vacate()

    def _bill(self, lease: "FunctionLease", took_s: float) -> None:
        params = self.params
        billed_s = params.billed_s(took_s)
        self.cost_usd += params.price_of_billed_usd(billed_s, is_kept=lease.is_kept)
        self.gb_s += billed_s * params.memory_gb

    def _judge(self, lease: "FunctionLease", verdict: Verdict, now: float) -> None:
        """What the call's end says of the platform."""
        match verdict:
            case Verdict.OK | Verdict.MODEL_ERROR:
                # The platform has done its part, and there is no other function to compare with.
                self.circuit.succeeded()
                self.limit.succeeded()
                if self._closed_at is not None and not self.circuit.is_open(now):
                    self._reopens(now)
            case Verdict.REJECTED:
                self.limit.refused(self.in_flight)
                was_open = self.circuit.is_open(now)
                self.circuit.pause(now, lease.pause_s)
                if lease.pause_s and not was_open:
                    self._closes(lease, now)
            case Verdict.FAILED:
                if self.circuit.failed(now):
                    self._closes(lease, now)
            case Verdict.UNTRIED:
                self.circuit.not_tried()
            case Verdict.CANCELLED:
                pass

    def _closes(self, lease: "FunctionLease", now: float) -> None:
        """No call is made for a while: say why, once, and let those who wait look elsewhere."""
        if self._closed_at is None:
            self._closed_at = now
            if now - self._said_at >= _SAY_EVERY_S:
                self._said_at = now
                pause_s = self.circuit.open_for_s(now)
                kind = EventKind.THROTTLED if lease.pause_s else EventKind.CIRCUIT
                _log.warning(
                    "function %s: its circuit opens, no calls for %.1f s: %s",
                    self.params.endpoint_id, pause_s, lease.failure,
                    extra=told(
                        kind, self.params.model, pause_s=round(pause_s, 1),
                        opened=self.circuit.opened, in_flight=self.in_flight,
                    ),
                )  # fmt: skip
        self.queue.send_away()

    def _reopens(self, now: float) -> None:
        assert self._closed_at is not None  # noqa: S101
        if self._said_at >= self._closed_at:
            _log.info(
                "function %s: its circuit closes, a call was answered after %.1f s",
                self.params.endpoint_id, now - self._closed_at,
                extra=told(
                    EventKind.CIRCUIT, self.params.model, open_s=round(now - self._closed_at, 1)
                ),
            )  # fmt: skip
        self._closed_at = None

    def judge_start(self, lease: "FunctionLease", response: BackendResponse) -> None:
        """Find out whether a call started cold, if nothing tells."""
        if response.cold_start is not None:
            return
        if response.environment_id is not None:
            response.cold_start = self.seen.is_new(response.environment_id)
        elif lease.is_inference and response.status < 400:
            response.cold_start = self.first_byte_step.is_cold(
                lease.payload_bytes, lease.first_byte_s, self.init.mean_s,
                expected_warm=lease.expected_warm,
            )  # fmt: skip

    def _learn(self, lease: "FunctionLease", response: BackendResponse, now: float) -> None:
        if response.cold_start is None:
            self.judge_start(lease, response)
        was_cold = response.cold_start
        if not lease.is_kept:
            self.environments.give_back(now, expected_warm=lease.expected_warm, was_cold=was_cold)
        self.calls += 1
        billed_s = response.billed_s if response.billed_s is not None else lease.served_s
        self._bill(lease, billed_s)
        init_s = response.init_s or 0.0
        if was_cold:
            self.cold_calls += 1
            usual_s = self.service_times.estimate(lease.payload_bytes).mean_s
            self.init_times.add(init_s or max(lease.served_s - usual_s, 0.0))
            self.times.cold(lease.payload_bytes, lease.served_s, init_s)
        if response.status < 400 and lease.is_inference:
            billed_warm_s = max(billed_s - init_s, 0.0)
            self.times.answered(
                lease.payload_bytes, lease.served_s, billed_warm_s, was_cold=bool(was_cold)
            )


class FunctionLease:
    """A concurrency slot of a function."""

    __slots__ = (
        "_clock",
        "_function",
        "_is_streamed",
        "_started",
        "expected_warm",
        "failure",
        "first_byte_s",
        "is_inference",
        "is_kept",
        "may_have_run",
        "pause_s",
        "payload_bytes",
        "response",
        "served_s",
    )

    def __init__(
        self, function: Function, clock: Clock, *, expected_warm: bool, is_kept: bool = False
    ) -> None:
        self._function = function
        self._clock = clock
        self.expected_warm = expected_warm
        self.is_kept = is_kept
        self.payload_bytes = 0
        self.is_inference = True
        self.first_byte_s = 0.0
        self.served_s = 0.0
        self.may_have_run = False
        self.pause_s = 0.0
        self.failure = "its answer broke off"
        self.response: BackendResponse | None = None
        self._started = 0.0
        self._is_streamed = False

    @property
    def endpoint_id(self) -> str:
        """Opaque id of the function."""
        return self._function.params.endpoint_id

    def may_wait_for(self, request: InferenceRequest, upload: Upload) -> bool:
        """A call has all of its body."""
        del request, upload
        return False

    async def send(
        self, request: InferenceRequest, body: Payload, timeout_s: float
    ) -> BackendResponse:
        """Call the function."""
        content = body if isinstance(body, bytes) else await body.whole()
        self.begin(request, request.payload_bytes)
        return await self._answer(request, self._function.caller.call(request, content, timeout_s))

    async def taken_over(
        self, request: InferenceRequest, answer: Awaitable[UpstreamResponse], started: float
    ) -> BackendResponse:
        """As `send`, for a call that is under way since `started`."""
        self._started = started

        async def finished() -> BackendResponse:
            return await self._function.caller.finished(await answer)

        return await self._answer(request, finished())

    async def _answer(
        self, request: InferenceRequest, answer: Awaitable[BackendResponse]
    ) -> BackendResponse:
        try:
            response = await answer
        except AttemptError as error:
            return self.failed(request, error)
        except BaseException:
            self.note_time()
            raise
        return self.answered(response, is_complete=response.rest is None)

    def begin(self, request: InferenceRequest, payload_bytes: int) -> None:
        """The call is about to be sent; then comes `answered` or `failed`, unless it is dropped."""
        self._started = self._clock()
        self.payload_bytes = payload_bytes
        self.is_inference = request.is_inference
        self.may_have_run = True

    def answered(self, response: BackendResponse, *, is_complete: bool = True) -> BackendResponse:
        """The function has answered, at least with a head."""
        self.note_time()
        self._is_streamed = not is_complete
        if is_complete:  # a stream may tell yet, at its end
            self._function.judge_start(self, response)
        self.response = response
        return response

    def failed(self, request: InferenceRequest, error: AttemptError) -> BackendResponse:
        """The answer where the model's own code has failed. Raises every other error."""
        if isinstance(error, ModelFailedError):
            return self.answered(_answer_of(request, error))
        self.note_time()
        self.may_have_run = error.was_sent
        self.failure = str(error)
        if isinstance(error, UpstreamRejectedError):
            self.pause_s = error.retry_after_s or 0.0
        raise error

    def note_time(self) -> None:
        """It has taken until now."""
        self.first_byte_s = self.served_s = self._clock() - self._started

    def release(self, verdict: Verdict, now: float, response: BackendResponse | None) -> float:
        """Free the slot; learn times, cost and warmth."""
        # What send kept counts, even if the client never read it. A stream ran until now.
        del response
        if self._is_streamed:
            self.served_s = now - self._started
        self._function.finish(self, verdict, now)
        return 0.0


def _answer_of(request: InferenceRequest, error: ModelFailedError) -> BackendResponse:
    """The answer that a model would have given, had its own code not failed."""
    document = request.protocol.error_document(str(error), error.code, 500)
    response = BackendResponse(
        500, [("content-type", "application/json")], msgspec.json.encode(document)
    )
    response.billed_s, response.init_s = error.billed_s, error.init_s
    response.cold_start = None if error.billed_s is None else error.init_s is not None
    return response
