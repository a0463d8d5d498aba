import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from workers.batching import Batcher, BatchQueue, Waiter, batch_key, run_batch
from workers.engine import Feeds
from workers.protocol import Array, InferenceFailed, WorkerBusy

KEY = (("x", "<f4", (2,)),)
OTHER = (("x", "<f4", (3,)),)


def feeds(*values: float) -> Feeds:
    return {"x": np.array([[value, value] for value in values], np.float32)}


def waiter(rows: int = 1, key: Any = KEY, since: float = 0.0) -> Waiter:
    return Waiter({}, rows, key, since)


def queue_of(*waiters: Waiter, max_batch: int = 4, max_delay_s: float = 1.0) -> BatchQueue:
    queue = BatchQueue(max_batch, max_delay_s)
    for each in waiters:
        queue.add(each)
    return queue


DUE: list[tuple[str, list[Waiter], float | None]] = [
    ("nothing waits", [], None),
    ("one row waits for company", [waiter(since=5)], 6),
    ("a full batch is due at once", [waiter(rows=2, since=5), waiter(rows=2, since=5.5)], 5),
    ("a request that cannot be batched is due at once", [waiter(key=None, since=7)], 7),
    ("the oldest of two shapes decides", [waiter(since=5), waiter(key=OTHER, since=4)], 5),
]


@pytest.mark.parametrize(("waiters", "at"), [r[1:] for r in DUE], ids=[r[0] for r in DUE])
def test_batch_is_due_when_full_or_old(waiters: list[Waiter], at: float | None) -> None:
    assert queue_of(*waiters).due_at() == at


def test_nothing_is_taken_before_it_is_due() -> None:
    queue = queue_of(waiter(since=5))
    assert queue.take(5.9) == []
    assert len(queue.take(6.0)) == 1
    assert len(queue) == 0


def test_batch_never_exceeds_its_rows_and_keeps_order() -> None:
    waiters = [waiter(rows=2), waiter(rows=1), waiter(rows=2), waiter(rows=1)]
    queue = queue_of(*waiters)
    assert queue.take(0) == waiters[:2]
    assert queue.take(0) == []
    assert queue.take(1) == waiters[2:]


def test_request_larger_than_a_batch_runs_alone() -> None:
    large, small = waiter(rows=9), waiter()
    queue = queue_of(large, small)
    assert queue.take(0) == [large]
    assert queue.take(1) == [small]


def test_other_shapes_never_share_a_batch() -> None:
    mine, other = waiter(), waiter(key=OTHER)
    queue = queue_of(mine, other)
    assert queue.take(1) == [mine]
    assert queue.take(1) == [other]


def test_discarded_request_is_gone_and_a_taken_one_is_told() -> None:
    first, second = waiter(), waiter()
    queue = queue_of(first, second)
    assert queue.discard(first)
    assert queue.take(1) == [second]
    assert not queue.discard(second)
    assert queue.due_at() is None


KEYS: list[tuple[str, Feeds, bool, int]] = [
    ("one input", feeds(1, 2), True, 2),
    ("scalars", {"x": np.zeros(())}, False, 1),
    ("no rows", {"x": np.zeros((0, 2))}, False, 1),
    ("inputs of other lengths", {"x": np.zeros((2, 1)), "y": np.zeros((1, 1))}, False, 1),
    ("inputs of one length", {"x": np.zeros((3, 1)), "y": np.zeros((3, 2))}, True, 3),
]


@pytest.mark.parametrize(
    ("inputs", "shareable", "rows"), [r[1:] for r in KEYS], ids=[r[0] for r in KEYS]
)
def test_only_rows_can_share_a_run(inputs: Feeds, shareable: bool, rows: int) -> None:
    key, counted = batch_key(inputs)
    assert (key is not None) is shareable
    if shareable:
        assert counted == rows


def double(inputs: Feeds) -> list[Array]:
    if (inputs["x"] < 0).any():
        raise InferenceFailed("negative")
    return [inputs["x"] * 2]


def test_failing_request_does_not_fail_its_neighbours() -> None:
    batch = [feeds(1), feeds(-1), feeds(3, 4)]
    first, second, third = run_batch(double, batch, [1, 1, 2])
    assert isinstance(second, InferenceFailed)
    assert not isinstance(first, Exception)
    assert not isinstance(third, Exception)
    assert first[0].tolist() == [[2, 2]]
    assert third[0].tolist() == [[6, 6], [8, 8]]


def test_model_that_does_not_keep_rows_is_run_for_each_request() -> None:
    def total(inputs: Feeds) -> list[Array]:
        return [inputs["x"].sum(keepdims=True)]

    results = run_batch(total, [feeds(1), feeds(2)], [1, 1])
    assert [r[0].tolist() for r in results if not isinstance(r, Exception)] == [[[2]], [[4]]]


