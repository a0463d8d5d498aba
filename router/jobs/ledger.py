"""What came of a worker's jobs, written down many at a time.

A job that has ended frees its slot at once; what came of it waits for what is being written, and
goes into the next transaction together with all that has ended by then.
"""

import asyncio
from collections import Counter

from router.jobs.endings import Endings
from router.jobs.objects import Objects
from router.jobs.records import End, Job, State
from router.jobs.store import JobStore
from router.jobs.work import Again

_MOST_TOGETHER = 64
"""Ends in one transaction: packing them keeps the loop for less than two milliseconds."""
MOST_UNWRITTEN = 1024
"""Nothing new is claimed while so many have not been written."""


class Ledger:
    """How one worker's jobs have ended, on its way into the store; counted in `ended` then."""

    def __init__(
        self, worker: str, store: JobStore, objects: Objects, ended: Counter[State],
        endings: Endings,
    ) -> None:  # fmt: skip
        self.worker = worker
        self._store = store
        self._objects = objects
        self._ended = ended
        self._endings = endings
        self._ends: list[End] = []
        self._backs: list[tuple[Job, Again]] = []
        self._came = asyncio.Event()

    @property
    def unwritten(self) -> int:
        """How much has still to be written."""
        return len(self._ends) + len(self._backs)

    def add(self, end: End) -> None:
        """Have `run` or `flush` write how a job has ended."""
        self._ends.append(end)
        self._came.set()

    def give_back(self, job: Job, again: Again) -> None:
        """Have `run` or `flush` give a job back."""
        self._backs.append((job, again))
        self._came.set()

    async def run(self) -> None:
        """Write what comes, until cancelled. Raises NotDurableError.

        Then nobody knows whether what was being written is in the store: the worker has to let go
        of its name, so that jobs for which it is not are begun again.
        """
        while True:
            await self._came.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write all that has come. Raises NotDurableError."""
        while self._ends or self._backs:
            # Never twice: to the store, the second of two equal ends is somebody else's.
            ends, self._ends = self._ends[:_MOST_TOGETHER], self._ends[_MOST_TOGETHER:]
            backs, self._backs = self._backs[:_MOST_TOGETHER], self._backs[_MOST_TOGETHER:]
            if ends:
                await self._write(ends)
            for job, again in backs:
                await self._store.put_back(
                    self.worker, job.id, job.attempt, again.ready_at, counts=again.counts
                )
        self._came.clear()

    async def _write(self, ends: list[End]) -> None:
        lost = list[str]()
        for end, is_ours in zip(ends, await self._store.end(self.worker, ends), strict=True):
            if is_ours:
                self._ended[end.state] += 1
            elif end.result.content:
                lost.append(end.result.content)  # somebody else's counts
            self._endings.written(end.id)
        await self._objects.remove(*lost)
