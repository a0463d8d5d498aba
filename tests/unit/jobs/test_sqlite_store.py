"""The journal where it is not yet there."""

from pathlib import Path

from router.jobs.records import Job, Spec, lane_of
from router.jobs.sqlite_store import SqliteStore


async def test_the_journal_takes_a_job_before_it_was_opened(tmp_path: Path):
    job = Job("j", lane_of("m", "t", "", 1.0), "t", 0.0, 1.0, Spec())
    made = SqliteStore(tmp_path / "not yet there" / "jobs.sqlite")
    try:
        assert await made.add([job], 1)
    finally:
        await made.close()
