"""Questions about jobs, as the admin port gets them; the answers are the jobs' own."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

import msgspec

from router.domain.errors import InvalidRequestError, NotFoundError

JOBS_PATH = "/v1/jobs"
_States = Literal["", "queued", "running", "done", "dead", "cancelled", "expired"]


class JobsSearch(msgspec.Struct, forbid_unknown_fields=True):
    """Which jobs are wanted: of that state, after that one, so many."""

    status: _States = ""
    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50


class JobAction(StrEnum):
    """What can be asked for a job."""

    RETRY = "retry"


class JobQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """Which job, and what shall become of it."""

    id: str
    action: JobAction


class JobsDesk(Protocol):
    """Who answers for the jobs of all tenants."""

    async def shown(self, search: JobsSearch) -> dict[str, Any]:
        """How many there are in which state, how late they are, and some of them."""
        ...

    async def retry(self, job_id: str) -> dict[str, Any]:
        """Let a dead letter wait again. Raises RouterError."""
        ...


class NoJobs:
    """Answers where there are no jobs."""

    async def shown(self, search: JobsSearch) -> dict[str, Any]:
        """None, and that none can come."""
        del search
        return {
            "on": False, "states": {}, "overdue_s": 0.0, "lanes": [], "jobs": [], "has_more": False,
        }  # fmt: skip

    async def retry(self, job_id: str) -> dict[str, Any]:
        """Raises NotFoundError."""
        del job_id
        raise NotFoundError("there are no jobs: jobs.directory is not set")


def search_of(query: Mapping[str, str]) -> JobsSearch:
    """What a query asks for. Raises InvalidRequestError."""
    try:
        return msgspec.convert(dict(query), JobsSearch, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"the question is not valid: {error}") from error
