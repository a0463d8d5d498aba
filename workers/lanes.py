"""A loaded model with what serves it: its queue, its pace and its counts.

Decides nothing about HTTP. Requests that wait go through `batcher`; short ones run on the spot.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, NamedTuple

from workers.batching import Batcher, BatchQueue, Outcome
from workers.engine import Feeds
from workers.metrics import ModelMetrics
from workers.pace import JOINED_LIMIT_S, LIMIT_S, Pace
from workers.service import Model, rows_of
from workers.statistics import Timing

ASIDE_BYTES: Final = 32 * 1024
"""Coding less than this takes less time than handing it to a thread."""


_FOLD_AFTER: Final = 64
"""Requests answered at once: added up together, each costs a fifth of what it does by itself."""


class Phases(NamedTuple):
    """When a request's tensors began to be read, and its run to be wanted and to be over."""

    started: float
    prepared: float
    ran: float


class Answered(NamedTuple):
    """A request answered at once: from its head to its reply, and within that."""

    began: float
    phases: Phases
    ended: float
    run_s: float
    rows: int


class Lane:
    """One model version's way through the worker. Belongs to one event loop."""

    def __init__(
        self,
        model: Model,
        metrics: ModelMetrics,
        executor: Executor,
        bounds: tuple[int, int],
        clock: Callable[[], float],
    ) -> None:
        """`bounds` are how many requests may wait, and how many runs there are at once."""
        self.model = model
        self.metrics = metrics
        self.pace = Pace(_limit_s(model))
        self._clock = clock
        self._answered: list[Answered] = []
        batching = model.options.batching
        queue = BatchQueue(model.max_batch, batching.max_delay_s if batching else 0.0)
        self.batcher = Batcher(model.run, executor, queue, *bounds, on_run=self._on_run)

    def run(self, feeds: Feeds) -> Outcome | None:
        """Run now, on this thread; None where that, or writing the outputs, may take long.

        Whoever answers with it counts it, with `answered_at_once`. Raises as `Model.run`.
        """
        elements = elements_of(feeds)
        if not self.pace.is_quick(elements):
            return None
        cpu_s, started = time.thread_time(), self._clock()
        results = self.model.run_uncounted(feeds)
        run_s = taken_s = self._clock() - started
        if run_s > self.pace.limit_s:  # its doing, or others had the core meanwhile
            taken_s = time.thread_time() - cpu_s
        size = 0
        for array in results:
            size += array.nbytes
        if size >= ASIDE_BYTES:  # it runs again, in a thread: this once
            self.pace.record(elements, math.inf)
            return None
        self.pace.record(elements, taken_s)
        return Outcome(results, rows_of(feeds), 0.0, run_s)

    def record(self, feeds: Feeds, outcome: Outcome, phases: Phases) -> None:
        """Count a request whose reply has been written."""
        self.metrics.record_run(outcome.queue_s, outcome.run_s, outcome.batch_rows)
        timing = Timing(
            _ns(outcome.queue_s),
            _ns(phases.prepared - phases.started),
            _ns(outcome.run_s),
            _ns(self._clock() - phases.ran),
        )
        self.model.record_success(feeds, timing)

    def answered_at_once(self, request: Answered) -> None:
        """Count a request before long, together with others."""
        self._answered.append(request)
        if len(self._answered) >= _FOLD_AFTER:
            self.fold()

    def fold(self) -> None:
        """Count what is not counted yet: to be called before anybody reads the counts."""
        answered, self._answered = self._answered, []
        if not answered:
            return
        self.metrics.record_alone([(a.ended - a.began, a.run_s, a.rows) for a in answered])
        runs = [
            (
                a.rows,
                Timing(
                    0,
                    _ns(a.phases.prepared - a.phases.started),
                    _ns(a.run_s),
                    _ns(a.ended - a.phases.ran),
                ),
            )
            for a in answered
        ]
        self.model.record_alone(runs, self._clock() - answered[-1].ended)

    def record_failure(self, started: float) -> None:
        """Count a request that the model did not answer."""
        self.model.statistics.record_failure(_ns(self._clock() - started))

    def _on_run(self, batch: list[Feeds], cpu_s: float) -> None:
        # By itself none of them would have taken longer than all together.
        for feeds in batch:
            self.pace.record(elements_of(feeds), cpu_s)


def elements_of(feeds: Feeds) -> int:
    """The size of an input: what a run's time follows."""
    elements = 0
    for array in feeds.values():
        elements += sum(map(len, array.flat)) if array.dtype.hasobject else array.size
    return elements


def _limit_s(model: Model) -> float:
    # With threads of their own, runs take other time than that of the thread which asks for them.
    if model.threads > 1 or not model.runs_evenly:
        return 0.0
    return JOINED_LIMIT_S if model.max_batch > 1 else LIMIT_S


def _ns(seconds: float) -> int:
    return max(0, round(seconds * 1e9))
