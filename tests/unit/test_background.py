"""Loops that are stopped, also when that comes at a bad moment."""

import asyncio

from router.background import Background


async def test_a_loop_that_fails_as_it_is_stopped_ends():
    """A task group tells its tasks' errors in place of the cancellation, which is then lost."""
    is_ending = asyncio.Event()

    async def fails_when_cancelled() -> None:
        try:
            is_ending.set()
            await asyncio.sleep(3600)
        finally:
            raise OSError("the store is gone")

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails_when_cancelled())

    background = Background()
    background.start("loop", run)
    await is_ending.wait()
    async with asyncio.timeout(5):
        await background.stop_all()


async def test_a_loop_that_fails_is_started_again(monkeypatch):
    monkeypatch.setattr("router.background._RESTART_AFTER_S", 0.0)
    starts = asyncio.Semaphore(0)

    async def run() -> None:
        starts.release()
        raise OSError("no")

    background = Background()
    background.start("loop", run)
    async with asyncio.timeout(5):
        for _ in range(3):
            await starts.acquire()
        await background.stop_all()
