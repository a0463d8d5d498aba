"""What requests of the fast path add up to: kept as they end, counted and logged many at once.

A request costs one append. Everything else that follows from it (counters, histograms, service
times, its line in the log) is worked out a hundredth of a second later for all of them, or when
somebody wants to read it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from router.domain.clock import Clock
from router.domain.decision import Backend, Reason
from router.domain.request import InferenceRequest
from router.domain.spent import Spent
from router.domain.tokens import Tokens
from router.gateway.exchange import Telemetry
from router.gateway.responses import outcome_of_status
from router.gateway.usage import tells_tokens
from router.telemetry.logs import AccessRecord, Answered, LineTemplate
from router.telemetry.trace import asked
from router.turns import Turn

_FOLD_AFTER_S = 0.01
"""Longer, and adding up keeps the loop for milliseconds; shorter costs CPU and wins nothing."""
_LEARN_FROM = 64
"""Of many service times in a row the last ones say it all: estimates remember about twenty."""


class Waiting(Protocol):
    """A route of the shortcut that has kept records of ended requests, still to be added up."""

    def fold(self, tally: "Tally") -> None:
        """Add up what was kept, and keep nothing."""
        ...


class Tally:
    """Has routes add up what they kept, within 10 ms; one for all connections of a data plane."""

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self.metrics = telemetry.metrics
        self.access_log = telemetry.access_log
        self.tracer = telemetry.tracer
        self.clock = clock
        self._waiting: deque[Waiting] = deque()
        self._timer: asyncio.Handle | None = None
        self.metrics.catch_up = self.fold
        self.access_log.catch_up = self.fold

    def expect(self, waiting: Waiting) -> None:
        """Let it fold before long: to be called when it keeps something after having kept none."""
        self._waiting.append(waiting)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FOLD_AFTER_S, self._fold_a_turn)

    def fold(self) -> None:
        """Let everything that waits be added up now, as somebody wants to read it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _ in range(len(self._waiting)):
            self._waiting.popleft().fold(self)

    def _fold_a_turn(self) -> None:
        """Add up as much as one turn of the event loop has time for, and go on in the next one.

        With a thousand models as many may wait: each costs tens of microseconds.
        """
        self._timer = None
        turn = Turn()
        while self._waiting and not turn.is_over:
            self._waiting.popleft().fold(self)
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._fold_a_turn)


class Sharing(Protocol):
    """What requests share that go the same way: their facts."""

    @property
    def request(self) -> InferenceRequest:
        """Their facts."""
        ...


class Shared(Protocol):
    """A way that requests go."""

    @property
    def alike(self) -> Sharing:
        """What they share."""
        ...

    @property
    def backend(self) -> Backend:
        """Where it leads."""
        ...

    @property
    def is_cold(self) -> bool | None:
        """Whether their places started cold."""
        ...

    @property
    def usd_per_s(self) -> float:
        """What holding a slot costs."""
        ...


class Answers:
    """The requests that one place answered in one way: alike but for their ids and times.

    `record` is how the log says it; `learn`, if any, is told how long good ones took. `ended` is
    for callers to append to, after `Tally.expect` if it was empty.
    """

    __slots__ = (
        "_learn",
        "_model",
        "_reason",
        "_record",
        "_shared",
        "_status",
        "_tells_tokens",
        "_template",
        "_tenant",
        "ended",
    )

    def __init__(
        self,
        shared: Shared,
        reason: Reason,
        status: int,
        learn: Callable[[int, float], None] | None,
        record: AccessRecord,
    ) -> None:
        self._shared = shared
        request = shared.alike.request
        self._model, self._tenant = request.model, request.tenant or ""
        self._reason = reason
        self._status = status
        self._learn = learn
        self._tells_tokens = tells_tokens(request.protocol)
        is_call = shared.backend is Backend.SERVERLESS
        self._template = LineTemplate(record, tells_tokens=self._tells_tokens, is_call=is_call)
        self._record = record
        self.ended: list[Answered] = []

    def fold(self, tally: Tally) -> None:
        """Count and log what ended, and learn how long it took."""
        ended, self.ended = self.ended, []
        times = np.array([times[1:5] for times in ended])
        outcome = outcome_of_status(self._status)
        tally.metrics.record_answered(
            self._model, self._shared.backend, self._reason, outcome, times[:, 1], times[:, 2]
        )
        tally.metrics.record_callers(
            self._tenant, self._model, outcome, times[:, 1], is_cold=bool(self._shared.is_cold)
        )
        if self._shared.backend is Backend.SERVERLESS:
            spent = [each[-1] for each in ended if each[-1] is not None]
            total_usd, gb_s = sum(each.call_usd for each in spent), sum(each.gb_s for each in spent)
            tally.metrics.add_call_cost(self._model, self._tenant, Spent(0.0, total_usd, gb_s))
        if self._tells_tokens:
            told = [tokens for *_, tokens, _ in ended if tokens is not None]
            total = Tokens(sum(each.input for each in told), sum(each.output for each in told))
            tally.metrics.record_tokens(self._tenant, total)
        if self._status < 400 and self._learn is not None:
            for *_, served_s, size, _, _, _, _, _, _ in ended[-_LEARN_FROM:]:
                self._learn(size, served_s)
        usd_per_s = self._shared.usd_per_s
        if tally.access_log.is_on:
            tally.access_log.record_all(self._template, ended, tally.clock(), usd_per_s)
        if tally.tracer.is_on:
            request = self._shared.alike.request
            kind = asked(request.protocol, request.action, request.method)
            tally.tracer.ended_alike(kind, self._record, usd_per_s, ended)