class Gate:
    """A model that records its runs and waits for `open` before each of them ends."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.started = threading.Semaphore(0)
        self.batches: list[list[float]] = []

    def __call__(self, inputs: Feeds) -> list[Array]:
        self.batches.append(inputs["x"][:, 0].tolist())
        self.started.release()
        assert self.open.wait(10)
        return double(inputs)

    async def has_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=10)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def batcher(run: Any, executor: ThreadPoolExecutor, **changes: Any) -> Batcher:
    options = {"max_batch": 4, "max_delay_s": 0.0, "max_queue": 8, "max_runs": 1, **changes}
    queue = BatchQueue(options["max_batch"], options["max_delay_s"])
    return Batcher(run, executor, queue, options["max_queue"], options["max_runs"])


async def waiting(target: Batcher, count: int) -> None:
    async with asyncio.timeout(10):
        while target.queue_depth != count:
            await asyncio.sleep(0)


async def test_what_waits_during_a_run_is_batched_after_it(executor: ThreadPoolExecutor) -> None:
    gate = Gate()
    target = batcher(gate, executor)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(target.submit(feeds(1)))]
        await gate.has_started()
        tasks += [group.create_task(target.submit(feeds(value))) for value in (2, 3, 4)]
        await waiting(target, 3)
        gate.open.set()
    assert gate.batches == [[1], [2, 3, 4]]
    outcomes = [task.result() for task in tasks]
    assert [o.results[0][0, 0] for o in outcomes] == [2, 4, 6, 8]
    assert [o.batch_rows for o in outcomes] == [1, 3, 3, 3]


async def test_delay_gathers_requests_while_a_run_is_free(executor: ThreadPoolExecutor) -> None:
    gate = Gate()
    gate.open.set()
    target = batcher(gate, executor, max_batch=2, max_delay_s=60.0)
    first, second = await asyncio.gather(target.submit(feeds(1)), target.submit(feeds(2)))
    assert gate.batches == [[1, 2]]
    assert (first.batch_rows, second.batch_rows) == (2, 2)


async def test_full_queue_refuses_and_then_takes_again(executor: ThreadPoolExecutor) -> None:
    gate = Gate()
    target = batcher(gate, executor, max_queue=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(target.submit(feeds(1)))
        await gate.has_started()
        group.create_task(target.submit(feeds(2)))
        await waiting(target, 1)
        with pytest.raises(WorkerBusy, match=r"queue is full \(1 requests wait\)"):
            await target.submit(feeds(3))
        gate.open.set()
    assert (await target.submit(feeds(3))).results[0][0, 0] == 6


async def test_cancelled_caller_is_dropped_and_frees_its_place(
    executor: ThreadPoolExecutor,
) -> None:
    gate = Gate()
    target = batcher(gate, executor, max_queue=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(target.submit(feeds(1)))
        await gate.has_started()
        leaving = asyncio.create_task(target.submit(feeds(2)))
        await waiting(target, 1)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert target.queue_depth == 0
        staying = group.create_task(target.submit(feeds(3)))
        await waiting(target, 1)
        gate.open.set()
    assert leaving.cancelled()
    assert gate.batches == [[1], [3]]
    assert staying.result().results[0][0, 0] == 6


async def test_caller_that_leaves_during_the_run_harms_nobody(
    executor: ThreadPoolExecutor,
) -> None:
    gate = Gate()
    target = batcher(gate, executor, max_batch=2, max_delay_s=60.0)
    async with asyncio.TaskGroup() as group:
        leaving = asyncio.create_task(target.submit(feeds(1)))
        staying = group.create_task(target.submit(feeds(2)))
        await gate.has_started()
        leaving.cancel()
        await asyncio.wait([leaving])
        gate.open.set()
    assert staying.result().results[0][0, 0] == 4


async def test_error_reaches_its_caller_only(executor: ThreadPoolExecutor) -> None:
    target = batcher(double, executor, max_batch=2, max_delay_s=60.0)
    good, bad = await asyncio.gather(
        target.submit(feeds(1)), target.submit(feeds(-1)), return_exceptions=True
    )
    assert isinstance(bad, InferenceFailed)
    assert not isinstance(good, BaseException)
    assert good.results[0][0, 0] == 2


async def test_unexpected_error_reaches_every_caller_and_frees_the_run(
    executor: ThreadPoolExecutor,
) -> None:
    def breaks(inputs: Feeds) -> list[Array]:
        raise MemoryError(str(inputs["x"].shape))

    target = batcher(breaks, executor)
    for _ in range(3):
        with pytest.raises(MemoryError):
            await target.submit(feeds(1))


async def test_runs_at_once_are_bounded(executor: ThreadPoolExecutor) -> None:
    gate = Gate()
    target = batcher(gate, executor, max_batch=0, max_runs=2)
    async with asyncio.TaskGroup() as group:
        for value in range(5):
            group.create_task(target.submit(feeds(value)))
        await gate.has_started()
        await gate.has_started()
        assert target.queue_depth == 3
        assert len(gate.batches) == 2
        gate.open.set()
    assert sorted(gate.batches) == [[0], [1], [2], [3], [4]]
