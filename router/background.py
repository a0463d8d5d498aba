"""Long-lived loops: started by name, restarted if they fail, awaited when they are stopped."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

_log = logging.getLogger(__name__)

_RESTART_AFTER_S = 1.0


class Background:
    """Owns the tasks of one gateway. A loop that fails is reported and started again."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Start a loop; names are unique among those that run."""
        task = asyncio.create_task(_keep_running(name, run), name=name)
        self._tasks[name] = task
        task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]

    async def stop(self, name: str) -> None:
        """Cancel a loop and wait until it has cleaned up."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def stop_all(self) -> None:
        """Stop what still runs, all at the same time."""
        await asyncio.gather(*(self.stop(name) for name in list(self._tasks)))


async def _keep_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except Exception:  # noqa: BLE001  root of a background task: reported, then tried again
            if _is_told_to_stop():
                _log.warning("background loop %s failed when it was stopped", name, exc_info=True)
                return
            _log.exception("background loop %s failed and is started again", name)
        else:
            return
        await asyncio.sleep(_RESTART_AFTER_S)


def _is_told_to_stop() -> bool:
    """Whether a cancellation was lost: a task group tells the errors of its tasks instead."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
