"""Bodies of jobs that were claimed together."""

from pathlib import Path

import pytest

from router.jobs.answers import INLINE_BYTES
from router.jobs.claimed import bodies_of
from router.jobs.folder_objects import FolderObjects
from router.jobs.records import Job, Spec, lane_of


def job(name: str, spec: Spec) -> Job:
    return Job(name, lane_of("m", "t", "", 60.0), "t", 0.0, 60.0, spec)


async def test_lines_of_one_file_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    objects = FolderObjects(tmp_path)
    await objects.open()
    lines = [b"first", b"the second", b"", b"fourth"]
    name = await objects.keep(b"\n".join(lines))
    other = await objects.keep(b"elsewhere")
    long = await objects.keep(b"x" * (INLINE_BYTES + 1))
    reads = list[str]()
    read = objects.read

    async def counted(name: str, start: int = 0, length: int | None = None) -> bytes:
        reads.append(name)
        return await read(name, start, length)

    monkeypatch.setattr(objects, "read", counted)
    jobs = [
        job("4", Spec(payload=name, start=18, length=6)),
        job("1", Spec(payload=name, start=0, length=5)),
        job("2", Spec(payload=name, start=6, length=10)),
        job("other", Spec(payload=other, start=0, length=9)),
        job("here", Spec(body=b"body", length=4)),
        job("long", Spec(payload=long, length=INLINE_BYTES + 1)),
        job("gone", Spec(payload="no-such-object", length=4)),
    ]
    assert await bodies_of(jobs, objects) == {
        "1": b"first", "2": b"the second", "4": b"fourth", "other": b"elsewhere", "here": b"body",
    }  # fmt: skip
    assert sorted(reads) == sorted([name, other, "no-such-object"])
