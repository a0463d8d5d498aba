"""However requests are batched, every caller gets its own rows, and every row runs once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.batching import Batcher, BatchQueue, Waiter
from workers.engine import Feeds
from workers.protocol import Array, InferenceFailed

REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 5),  # rows
        st.integers(1, 3),  # columns: another number never shares a run
        st.booleans(),  # poisoned
        st.booleans(),  # leaves before its answer
        st.integers(0, 3),  # turns of the event loop before the next one comes
    ),
    min_size=1,
    max_size=12,
)


def run(inputs: Feeds) -> list[Array]:
    """Two outputs that tell whose row each is; poison fails the whole run."""
    x = inputs["x"]
    if (x < 0).any():
        raise InferenceFailed("poisoned")
    return [x + 1, np.array([str(row[0]).encode() for row in x], dtype=object)]


async def exchange(requests: list[tuple[int, int, bool, bool, int]], max_batch: int) -> None:
    with ThreadPoolExecutor(2) as executor:
        batcher = Batcher(run, executor, BatchQueue(max_batch, 0.0005), len(requests), 2)
        tasks = []
        for number, (rows, columns, poisoned, leaves, turns) in enumerate(requests, 1):
            x = np.full((rows, columns), number * 100.0) + np.arange(rows)[:, None]
            task = asyncio.create_task(batcher.submit({"x": -x if poisoned else x}))
            tasks.append((x, task, poisoned, leaves))
            for _ in range(turns):
                await asyncio.sleep(0)
            if leaves:
                task.cancel()
        await asyncio.wait([task for _, task, _, _ in tasks], timeout=20)
        await batcher.close()
    for x, task, poisoned, leaves in tasks:
        if task.cancelled():
            assert leaves
        elif poisoned:
            assert isinstance(task.exception(), InferenceFailed)
        else:
            plus_one, names = task.result().results
            assert np.array_equal(plus_one, x + 1)
            assert names.tolist() == [str(row[0]).encode() for row in x]
    assert batcher.queue_depth == 0


@given(REQUESTS, st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_every_caller_gets_its_own_rows(
    requests: list[tuple[int, int, bool, bool, int]], max_batch: int
) -> None:
    asyncio.run(exchange(requests, max_batch))


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "take", "discard"]), st.integers(1, 6), st.integers(0, 2)),
    max_size=40,
)


@given(STEPS, st.integers(1, 5))
def test_queue_hands_out_each_request_once_and_in_bounds(
    steps: list[tuple[str, int, int]], max_batch: int
) -> None:
    queue = BatchQueue(max_batch, 1.0)
    waiting: list[Waiter] = []
    for now, (step, rows, shape) in enumerate(steps):
        if step == "add":
            key = (("x", "<f4", (shape,)),) if shape else None
            waiting.append(Waiter({}, rows, key, float(now)))
            queue.add(waiting[-1])
        elif step == "discard" and waiting:
            assert queue.discard(waiting.pop(rows % len(waiting)))
        elif step == "take":
            taken = queue.take(float(now))
            assert len(taken) <= 1 or sum(w.rows for w in taken) <= max_batch
            assert len({w.key for w in taken}) <= 1
            for each in taken:
                waiting.remove(each)
        assert len(queue) == len(waiting)
    while waiting:
        for each in queue.take(1e9):
            waiting.remove(each)
