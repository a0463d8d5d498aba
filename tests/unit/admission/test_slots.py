"""Slots here are letters; one that its waiter could not use comes to `back`."""

import asyncio
import time
from typing import Any

import pytest

from router.admission.line import Ticket
from router.admission.slots import SlotQueue, Waiter
from router.domain.errors import QueueFullError, QueueTimeoutError
from router.domain.request import Priority


@pytest.fixture
def back():
    return []


@pytest.fixture
def queue(back):
    return SlotQueue[str](max_requests=2, max_bytes=100, give_back=back.append)


async def waiting(queue, size=1, timeout_s=30.0, **facts) -> Any:
    """A task that waits in the queue, already queued."""
    task = asyncio.create_task(queue.wait(Ticket(size, **facts), timeout_s))
    await asyncio.sleep(0)
    return task


async def ended(*tasks) -> Any:
    async with asyncio.timeout(5):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_waiters_are_served_in_the_order_of_their_coming(queue):
    first, second = await waiting(queue), await waiting(queue)
    assert queue.hand_over("a")
    assert queue.hand_over("b")
    assert await ended(first, second) == ["a", "b"]
    assert (len(queue), queue.queued_bytes) == (0, 0)


async def test_nobody_waits_so_nobody_gets_it(queue):
    assert queue.hand_over("a") is False


@pytest.mark.parametrize(
    ("before", "size", "fits"),
    [([1, 1], 1, False), ([1], 1, True), ([60], 40, True), ([60], 41, False)],
    ids=["full by count", "room by count", "just fits by bytes", "full by bytes"],
)
async def test_the_queue_is_bounded_exactly(queue, before, size, fits):
    tasks = [await waiting(queue, size=queued) for queued in before]
    last = await waiting(queue, size=size)
    assert len(queue) == len(before) + fits
    for task in (*tasks, last):
        task.cancel()
    results = await ended(*tasks, last)
    assert isinstance(results[-1], asyncio.CancelledError if fits else QueueFullError)
    assert queue.queued_bytes == 0


async def test_a_queue_of_no_length_refuses_at_once(back):
    with pytest.raises(QueueFullError, match="0 requests wait"):
        await SlotQueue[str](0, 100, back.append).wait(Ticket(1), 1.0)


async def test_a_waiter_gives_up_after_its_time(queue, back):
    with pytest.raises(QueueTimeoutError, match=r"within 0\.0 s"):
        await queue.wait(Ticket(50), 0.01)
    assert (len(queue), queue.queued_bytes, back) == (0, 0, [])


async def test_cancelling_a_waiter_frees_its_place(queue, back):
    first, second = await waiting(queue), await waiting(queue)
    first.cancel()
    await ended(first)
    assert len(queue) == 1
    third = await waiting(queue)
    assert queue.hand_over("a")
    assert queue.hand_over("b")
    assert await ended(second, third) == ["a", "b"]
    assert back == []


async def test_a_slot_skips_a_waiter_that_is_just_being_cancelled(queue, back):
    first, second = await waiting(queue), await waiting(queue)
    first.cancel()  # the cancellation has not been delivered yet
    assert queue.hand_over("a")
    results = await ended(first, second)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] == "a"
    assert back == []


async def test_a_slot_handed_to_a_waiter_that_is_then_cancelled_comes_back(queue, back):
    first = await waiting(queue)
    assert queue.hand_over("a")
    first.cancel()  # before the waiter has run again
    await ended(first)
    assert back == ["a"], "the slot must be neither lost nor used"
    assert (len(queue), queue.queued_bytes) == (0, 0)


async def test_a_slot_handed_over_in_the_tick_of_the_time_out_comes_back(queue, back):
    task = await waiting(queue, timeout_s=0.02)
    asyncio.get_running_loop().call_later(0.01, queue.hand_over, "a")
    time.sleep(0.03)  # noqa: ASYNC251  both timers are due now and run in one tick, slot first
    results = await ended(task)
    assert isinstance(results[0], QueueTimeoutError)
    assert back == ["a"]
    assert (len(queue), queue.queued_bytes) == (0, 0)


