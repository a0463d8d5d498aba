"""A second attempt beside one that is slow: the first answer wins, the other is cancelled.

Only before an answer has begun, only with a body in hand, and never into a queue. Whether and when
is the arithmetic of `admission.hedging`; where is the policy's.
"""

import asyncio

from router.admission.hedging import Hedging
from router.dispatch.attempts import Attempts, Record, Running, Try, slots_of
from router.domain.clock import Clock
from router.domain.decision import Backend, Decision, Reason
from router.domain.errors import RouterError
from router.domain.ports import BackendResponse, Payload
from router.domain.request import InferenceRequest
from router.policy.decide import decide
from router.runtime import ModelRuntime
from router.telemetry.labels import AttemptResult, HedgeResult
from router.telemetry.metrics import Metrics

_PINNED = frozenset({Reason.RULE, Reason.HINT})
"""Who asked for a backend does not want the other one for the sake of speed."""

Answer = tuple[Try, BackendResponse]


class Hedger:
    """Races attempts of models that hedge."""

    def __init__(self, attempts: Attempts, metrics: Metrics, clock: Clock) -> None:
        self._attempts = attempts
        self._metrics = metrics
        self._clock = clock

    async def answer(
        self, model: ModelRuntime, request: InferenceRequest, body: Payload, first: Try,
        record: Record,
    ) -> Answer:  # fmt: skip
        """The answer of the first attempt, or of a second one that overtook it.

        Raises what the first attempt raised if neither is answered.
        """
        hedging = model.hedging
        if hedging is None or not _may_hedge(request, body):
            return first, await self._attempts.send(model, request, body, first, record)
        race = _Race(self._attempts, model, request, body, record)
        try:
            race.start(first)
            delay_s = hedging.delay_s(first.decision.backend, request.payload_bytes)
            if delay_s is None or record.tries > 1 or await race.is_decided(delay_s):
                return await race.winner()
            second = self.second(model, hedging, request, first)
            if second is None:
                return await race.winner()
            return await self._hedged(model, race, second)
        finally:
            await self._finish(hedging, race)

    async def overtake(
        self, model: ModelRuntime, request: InferenceRequest, body: Payload, running: Running,
        record: Record,
    ) -> Answer:  # fmt: skip
        """As `answer`, for a first attempt that was sent before and has proved slow."""
        assert model.hedging is not None  # noqa: S101  it has a second attempt
        race = _Race(self._attempts, model, request, body, record)
        try:
            race.go_on_with(running)
            return await self._hedged(model, race, running.second)
        finally:
            await self._finish(model.hedging, race)

    @staticmethod
    async def _finish(hedging: Hedging, race: "_Race") -> None:
        await race.finish()
        for tried in race.told:
            hedging.observe(tried.decision.backend, race.payload_bytes, tried.took_s)

    async def _hedged(self, model: ModelRuntime, race: "_Race", second: Try) -> Answer:
        race.record.attempts += 1
        race.start(second)
        result = HedgeResult.CANCELLED
        try:
            tried, response = await race.winner()
            result = HedgeResult.WON if tried.decision.reason is Reason.HEDGE else HedgeResult.LOST
        except RouterError:
            result = HedgeResult.FAILED
            raise
        else:
            return tried, response
        finally:
            self._metrics.record_hedge(model.name, result)

    def second(
        self, model: ModelRuntime, hedging: Hedging, request: InferenceRequest, first: Try
    ) -> Try | None:
        """A slot for a second attempt, within the budget; None if there is none."""
        if hedging.budget.tokens < 1.0:
            hedging.budget.withdraw()  # counts that it was wanted
            self._metrics.record_hedge(model.name, HedgeResult.NO_BUDGET)
            return None
        second = self._elsewhere(model, request, first)
        if second is None:
            self._metrics.record_hedge(model.name, HedgeResult.NO_PLACE)
            return None
        hedging.budget.withdraw()
        self._metrics.record_decision(model.name, second.decision.backend, Reason.HEDGE)
        return second

    def _elsewhere(self, model: ModelRuntime, request: InferenceRequest, first: Try) -> Try | None:
        """Another endpoint of the pool that has a free slot, else the other backend."""
        now, decision = self._clock(), first.decision
        if decision.backend is Backend.POOL:
            assert model.pool is not None  # noqa: S101
            lease = model.pool.try_reserve(request, now, (first.lease.endpoint_id,))
            if lease is not None:
                return Try(Decision(Backend.POOL, Reason.HEDGE, decision.rule), lease)
        if decision.reason in _PINNED:
            return None
        state = model.state(request, now, {decision.backend: Reason.HEDGE})
        try:
            other = decide(request, model.policy, state, now)
        except RouterError:
            return None
        is_late = request.deadline is not None and now + other.finish_s > request.deadline
        if other.hold or is_late or other.backend is decision.backend:
            return None
        found = slots_of(model, other.backend).try_reserve(request, now)
        return Try(other, found) if found is not None else None


