"""Where jobs are kept: what every store promises. Implemented by `sqlite_store` and `redis_store`.

A job is run at least once and ended once: `end` compares the worker and the attempt with what is
written, so that whoever was given up while it worked changes nothing. Claims end with the life of
their worker, never by age: a long job is not run twice because it is long.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from router.domain.errors import NotDurableError, TooManyJobsError
from router.jobs.deliveries.store import DeliveryStore
from router.jobs.records import End, Job, Lane, Result, State
from router.telemetry.repeats import BY_STRANGERS

_log = logging.getLogger(__name__)

GIVEN_UP = Result(cause="its workers ended while they worked on it, as often as it may be begun")
"""Of a job that has cost so many workers their lives, perhaps."""


def not_durable(what: str, error: Exception) -> NotDurableError:
    """The error that tells a client `what` failed; why it did is for the log, once in a while."""
    _log.error("%s: %s", what, error, extra=BY_STRANGERS)
    failure = NotDurableError(what)
    failure.__cause__ = error
    return failure


NO_LIMIT = 2**53


def too_many_bytes(most: int) -> TooManyJobsError:
    """The error for a tenant of whose jobs too much is kept."""
    return TooManyJobsError(
        f"{most} bytes of your requests and answers may be kept, and would be more now", 60.0
    )


def too_many_jobs(most: int) -> TooManyJobsError:
    """The error for a tenant with more jobs than it may have."""
    return TooManyJobsError(f"you have {most} jobs that have not ended, and may have no more", 5.0)


class Document(NamedTuple):
    """A record beside the jobs (a file, a batch); `version` counts its changes."""

    id: str
    tenant: str
    version: int
    content: bytes


class JobStore(Protocol):
    """Jobs and documents. All methods raise NotDurableError if the store cannot be reached."""

    @property
    def deliveries(self) -> DeliveryStore:
        """Where deliveries are kept: who is told what came of jobs."""
        ...

    async def open(self) -> None:
        """Get ready."""
        ...

    async def close(self) -> None:
        """Let go; nothing may be called after it."""
        ...

    async def add(
        self, jobs: Sequence[Job], most_open: int, most_bytes: int = NO_LIMIT
    ) -> list[Job]:
        """Keep jobs of one tenant; they outlive any crash once this returns.

        One whose id is known is returned as it is now. Raises TooManyJobsError, and keeps none, if
        the tenant would then have more than `most_open` that have not ended, or more than
        `most_bytes` would be kept of its jobs' own bodies and answers.
        """
        ...

    async def get(self, job_id: str) -> Job | None:
        """The job as it is now."""
        ...

    async def listed(
        self,
        tenant: str | None,
        *,
        states: Collection[State] = (),
        batch: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[Job]:
        """Jobs in the order of their coming, those after job `after`; of all tenants for None.

        Those of a batch come in the order of their lines.
        """
        ...

    async def lanes(self) -> list[Lane]:
        """The lanes in which jobs wait."""
        ...

    async def claim(self, lane: str, worker: str, most: int, now: float) -> list[Job]:
        """Begin the next jobs of a lane: they are the worker's as long as it lives."""
        ...

    async def end(self, worker: str, ends: Sequence[End]) -> list[bool]:
        """Write down results; False for each job that is not this worker's attempt any more."""
        ...

    async def put_back(
        self, worker: str, job_id: str, attempt: int, ready_at: float, *, counts: bool
    ) -> bool:
        """Give a job back, to be begun again from `ready_at` on, before those that came later.

        `counts` says whether it was an attempt. False if it was not this worker's any more.
        """
        ...

    async def beat(self, worker: str, lease_s: float, now: float) -> None:
        """The worker lives, for that long at least."""
        ...

    async def recover(self, most_attempts: int, now: float) -> int:
        """Have the jobs of dead workers begun again; those begun too often are dead letters.

        Returns how many there were.
        """
        ...

    async def retire(self, worker: str) -> None:
        """The worker ends: what it still has waits again, as if it had never been begun."""
        ...

    async def drop_open(
        self, state: State, now: float, *, job_id: str = "", batch: str = ""
    ) -> int:
        """End a job, or all of a batch, that have not ended, without an answer; how many."""
        ...

    async def retry(self, job_id: str, due_at: float) -> bool:
        """Let a dead letter wait again, with all its attempts; False if it is none."""
        ...

    async def counts(self, tenant: str | None = None) -> Mapping[State, int]:
        """How many jobs of a tenant (None: of all) are in which state."""
        ...

    async def batch_counts(self, batch: str) -> Mapping[State, int]:
        """How many jobs of a batch are in which state."""
        ...

    async def sweep(self, before: float, most: int) -> list[Job]:
        """Forget jobs that ended before that, so many at most; returns them."""
        ...

    async def put(self, kind: str, document: Document) -> bool:
        """Write a document; False if its version is not the one after what is there."""
        ...

    async def read(self, kind: str, document_id: str) -> Document | None:
        """A document."""
        ...

    async def documents(
        self, kind: str, tenant: str | None, after: str = "", limit: int = 100
    ) -> list[Document]:
        """Documents in the order of their ids, those before `after`: the newest first."""
        ...

    async def remove(self, kind: str, document_id: str) -> bool:
        """Forget a document; False if there is none."""
        ...
