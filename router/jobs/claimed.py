"""Jobs that a worker has claimed, with the bodies of small ones read before their turns come.

The lines of a batch stand in one file, one after the other: those that were claimed together are
read together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from router.domain.errors import NotFoundError
from router.jobs.answers import INLINE_BYTES
from router.jobs.objects import Objects
from router.jobs.records import Job

_MOST_BYTES = 256 * 1024
"""The most that is read at once, and so the most that is read of lines that others have claimed."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that waits for a slot here since `since`; `body` None: it is still to be read."""

    job: Job
    since: float
    body: bytes | None


async def bodies_of(jobs: Sequence[Job], objects: Objects) -> dict[str, bytes]:
    """The bodies of those jobs, by their ids, that are small and could be read."""
    found = {job.id: job.spec.body for job in jobs if not job.spec.payload}
    for run in _runs([job for job in jobs if 0 < job.spec.length <= INLINE_BYTES]):
        first, last = run[0].spec, run[-1].spec
        length = last.start + last.length - first.start
        try:
            content = await objects.read(first.payload, first.start, length)
        except NotFoundError:
            continue  # each is told so when its turn comes
        for job in run:
            start = job.spec.start - first.start
            found[job.id] = content[start : start + job.spec.length]
    return found


def _runs(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Jobs whose bodies are near each other in one object."""
    run = list[Job]()
    for job in sorted(
        (job for job in jobs if job.spec.payload),
        key=lambda one: (one.spec.payload, one.spec.start),
    ):
        spec = job.spec
        if run and (
            spec.payload != run[0].spec.payload
            or spec.start + spec.length - run[0].spec.start > _MOST_BYTES
        ):
            yield run
            run = []
        run.append(job)
    if run:
        yield run
