"""One attempt of a job: what is asked, of whom, and what becomes of the job after it.

A call goes through the same director as every request; what a batch needs as a whole (`Step`) is
done here too. Writes nothing down.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from router.dispatch.outcomes import outcome_of
from router.domain.errors import (
    AttemptError,
    DeadlineExceededError,
    ModelFailedError,
    NotDurableError,
    RouterError,
    ShedError,
    UpstreamRejectedError,
)
from router.gateway.body import HeldBody
from router.gateway.exchange import Exchange
from router.gateway.protocols.registry import protocol_of
from router.gateway.responses import error_answer, outcome_of_status
from router.jobs.answers import cause_of, collected, refused
from router.jobs.calls import CallHeads
from router.jobs.place import Calling, Place, Step
from router.jobs.records import End, Job, Kind, Result, State

_log = logging.getLogger(__name__)

_MAX_PAUSE_S = 60.0
_SHED_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Again:
    """A job is put back; `counts` says whether its attempt was one."""

    ready_at: float
    counts: bool


class Work:
    """Makes attempts of jobs."""

    def __init__(self, place: Place, calling: Calling, steps: Mapping[Kind, Step]) -> None:
        self._place = place
        self._calling = calling
        self._steps = steps
        self._heads = CallHeads()

    async def attempt(self, job: Job, content: bytes | None, *, is_paid: bool) -> End | Again:
        """What an attempt comes to; `content` is the body, None if it has not been read yet."""
        now = self._place.wall_clock()
        if now >= job.due_at and job.spec.kind is Kind.CALL:
            late = Result(cause="its window ended before it could begin")
            return End(job.id, job.attempt, State.EXPIRED, now, late)
        exchange = Exchange(f"{job.id}-{job.attempt}", self._calling.clock())
        try:
            if job.spec.kind is Kind.CALL:
                result = await self._called(job, content, exchange, is_paid=is_paid)
            else:
                result = await self._steps[job.spec.kind](job)
        except Exception as error:  # noqa: BLE001  root of a job: what it was is written down
            exchange.status = error_answer(error, exchange.protocol).status
            exchange.outcome, exchange.error = outcome_of(error), error
            self._trace(exchange)
            found = self._failed(job, error, exchange.request_id)
            if isinstance(found, Again):
                return found
            state, result = found
        else:
            self._trace(exchange)
            state = State.DEAD if job.batch and result.status >= 400 else State.DONE
        return End(
            job.id, job.attempt, state, self._place.wall_clock(), result, exchange.record.cost_usd
        )

    def _trace(self, exchange: Exchange) -> None:
        if exchange.record.trace is not None:
            now = self._calling.clock()
            record = exchange.access_record(now - exchange.received_at)
            exchange.end_trace(record, now, self._calling.tracer)

    def _failed(self, job: Job, error: Exception, request_id: str) -> tuple[State, Result] | Again:
        """What becomes of a job whose attempt failed."""
        now = self._place.wall_clock()
        if isinstance(error, ShedError | UpstreamRejectedError | NotDurableError):
            pause_s = self._calling.rng.uniform(0.0, 2 * _SHED_PAUSE_S)
            return Again(now + pause_s, counts=False)
        if isinstance(error, DeadlineExceededError):
            return State.EXPIRED, Result(cause=cause_of(error))
        is_answer = isinstance(error, ModelFailedError) or not isinstance(error, AttemptError)
        if isinstance(error, RouterError) and is_answer and job.spec.kind is Kind.CALL:
            paths = self._place.runtime.current.openai_paths
            protocol = protocol_of(job.spec.target.partition("?")[0], dict(job.spec.headers), paths)
            state = State.DEAD if job.batch else State.DONE  # a batch has a file of its errors
            return state, refused(error, protocol, request_id)
        if not isinstance(error, RouterError):
            _log.error("job %s failed", job.id, exc_info=error)
        if job.attempt >= self._place.settings.attempts:
            return State.DEAD, Result(cause=cause_of(error), request_id=request_id)
        pause_s = min(_MAX_PAUSE_S, 2.0**job.attempt) * self._calling.rng.uniform(0.5, 1.5)
        return Again(now + pause_s, counts=True)

    async def _called(
        self, job: Job, content: bytes | None, exchange: Exchange, *, is_paid: bool
    ) -> Result:
        spec, calling, runtime = job.spec, self._calling, self._place.runtime.current
        if content is None:
            content = await self._place.objects.read(spec.payload, spec.start, spec.length)
        with HeldBody(content, calling.bodies, calling.clock) as body:
            due = calling.clock() + job.due_at - self._place.wall_clock() if is_paid else None
            head = self._heads.of(spec, runtime)
            links = await head.links(body, exchange, runtime, calling.intake, due=due)
            served = calling.director.serve(links, content, exchange.record)
            async with served as response:
                exchange.status, exchange.outcome = (
                    response.status,
                    outcome_of_status(response.status),
                )
                return await collected(response, self._place.objects, exchange.request_id)
