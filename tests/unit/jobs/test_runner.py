import asyncio
from types import SimpleNamespace
from typing import Any

from router.jobs.claimed import Claimed
from router.jobs.place import Place
from router.jobs.records import Job, Spec, lane_of
from router.jobs.runner import Runner
from router.settings.jobs import JobsSettings


def runner() -> Runner:
    """One whose model is no longer configured, so that every job finds a place."""
    unused: Any = None
    runtime: Any = SimpleNamespace(current=SimpleNamespace(models={}))
    place = Place(unused, unused, runtime, JobsSettings(concurrency=2), lambda: 0.0)
    return Runner(place, unused, {}, "w")


def job(number: int) -> Job:
    return Job(f"j{number}", lane_of("gone", "t", "", 60.0), "t", 0.0, 60.0, Spec())


async def test_a_job_that_is_cancelled_before_it_has_begun_gives_its_slot_back():
    unused: Any = None
    made = runner()
    bench = made.bench("gone")
    bench.ready.extend(Claimed(job(number), 0.0, b"") for number in range(3))
    made.start_ready(unused, "gone")
    assert (made.in_flight, len(bench.ready)) == (2, 1)
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
    assert made.in_flight == 0
    assert bench.by_tenant["t"] == 0
