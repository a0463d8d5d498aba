"""One request's life: decide, reserve, attempt, retry or spill, record.

Joins the pure policy with the adapters. Knows neither HTTP servers nor wire protocols.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

from router.dispatch.attempts import Attempts, Record, Try, slots_of
from router.dispatch.chain import Link, failed_now, is_left_to_the_next, may_pass_on
from router.dispatch.hedging import Answer, Hedger
from router.dispatch.waiting import Wait
from router.domain.clock import Clock, Sleep
from router.domain.decision import Backend, Decision, Reason, Verdict
from router.domain.errors import (
    AttemptError,
    DeadlineExceededError,
    PlaceClosedError,
    QueueFullError,
    QueueTimeoutError,
    RouterError,
    ShedError,
)
from router.domain.ports import BackendResponse, Payload
from router.domain.request import InferenceRequest
from router.policy.decide import captive, decide
from router.policy.recovery import Failure, Final, Step, what_follows
from router.policy.refusals import Backends, given_up
from router.runtime import ModelRuntime
from router.telemetry.labels import AttemptResult, attempt_result
from router.telemetry.metrics import Metrics

_FIRST_PAUSE_S = 0.05
_MAX_PAUSE_S = 1.0


class Director:
    """Runs requests against the backends of their model."""

    def __init__(
        self, metrics: Metrics, clock: Clock, rng: Random, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._sleep = sleep
        self._attempts = Attempts(metrics, clock)
        self.hedger = Hedger(self._attempts, metrics, clock)

    @asynccontextmanager
    async def serve(
        self, chain: Sequence[Link], body: Payload, record: Record
    ) -> AsyncIterator[BackendResponse]:
        """Get an answer and hold its slot until the caller has passed it on.

        The first model of the chain is the one asked for; each other one stands in for those before
        it. A body that is still to come goes on to a pool as it comes, and then only once; a
        function gets it whole. Raises RouterError. Leaving by an exception cancels what the backend
        still sends.
        """
        model, (tried, response) = await self._served(chain, body, record)
        result = AttemptResult.CANCELLED
        try:
            yield response
            result = AttemptResult.OK
        except AttemptError as error:
            result = attempt_result(error)
            raise
        finally:
            await self._attempts.end(model, tried, record, result, response)
            record.cold_start = response.cold_start

    def abandon(self, record: Record) -> None:
        """Give up what was under way of a request that `serve` has not got."""
        self._attempts.abandon(record)

    def check(self, chain: Sequence[Link]) -> None:
        """Raise now what `serve` would raise, before the body has been read."""
        now = self._clock()
        self._check_deadline(chain[0].request)
        refusal: RouterError | None = None
        for link in chain:
            try:
                decide(
                    link.request, link.model.policy, link.model.state(link.request, now, {}), now
                )
            except RouterError as error:
                refusal = refusal or error
                if not isinstance(refusal, ShedError):
                    break
            else:
                return
        assert refusal is not None  # noqa: S101  a chain has a first model
        raise refusal

    # -- one answer, by the first model that can give it -----------------------------------------

    async def _served(
        self, chain: Sequence[Link], body: Payload, record: Record
    ) -> tuple[ModelRuntime, Answer]:
        link, *others = chain
        while True:
            model, request, own_body = link.model, link.request, await link.body(body)
            if request.is_inference and not record.tries and not record.is_counted:
                self._count_arrival(model, request)
            try:
                return model, await self._answered(
                    model, request, own_body, record, has_stand_in=bool(others)
                )
            except RouterError as error:
                body = body if record.whole_body is None else record.whole_body
                if not others or not may_pass_on(error, request, body, self._clock()):
                    raise
                link, *others = others
                self._metrics.record_pass_on(model.name)
                record.pass_to(link.model.name)

    def _count_decision(
        self, model: ModelRuntime, request: InferenceRequest, decision: Decision
    ) -> None:
        self._metrics.record_decision(model.name, decision.backend, decision.reason)
        model.matched[decision.rule] += 1
        if decision.reason is Reason.EXPLORE:
            model.explores(decision.backend, request.payload_bytes, self._clock())

    def _count_arrival(self, model: ModelRuntime, request: InferenceRequest) -> None:
        now = self._clock()
        is_captive = captive(request, model.state(request, now, {}).serverless)
        model.count_arrival(request.payload_bytes, now, is_captive)

    # -- one answer, by as many attempts as are allowed ------------------------------------------

    async def _answered(
        self,
        model: ModelRuntime,
        request: InferenceRequest,
        body: Payload,
        record: Record,
        *,
        has_stand_in: bool,
    ) -> Answer:
        error, record.carried = record.carried, None
        running, record.running = record.running, None
        while True:
            if running is None:
                tried, body = await self._placed(
                    model, request, body, record, error, has_stand_in=has_stand_in
                )
                error = None
                if tried is None:
                    continue
                started = self._clock()
                answer = self.hedger.answer(model, request, body, tried, record)
            else:
                started = running.started
                answer = self.hedger.overtake(model, request, body, running, record)
                running = None
            try:
                tried, response = await answer
            except AttemptError as failure:
                error = failure
            else:
                record.decision = tried.decision
                record.endpoint_id = tried.lease.endpoint_id
                record.cold_start = response.cold_start
                return tried, response
            finally:
                record.upstream_s += self._clock() - started

    async def _placed(
        self,
        model: ModelRuntime,
        request: InferenceRequest,
        body: Payload,
        record: Record,
        error: AttemptError | None,
        *,
        has_stand_in: bool,
    ) -> tuple[Try | None, Payload]:
        """The slot for the next attempt, and the body for it; no slot: to be asked again."""
        if error is not None and record.decision is not None:
            can_resend = isinstance(body, bytes) or body.is_untouched
            await self._recover(model, request, error, record, can_resend=can_resend)
        self._check_deadline(request)
        decision, body = await self._decided(
            model, request, body, record, has_stand_in=has_stand_in
        )
        tried = await self._reserve(model, request, decision, record)
        if tried is None:
            return None, body
        if not isinstance(body, bytes) and not tried.lease.may_wait_for(request, body):
            # Too many slots wait for their clients already: it gets one once it is complete.
            tried.lease.release(Verdict.UNTRIED, self._clock(), None)
            body = record.whole_body = await body.whole()
            return None, body
        record.attempts += 1
        record.endpoint_id = tried.lease.endpoint_id
        return tried, body

    async def _decided(
        self,
        model: ModelRuntime,
        request: InferenceRequest,
        body: Payload,
        record: Record,
        *,
        has_stand_in: bool,
    ) -> tuple[Decision, Payload]:
        """Where the next attempt goes, and the body as that place can have it."""
        decision = self._decide(model, request, record)
        if has_stand_in and is_left_to_the_next(decision):
            raise failed_now(model, decision)
        if decision.backend is Backend.SERVERLESS and not isinstance(body, bytes):
            body = record.whole_body = await body.whole()
            decision = self._decide(model, request, record)  # that took a while
        if record.passed_to is not None:
            decision = record.decision = replace(decision, reason=Reason.FALLBACK)
        self._count_decision(model, request, decision)
        may_move = isinstance(body, bytes) or decision.backend is Backend.SERVERLESS
        if decision.anywhere and not may_move:
            decision = replace(decision, anywhere=False)  # a function gets no body in parts
        return decision, body

    def _decide(self, model: ModelRuntime, request: InferenceRequest, record: Record) -> Decision:
        now = self._clock()
        try:
            state = model.state(request, now, record.failed, record.waited_s)
            decision = decide(request, model.policy, state, now)
        except ShedError:
            if not record.failed:
                raise
            # No other way: the backend that failed is better than no answer.
            hard = {backend: record.failed[backend] for backend in record.ruled_out}
            state = model.state(request, now, hard, record.waited_s)
            decision = decide(request, model.policy, state, now)
        record.decision = decision
        if record.trace is not None:
            record.trace.decided(decision, now, self._clock())
        return decision

    async def _reserve(
        self, model: ModelRuntime, request: InferenceRequest, decision: Decision, record: Record
    ) -> Try | None:
        """A slot, after waiting for it if need be; None once the request is to be decided anew."""
        slots = slots_of(model, decision.backend)
        now = self._clock()
        lease = slots.try_reserve(request, now, record.avoid)
        if lease is None and record.avoid and not _has_others(model, decision, record, now):
            # The place that failed before is better than a queue in front of it; but the others
            # are worth waiting for: a place that refuses all is always free, and would get it back.
            lease = slots.try_reserve(request, now)
        if lease is not None:
            return Try(decision, lease)
        # All waits of a request together: one that failed does not get the whole time again.
        wait_s = max(0.0, _max_wait_s(model, decision.backend) - record.waited_s)
        if request.deadline is not None:
            wait_s = min(wait_s, request.deadline - now)
        try:
            wait_s_here = min(wait_s, decision.patience_s)
            if not decision.anywhere:
                return Try(decision, await slots.reserve(request, wait_s_here, record.avoid))
            # The other backend is asked at once, unless it has just failed the request.
            pause_s = self._pause_s(record) if decision.backend.other in record.failed else 0.0
            wait = Wait(model, request, decision, self._clock, record.avoid)
            taken, found = await wait.slot(wait_s_here, pause_s)
        except PlaceClosedError:
            return None
        except (QueueFullError, QueueTimeoutError) as error:
            if isinstance(error, QueueTimeoutError):
                is_for_the_other = decision.patience_s < wait_s
            else:  # displaced by a request that goes before it
                is_for_the_other = not (record.failed or _only(model, decision.backend))
            if is_for_the_other:
                record.failed[decision.backend] = Reason.SPILLOVER
                return None
            self._check_deadline(request)
            state = model.state(request, self._clock(), {})
            backends = Backends(state.serverless, state.pool)
            raise given_up(request, backends, decision.backend, error) from error
        else:
            return Try(self._moved(model, decision, taken, record), found)
        finally:
            self._note_wait(model, decision, record, now)

    def _note_wait(
        self, model: ModelRuntime, decision: Decision, record: Record, since: float
    ) -> None:
        now = self._clock()
        record.queue_s += now - since
        self._metrics.observe_queue_wait(model.name, now - since)
        if record.trace is not None:
            record.trace.queued(decision, since, now)

    def _moved(
        self, model: ModelRuntime, decision: Decision, taken: Decision, record: Record
    ) -> Decision:
        """The decision that the slot fits which came first; counted if it is another one."""
        if taken.backend is decision.backend:
            return decision
        if record.passed_to is not None:
            taken = replace(taken, reason=Reason.FALLBACK)
        record.decision = taken
        self._metrics.record_decision(model.name, taken.backend, taken.reason)
        return taken

    async def _recover(
        self,
        model: ModelRuntime,
        request: InferenceRequest,
        error: AttemptError,
        record: Record,
        *,
        can_resend: bool,
    ) -> None:
        """Do what follows a failed attempt: raise what the client is to see, or get ready again."""
        assert record.decision is not None  # noqa: S101  it had one to fail with
        now, backend = self._clock(), record.decision.backend
        failure = self._failure(model, backend, error, record, now, can_resend=can_resend)
        recovery = what_follows(failure, request, now)
        if recovery.final is Final.LATE:
            raise DeadlineExceededError("the deadline passed while a backend worked") from error
        if recovery.costs_retry or recovery.final is Final.NO_BUDGET:
            model.budget.withdraw()  # counts, too, that it was wanted
        if recovery.final is Final.NO_BUDGET:
            self._metrics.record_retry_budget_exhausted()
        if recovery.step is Step.ANSWER:
            raise error
        self._metrics.record_retry(model.name)
        if recovery.step is Step.ASIDE:
            return
        if recovery.forgets:
            record.avoid.clear()
        record.failed[backend] = recovery.reason
        if recovery.is_certain:
            record.ruled_out.add(backend)
        if recovery.pauses:
            await self._sleep(self._pause_s(record))

    def _failure(
        self,
        model: ModelRuntime,
        backend: Backend,
        error: AttemptError,
        record: Record,
        now: float,
        *,
        can_resend: bool,
    ) -> Failure:
        has_siblings = False
        if backend is Backend.POOL and model.pool is not None:
            record.avoid.add(record.endpoint_id)
            has_siblings = model.pool.others_available(record.avoid, now)
        return Failure(
            error=error,
            backend=backend,
            tries=record.tries,
            attempts=model.settings.attempts,
            can_resend=can_resend,
            has_budget=model.budget.tokens >= 1.0,
            has_siblings=has_siblings,
            is_only_backend=_only(model, backend),
            failed_before=backend in record.failed,
        )

    def _pause_s(self, record: Record) -> float:
        """How long a place is left alone that has failed the request."""
        # Full jitter, so that requests that failed together do not come back together.
        return self._rng.uniform(0.0, min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2**record.tries))

    # -- bookkeeping -----------------------------------------------------------------------------

    def _check_deadline(self, request: InferenceRequest) -> None:
        if request.deadline is not None and self._clock() >= request.deadline:
            raise DeadlineExceededError("the deadline passed before a backend could answer")


def _has_others(model: ModelRuntime, decision: Decision, record: Record, now: float) -> bool:
    """Whether the pool has endpoints in traffic that have not failed the request."""
    pool = model.pool if decision.backend is Backend.POOL else None
    return pool is not None and pool.others_available(record.avoid, now)


def _only(model: ModelRuntime, backend: Backend) -> bool:
    other = model.pool if backend is Backend.SERVERLESS else model.serverless
    return other is None


def _max_wait_s(model: ModelRuntime, backend: Backend) -> float:
    settings = model.settings.pool if backend is Backend.POOL else model.settings.serverless
    assert settings is not None  # noqa: S101
    return settings.queue.max_wait_s
