"""Who wants to know at once that a job has ended: deliveries, and senders that wait for answers.

Advice, to those of this process: each of them also looks by itself, for a job may end elsewhere.
"""

from collections.abc import Callable

from router.jobs.records import Job


class Endings:
    """The jobs whose ends are about to be written, as far as somebody may want to know."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[str], None]] = []
        self._unwritten: set[str] = set()

    def expect(self, job: Job) -> None:
        """The end of a job is about to be written."""
        if job.spec.callback or job.spec.event:
            self._unwritten.add(job.id)

    def written(self, job_id: str) -> None:
        """The end of a job is written, by whomever."""
        if job_id in self._unwritten:
            self._unwritten.discard(job_id)
            self.tell(job_id)

    def tell(self, subject_id: str) -> None:
        """Tell of the end of a job, or of a batch."""
        for listener in self.listeners:
            listener(subject_id)
