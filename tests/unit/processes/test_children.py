"""Children as small scripts: when they are ready, how they end, when they are tried again."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from router.processes.children import Backoff, Child

READY = "import sys, time; print('ready', flush=True); "


class Log:
    """What a child has told."""

    def __init__(self) -> None:
        self.ready = 0
        self.ended = 0

    def on_ready(self, _child: Child) -> None:
        self.ready += 1

    def on_end(self, _child: Child) -> None:
        self.ended += 1


def make(script: str, log: Log) -> Child:
    command = [sys.executable, "-c", script]
    return Child(1, command, time.monotonic, log.on_ready, log.on_end)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_it_is_ready_when_it_says_so_and_stops_when_asked():
    log = Log()
    child = make(READY + "time.sleep(60)", log)
    running = asyncio.create_task(child.run())
    await asyncio.wait_for(child.is_ready.wait(), 10)
    assert (log.ready, child.pid is not None) == (1, True)
    await child.stop(5)
    await asyncio.wait_for(running, 5)
    assert (log.ended, child.restarts, child.pid) == (1, 0, None)
    assert not child.is_ready.is_set()


async def test_one_that_ends_is_started_again():
    log = Log()
    child = make(READY + "sys.exit(3)", log)
    running = asyncio.create_task(child.run())
    await until(lambda: log.ready == 2)
    assert child.restarts >= 1
    assert log.ended >= 1
    await child.stop(5)
    await asyncio.wait_for(running, 5)


async def test_one_that_was_never_ready_has_counted_nothing():
    log = Log()
    child = make("pass", log)
    running = asyncio.create_task(child.run())
    await until(lambda: child.restarts == 1)
    assert (log.ready, log.ended) == (0, 0)
    await child.stop(5)
    await asyncio.wait_for(running, 5)


async def test_stopping_does_not_wait_for_the_pause(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Backoff, "after", lambda *_: 60.0)
    child = make("pass", Log())
    running = asyncio.create_task(child.run())
    await until(lambda: child.restarts == 1)
    await child.stop(5)
    await asyncio.wait_for(running, 10)


async def test_one_that_does_not_drain_in_time_is_killed():
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    child = make(script + READY + "time.sleep(60)", Log())
    running = asyncio.create_task(child.run())
    await asyncio.wait_for(child.is_ready.wait(), 10)
    await child.stop(0.1)
    await asyncio.wait_for(running, 5)


async def test_a_program_that_is_not_there_is_tried_again():
    child = Child(1, ["/nowhere/at-all"], time.monotonic, Log().on_ready, Log().on_end)
    running = asyncio.create_task(child.run())
    await until(lambda: child.restarts == 1)
    await child.stop(1)
    await asyncio.wait_for(running, 5)


@pytest.mark.parametrize(
    ("lives_s", "pauses_s"),
    [
        ([0.1] * 8, [0.5, 1, 2, 4, 8, 16, 30, 30]),
        ([0.1, 0.1, 61, 0.1], [0.5, 1, 0.5, 1]),
        ([59.0, 59.0], [0.5, 1]),
    ],
    ids=["failing at once", "a long life is a fresh start", "not long enough"],
)
def test_pauses_grow_while_lives_are_short(lives_s: list[float], pauses_s: list[float]):
    backoff = Backoff()
    assert [backoff.after(lived_s) for lived_s in lives_s] == pauses_s
