"""Puts the answers of a batch's lines together: the output, and the file of errors."""

import asyncio
from collections.abc import Sequence

from router.jobs.batch_records import Batch
from router.jobs.files import File, Files
from router.jobs.lines import answered, is_good
from router.jobs.objects import Writing
from router.jobs.place import Place
from router.jobs.records import Job, Result
from router.turns import Turn

_PAGE = 64
"""Lines read at once: unpacking them keeps the loop for less than two milliseconds."""


class Gathering:
    """The answers of one batch, in the order of its lines."""

    def __init__(self, place: Place, files: Files, batch: Batch, tenant: str) -> None:
        self._place = place
        self._files = files
        self._batch = batch
        self._tenant = tenant

    async def run(self) -> tuple[str | None, str | None, dict[str, int]]:
        """Write both files: their ids, None for one without lines, and the counts.

        Raises NotDurableError and NotFoundError.
        """
        objects = self._place.objects
        async with objects.writing() as output, objects.writing() as errors:
            counts = await self._written(output, errors)
            output_id = await self._file_of(output, "output")
            return output_id, await self._file_of(errors, "errors"), counts

    async def _written(self, output: Writing, errors: Writing) -> dict[str, int]:
        good = bad = 0
        after = ""
        store, turn = self._place.store, Turn()
        while jobs := await store.listed(
            self._tenant, batch=self._batch.id, after=after, limit=_PAGE
        ):
            after = jobs[-1].id
            lines: dict[bool, list[bytes]] = {True: [], False: []}
            for job, body in zip(jobs, await self._bodies(jobs), strict=True):
                lines[is_good(job)].append(answered(job, body))
                await turn.pause_if_over()
            for there, found in ((output, lines[True]), (errors, lines[False])):
                if found:
                    await there.write(b"".join(found))
            good += len(lines[True])
            bad += len(lines[False])
        return {"total": good + bad, "completed": good, "failed": bad}

    async def _bodies(self, jobs: Sequence[Job]) -> list[bytes]:
        results = [job.result or Result() for job in jobs]
        names = [result.content for result in results if result.content]
        read = await asyncio.gather(*(self._place.objects.read(name) for name in names))
        contents = dict(zip(names, read, strict=True))
        return [contents.get(result.content, result.body) for result in results]

    async def _file_of(self, written: Writing, what: str) -> str | None:
        """The file that a part of the answers becomes; None for no lines."""
        if not written.size_bytes:
            return None
        batch_id, now = self._batch.id, self._place.wall_clock()
        name = f"file-{batch_id.removeprefix('batch_')}-{what}"
        size, content = written.size_bytes, await written.keep()
        file = File(name, content, size, int(now), f"{batch_id}_{what}.jsonl", "batch_output")
        if not await self._files.keep(self._tenant, file):
            await self._place.objects.remove(content)  # of an earlier try, and the same
        return name
