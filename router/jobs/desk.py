"""The jobs of all tenants as the operator sees them: how many, how late, what failed for good."""

from typing import Any

from router.domain.errors import NotFoundError
from router.gateway.admin.jobs import JobsSearch
from router.jobs.front import document_of
from router.jobs.keeping import retried
from router.jobs.place import Place
from router.jobs.records import State
from router.jobs.runner import Runner

_MOST_LANES = 100


class Desk:
    """What the admin port asks of the jobs. Raises NotDurableError where the store is away."""

    def __init__(self, place: Place, runner: Runner) -> None:
        self._place = place
        self._store = place.store
        self._runner = runner

    async def shown(self, search: JobsSearch) -> dict[str, Any]:
        """States, what waits where and since when it is late, and jobs in the order of coming."""
        states = [State(search.status)] if search.status else []
        counts = await self._store.counts()
        lanes = sorted(await self._store.lanes(), key=lambda lane: lane.due_at)
        jobs = await self._store.listed(
            None, states=states, after=search.after, limit=search.limit + 1
        )
        now = self._place.wall_clock()
        return {
            "on": True,
            "states": {str(state): counts.get(state, 0) for state in State},
            "overdue_s": round(max(0.0, now - lanes[0].due_at), 3) if lanes else 0.0,
            "lanes": [
                {
                    "model": lane.model, "tenant": lane.tenant, "batch_id": lane.batch,
                    "waiting": lane.waiting, "due_in_s": round(lane.due_at - now, 3),
                }
                for lane in lanes[:_MOST_LANES]
            ],
            "jobs": [{**document_of(job), "tenant": job.tenant} for job in jobs[: search.limit]],
            "has_more": len(jobs) > search.limit,
        }  # fmt: skip

    async def retry(self, job_id: str) -> dict[str, Any]:
        """Let a dead letter wait again. Raises NotFoundError, and ConflictError if it is none."""
        job = await self._store.get(job_id)
        if job is None:
            raise NotFoundError(f"there is no job {job_id[:80]!r}")
        await retried(self._place, job)
        self._runner.nudge()
        return {"id": job.id, "status": State.QUEUED}