def _may_hedge(request: InferenceRequest, body: Payload) -> bool:
    """Whether the request may run twice, and can be sent twice."""
    return (
        request.is_idempotent
        and request.is_inference
        and request.sequence_id is None
        and isinstance(body, bytes)
    )


class _Race:
    """The attempts of one request that run at the same time. `told` are those that were timed."""

    def __init__(
        self, attempts: Attempts, model: ModelRuntime, request: InferenceRequest, body: Payload,
        record: Record,
    ) -> None:  # fmt: skip
        self._attempts = attempts
        self._facts = model, request, body
        self.record = record
        self._running: list[tuple[Try, asyncio.Task[BackendResponse]]] = []
        self._winner: asyncio.Task[BackendResponse] | None = None
        self.told: list[Try] = []

    def start(self, tried: Try) -> None:
        """Begin another attempt beside those that run."""
        sending = self._attempts.send(*self._facts, tried, self.record)
        self._running.append((tried, asyncio.create_task(sending)))

    def go_on_with(self, running: Running) -> None:
        """The first attempt, which is under way."""
        model, request, _ = self._facts
        tried = running.first
        sending = self._attempts.under_way(
            model, request, tried, self.record, running.answer, running.started
        )
        self._running.append((tried, asyncio.create_task(sending)))

    @property
    def payload_bytes(self) -> int:
        """The size of the request."""
        return self._facts[1].payload_bytes

    async def is_decided(self, within_s: float) -> bool:
        """Whether all have ended within that time."""
        _, pending = await asyncio.wait(self._tasks, timeout=within_s)
        return not pending

    async def winner(self) -> Answer:
        """The first attempt to be answered. Raises the error of the first one if none is."""
        pending = set(self._tasks)
        while pending:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for tried, task in self._running:
                if _is_answered(task):
                    self._winner = task
                    return tried, task.result()
        for tried, _ in self._running[1:]:
            self.record.avoid.add(tried.lease.endpoint_id)
        return self._running[0][0], self._running[0][1].result()

    async def finish(self) -> None:
        """Cancel all but the winner; returns when their slots are free."""
        losers = [(tried, task) for tried, task in self._running if task is not self._winner]
        for _, task in losers:
            task.cancel()
        if losers:
            await asyncio.wait([task for _, task in losers])
        for tried, task in losers:
            if _is_answered(task):  # at the same time as the winner
                model, *_ = self._facts
                result = AttemptResult.OK
                await self._attempts.end(model, tried, self.record, result, task.result())
        if self._winner is not None:
            # Not those that failed: that is no measure of how long an answer takes.
            self.told = [t for t, task in self._running if task.cancelled() or _is_answered(task)]

    @property
    def _tasks(self) -> list[asyncio.Task[BackendResponse]]:
        return [task for _, task in self._running]


def _is_answered(task: asyncio.Task[BackendResponse]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
