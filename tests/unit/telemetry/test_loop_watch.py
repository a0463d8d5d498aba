"""Whether stalls of the event loop are seen, and told apart."""

import asyncio
import gc
from time import perf_counter, thread_time

import pytest

from router.telemetry.labels import StallCause
from router.telemetry.loop_watch import EVERY_S, LoopWatch


class Seen:
    def __init__(self) -> None:
        self.stalls: list[tuple[StallCause, float]] = []
        self.watch = LoopWatch(lambda cause, seconds: self.stalls.append((cause, seconds)))


@pytest.mark.parametrize(
    ("late_s", "cpu_s", "work_s", "machine_s"),
    [
        (0.05, 0.06, 0.05, 0.0),
        (0.05, 0.01, 0.01, 0.04),
        (0.0, 0.01, 0.0, 0.0),
        (-0.001, 0.0, 0.0, 0.0),
    ],
    ids=[
        "the loop computed all the while",
        "it waited for a core for most of it",
        "the timer was in time",
        "the timer came a little early",
    ],
)
def test_what_a_late_timer_tells(late_s, cpu_s, work_s, machine_s):
    seen = Seen()
    seen.watch.woke(late_s, cpu_s)
    assert dict(seen.stalls) == pytest.approx(
        {StallCause.WORK: work_s, StallCause.MACHINE: machine_s}
    )
    assert seen.watch.longest_s[StallCause.WORK] == pytest.approx(work_s)


async def test_work_and_collections_of_a_running_loop_are_seen():
    seen = Seen()
    callbacks = list(gc.callbacks)
    watching = asyncio.create_task(seen.watch.run())
    await asyncio.sleep(0)
    busy_s, until = 3 * EVERY_S, thread_time() + 3 * EVERY_S
    began = perf_counter()
    while thread_time() < until or perf_counter() < began + busy_s:
        pass
    gc.collect()
    while seen.watch.longest_s[StallCause.WORK] == 0.0:
        await asyncio.sleep(EVERY_S)
    watching.cancel()
    await asyncio.wait([watching])
    assert seen.watch.longest_s[StallCause.WORK] >= EVERY_S
    assert seen.watch.longest_s[StallCause.COLLECTION] > 0
    assert gc.callbacks == callbacks, "nobody listens any more"