async def test_bounds_can_change_while_others_wait(queue):
    first, second = await waiting(queue), await waiting(queue)
    queue.max_requests = 1
    with pytest.raises(QueueFullError):
        await queue.wait(Ticket(1), 1.0)
    queue.max_requests = 3
    third = await waiting(queue)
    assert len(queue) == 3
    for slot in "abc":
        queue.hand_over(slot)
    assert await ended(first, second, third) == ["a", "b", "c"]


async def test_whoever_is_displaced_is_told_at_once(queue):
    low = [await waiting(queue, priority=Priority.LOW) for _ in range(2)]
    high = await waiting(queue, priority=Priority.HIGH)
    (displaced,) = await ended(low[1])
    assert isinstance(displaced, QueueFullError)
    assert len(queue) == 2
    assert queue.hand_over("a")
    assert queue.hand_over("b")
    assert await ended(high, low[0]) == ["a", "b"]
    assert queue.queued_bytes == 0


@pytest.mark.parametrize(
    ("ticket", "seen"),
    [
        (None, (2, 60)),
        (Ticket(10, Priority.HIGH), (0, 0)),
        (Ticket(10, Priority.NORMAL), (1, 30)),
        (Ticket(10, Priority.LOW), (2, 60)),
        (Ticket(90, Priority.NORMAL), (2, 60)),
    ],
    ids=["anybody", "goes first", "goes second", "has no place", "low ones would not suffice"],
)
async def test_a_request_sees_those_that_go_before_it(queue, ticket, seen):
    tasks = [
        await waiting(queue, size=30, priority=priority)
        for priority in (Priority.NORMAL, Priority.LOW)
    ]
    assert queue.seen_by(ticket) == seen
    for task in tasks:
        task.cancel()
    await ended(*tasks)


class TestTwoQueues:
    """One waiter in two lines; each queue has its own slots."""

    @pytest.fixture
    def others_back(self):
        return []

    @pytest.fixture
    def other(self, others_back):
        return SlotQueue[str](max_requests=1, max_bytes=100, give_back=others_back.append)

    @pytest.fixture
    async def waiter(self, queue, other):
        waiter = Waiter()
        for one in (queue, other):
            one.join(waiter, Ticket(5))
        return waiter

    async def test_the_first_slot_of_either_is_its_and_it_waits_nowhere(self, queue, other, waiter):
        task = asyncio.create_task(waiter.slot(5.0))
        assert other.hand_over("b")
        assert queue.hand_over("a") is False
        assert await task == (other, "b")
        assert (len(queue), len(other), queue.queued_bytes, other.queued_bytes) == (0, 0, 0, 0)

    async def test_who_loses_one_place_waits_on_in_the_other(self, queue, other, waiter):
        better = await waiting(other, priority=Priority.HIGH)
        assert (len(queue), len(other)) == (1, 1)
        assert queue.hand_over("a")
        assert await waiter.slot(5.0) == (queue, "a")
        better.cancel()
        await ended(better)

    async def test_who_loses_both_places_is_told(self, queue, other, waiter):
        tasks = [
            *[await waiting(queue, priority=Priority.HIGH) for _ in range(2)],
            await waiting(other, priority=Priority.HIGH),
        ]
        with pytest.raises(QueueFullError):
            await waiter.slot(5.0)
        for task in tasks:
            task.cancel()
        await ended(*tasks)

    async def test_who_gives_up_in_the_same_tick_gives_back_where_it_came_from(
        self, queue, other, waiter, back, others_back
    ):
        task = asyncio.create_task(waiter.slot(5.0))
        await asyncio.sleep(0)
        other.hand_over("b")
        task.cancel()
        await ended(task)
        assert (back, others_back) == ([], ["b"])
        assert (len(queue), len(other)) == (0, 0)

    async def test_time_is_up_in_both(self, queue, other, waiter):
        with pytest.raises(QueueTimeoutError):
            await waiter.slot(0.01)
        assert (len(queue), len(other)) == (0, 0)
