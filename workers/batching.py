"""Dynamic batching along axis 0, and the bounded queue in front of a model's runs.

Decides which waiting requests run together and when. `BatchQueue` is the pure part (no clock, no
asyncio); `Batcher` performs its decisions with a bounded number of concurrent runs. Results go to
the caller whose rows they are; a batch that fails is run again request by request, so that one
bad request never fails its neighbours.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from workers.engine import Feeds
from workers.protocol import Array, WorkerBusy, WorkerError

# Requests of one key agree on everything but their number of rows.
BatchKey = tuple[tuple[str, str, tuple[int, ...]], ...]
Run = Callable[[Feeds], list[Array]]
OnRun = Callable[[list[Feeds], float], None]
"""Told what ran together, and how long that kept the thread which ran it."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One request waiting to run. `key` is None where it must run alone."""

    feeds: Feeds
    rows: int
    key: BatchKey | None
    since: float


class Outcome(NamedTuple):
    """What became of one request: its outputs, and how many rows ran together."""

    results: list[Array]
    batch_rows: int
    queue_s: float
    run_s: float


def batch_key(feeds: Feeds) -> tuple[BatchKey | None, int]:
    """What must agree for requests to share a run, and the rows of this one.

    The key is None where the inputs do not agree on a first dimension of at least 1.
    """
    shapes = [array.shape for array in feeds.values()]
    first = {shape[0] if shape else 0 for shape in shapes}
    rows = next(iter(first))
    if len(first) != 1 or rows < 1:
        return None, max(1, rows)
    return tuple((name, a.dtype.str, a.shape[1:]) for name, a in feeds.items()), rows


@dataclass(slots=True)
class BatchQueue:
    """Waiting requests in groups that may run together; pure, `now` is in seconds."""

    max_batch: int
    max_delay_s: float
    _groups: dict[object, list[Waiter]] = field(default_factory=dict)
    _length: int = 0

    def __len__(self) -> int:
        return self._length

    def add(self, waiter: Waiter) -> None:
        """Queue a request behind those of its group."""
        group = waiter if waiter.key is None else waiter.key
        self._groups.setdefault(group, []).append(waiter)
        self._length += 1

    def discard(self, waiter: Waiter) -> bool:
        """Forget a request that nobody waits for any more; False if it was taken already."""
        group: object = waiter if waiter.key is None else waiter.key
        waiting = self._groups.get(group, [])
        if waiter not in waiting:
            return False
        waiting.remove(waiter)
        self._length -= 1
        if not waiting:
            del self._groups[group]
        return True

    def due_at(self) -> float | None:
        """When the next batch may run: now or earlier if one is full. None if nothing waits."""
        return min((self._due(waiters) for waiters in self._groups.values()), default=None)

    def _due(self, waiters: Sequence[Waiter]) -> float:
        first = waiters[0]
        is_full = first.key is None or sum(waiter.rows for waiter in waiters) >= self.max_batch
        return first.since if is_full else first.since + self.max_delay_s

    def take(self, now: float) -> list[Waiter]:
        """The requests to run together now, oldest due group first; empty if none is due.

        Never more than `max_batch` rows, except for a single request that is larger by itself.
        """
        due = [(self._due(waiters), group) for group, waiters in self._groups.items()]
        ready = [(at, group) for at, group in due if at <= now]
        if not ready:
            return []
        group = min(ready, key=lambda pair: pair[0])[1]
        return self._take_from(group)

    def _take_from(self, group: object) -> list[Waiter]:
        waiting = self._groups[group]
        taken = [waiting[0]]
        rows = waiting[0].rows
        for waiter in waiting[1:]:
            if rows + waiter.rows > self.max_batch:
                break
            taken.append(waiter)
            rows += waiter.rows
        del waiting[: len(taken)]
        if not waiting:
            del self._groups[group]
        self._length -= len(taken)
        return taken


def join(batch: Sequence[Feeds]) -> Feeds:
    """The inputs of several requests as one."""
    return {name: np.concatenate([feeds[name] for feeds in batch]) for name in batch[0]}


def split(results: Sequence[Array], rows: Sequence[int]) -> list[list[Array]] | None:
    """Each request's own rows of a batch's outputs; None if an output has another row count."""
    total = sum(rows)
    if any(not array.shape or array.shape[0] != total for array in results):
        return None
    bounds = np.cumsum(rows)[:-1]
    columns = [np.split(array, bounds) for array in results]
    return [[column[index] for column in columns] for index in range(len(rows))]


