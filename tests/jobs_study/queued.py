"""What a long queue costs: memory of the process, and time of what looks at it."""

import time
from pathlib import Path

import psutil

from router.jobs.records import Job, Spec, lane_of
from router.jobs.sqlite_store import SqliteStore

_PAGE = 64


async def queued(folder: Path, jobs: int) -> dict[str, float]:
    """Megabytes that the process grew by with so many queued jobs, and milliseconds of a look."""
    store = SqliteStore(folder / "jobs.sqlite")
    await store.open()
    process, lane = psutil.Process(), lane_of("m", "t", "", 3600.0)
    try:
        before = process.memory_info().rss
        for start in range(0, jobs, _PAGE):
            page = [_job(number, lane) for number in range(start, min(start + _PAGE, jobs))]
            await store.add(page, jobs)
        grown = process.memory_info().rss - before
        looked = time.perf_counter()
        await store.lanes()
        listed = time.perf_counter()
        await store.listed("t", after=f"job-{jobs - 200:08}", limit=100)
        ended = time.perf_counter()
    finally:
        await store.close()
    return {
        "MB more": grown / 1e6,
        "ms for the lanes": (listed - looked) * 1e3,
        "ms for a page of 100 at the end": (ended - listed) * 1e3,
    }


def _job(number: int, lane: str) -> Job:
    spec = Spec(target="/v2/models/m/infer", body=b"x" * 300, length=300)
    return Job(f"job-{number:08}", lane, "t", 0.0, 3600.0, spec)