def run_batch(
    run: Run, batch: Sequence[Feeds], rows: Sequence[int]
) -> list[list[Array] | Exception]:
    """Run the requests together, or one by one where that fails; one result or error for each."""
    if len(batch) > 1:
        try:
            parts = split(run(join(batch)), rows)
        except WorkerError:
            parts = None  # one of them is to blame: find out which
        if parts is not None:
            return list(parts)
    return [_run_alone(run, feeds) for feeds in batch]


def _timed_run(
    run: Run, batch: Sequence[Feeds], rows: Sequence[int]
) -> tuple[list[list[Array] | Exception], float]:
    """As `run_batch`, with the time that it took of this thread."""
    started = time.thread_time()
    results = run_batch(run, batch, rows)
    return results, time.thread_time() - started


def _ignore(_batch: list[Feeds], _cpu_s: float) -> None:
    """Nobody wants to know."""


def _run_alone(run: Run, feeds: Feeds) -> list[Array] | Exception:
    try:
        return run(feeds)
    except WorkerError as error:
        return error


class Batcher:
    """Runs a model's requests with bounded queue and concurrency. Belongs to one event loop."""

    def __init__(
        self,
        run: Run,
        executor: Executor,
        queue: BatchQueue,
        max_queue: int,
        max_runs: int,
        on_run: OnRun = _ignore,
    ) -> None:
        """`run` is called in `executor`, at most `max_runs` at a time."""
        self._run = run
        self._executor = executor
        self._queue = queue
        self._max_queue = max_queue
        self._free_runs = max_runs
        self._on_run = on_run
        self._futures: dict[Waiter, asyncio.Future[Outcome]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def queue_depth(self) -> int:
        """Requests that wait for a run."""
        return len(self._queue)

    async def submit(self, feeds: Feeds) -> Outcome:
        """The outputs of one request; raises WorkerBusy if the queue is full, or the run's error.

        A cancelled caller leaves the queue at once; a run that has begun is not interrupted.
        """
        if len(self._queue) >= self._max_queue:
            raise WorkerBusy(
                f"the queue is full ({self._max_queue} requests wait); send it to another "
                "replica or try again later"
            )
        loop = asyncio.get_running_loop()
        key, rows = batch_key(feeds) if self._queue.max_batch > 1 else (None, 1)
        waiter = Waiter(feeds, rows, key, loop.time())
        future: asyncio.Future[Outcome] = loop.create_future()
        self._futures[waiter] = future
        self._queue.add(waiter)
        self._pump()
        try:
            return await future
        finally:
            self._futures.pop(waiter, None)
            if self._queue.discard(waiter):
                self._pump()

    def _pump(self) -> None:
        """Start whatever is due and has a free run; otherwise look again when the next one is."""
        loop = asyncio.get_running_loop()
        while self._free_runs and (batch := self._queue.take(loop.time())):
            self._free_runs -= 1
            task = loop.create_task(self._perform(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._free_runs:
            return  # the next run that ends looks again
        due = self._queue.due_at()
        if due is not None:
            self._timer = loop.call_at(due, self._pump)

    async def _perform(self, batch: list[Waiter]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        feeds, rows = [w.feeds for w in batch], [w.rows for w in batch]
        results: Sequence[list[Array] | Exception]
        try:
            results, cpu_s = await loop.run_in_executor(
                self._executor, _timed_run, self._run, feeds, rows
            )
            self._on_run(feeds, cpu_s)
        except Exception as error:  # noqa: BLE001 - task root: every caller of the batch gets it
            results = [error] * len(batch)
        finally:
            self._free_runs += 1
        run_s = loop.time() - started
        for waiter, result in zip(batch, results, strict=True):
            self._settle(waiter, result, Outcome([], sum(rows), started - waiter.since, run_s))
        self._pump()

    def _settle(self, waiter: Waiter, result: list[Array] | Exception, timing: Outcome) -> None:
        future = self._futures.get(waiter)
        if future is None or future.done():
            return  # its caller has gone
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(Outcome(result, timing.batch_rows, timing.queue_s, timing.run_s))

    async def close(self) -> None:
        """Give up what waits or runs; a run that has begun ends in its thread, unheard."""
        if self._timer is not None:
            self._timer.cancel()
        for future in list(self._futures.values()):
            future.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
