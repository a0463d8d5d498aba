"""All of a gateway's jobs: put together, opened, run and closed."""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from router.domain.clock import Clock
from router.domain.errors import NotDurableError
from router.jobs.answers import contents_of
from router.jobs.batches import Batches
from router.jobs.deliveries.deliverer import Deliverer
from router.jobs.deliveries.messages import batch_message, job_message
from router.jobs.deliveries.poster import Poster
from router.jobs.deliveries.records import About, Progress
from router.jobs.desk import Desk
from router.jobs.events.answers import sink_message
from router.jobs.events.front import Events
from router.jobs.files import Files
from router.jobs.folder_objects import FolderObjects
from router.jobs.front import Front
from router.jobs.objects import Objects
from router.jobs.place import Calling, Place
from router.jobs.records import State
from router.jobs.redis_store import RedisStore
from router.jobs.runner import Runner
from router.jobs.sqlite_store import SqliteStore
from router.jobs.store import JobStore
from router.runtime import RuntimeRef
from router.settings.jobs import JobsSettings
from router.settings.schema import Settings
from router.telemetry.readings import JobsReading

_log = logging.getLogger(__name__)

_RETRY_S = 1.0
_SWEEP_EVERY_S = 60.0
_LOOK_EVERY_S = 0.5
_TELL_EVERY_S = 60.0
_SWEPT_AT_ONCE = 500
_PART_KEPT_S = 24 * 3600.0


class Jobs:
    """The jobs of one gateway process. Only made where `jobs.directory` is set."""

    def __init__(
        self, settings: Settings, runtime: RuntimeRef, calling: Calling, wall_clock: Clock,
        name: str,
    ) -> None:  # fmt: skip
        directory = settings.jobs.directory
        assert directory is not None  # noqa: S101  there would be no jobs
        store: JobStore = (
            RedisStore(settings.jobs.redis_url, settings.shared_state.namespace)
            if settings.jobs.redis_url
            else SqliteStore(directory / "jobs.sqlite")
        )
        self._place = Place(
            store, _objects_of(settings.jobs, directory), runtime, settings.jobs, wall_clock
        )
        self._files = Files(self._place)
        self._batches = Batches(self._place, self._files)
        self.runner = Runner(self._place, calling, self._batches.steps, name)
        self._batches.outlook_of = self.runner.outlook_of_batch
        self._poster = Poster(settings.jobs.deliveries)
        self._deliverer = Deliverer(
            store.deliveries, settings.jobs.deliveries,
            {
                About.JOB: partial(job_message, self._place),
                About.BATCH: partial(batch_message, self._place),
                About.EVENT: partial(sink_message, self._place),
            },
            self._poster.post, wall_clock, calling.rng,
        )  # fmt: skip
        self.runner.endings.listeners.append(self._deliverer.ended)
        self._batches.when_ended = self.runner.endings.tell
        self.desk = Desk(self._place, self.runner)
        self._told = "", 0.0
        self._states: Mapping[State, int] = {}
        self._deliveries: Mapping[Progress, int] = {}
        self._stands_still = True
        rooms = {"files": self._files.answer, "batches": self._batches.answer}
        self.front = Front(self._place, self.runner, rooms)
        self._events = self.front.events = Events(
            self._place, self.runner, self.front.check_window, calling.clock
        )

    def reading(self) -> JobsReading:
        """What metrics show of the jobs."""
        now = self._place.wall_clock()
        due_at = min((lane.due_at for lane in self.runner.lanes), default=now)
        return JobsReading(
            {str(state): count for state, count in self._states.items()},
            {str(state): count for state, count in self.runner.ended.items()},
            self.runner.recovered,
            max(0.0, now - due_at),
            self._stands_still,
            {str(state): count for state, count in self._deliveries.items()},
            dict(self._deliverer.outcomes),
            dict(self._events.results),
        )

    def drain(self) -> None:
        """Begin nothing new."""
        self.runner.is_draining = self._deliverer.is_draining = True

    async def run(self) -> None:
        """Work until cancelled; a store that cannot be reached is tried again and again."""
        try:
            # A group that fails as it is cancelled tells its errors alone.
            while not self.runner.is_draining:
                try:
                    await self._place.objects.open()
                    await self._place.store.open()
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self.runner.run())
                        group.create_task(self._sweep())
                        group.create_task(self._look_after_batches())
                        group.create_task(self._deliverer.run())
                except* NotDurableError as errors:
                    self._tell(str(errors.exceptions[0]))
                await asyncio.sleep(_RETRY_S)
        finally:
            await self._poster.close()
            await self._place.store.close()

    def _tell(self, why: str) -> None:
        """Say that jobs stand still; not again for the same reason within a minute."""
        now = self._place.wall_clock()
        self._stands_still = True
        if why != self._told[0] or now - self._told[1] >= _TELL_EVERY_S:
            _log.warning("jobs stand still: %s", why)
            self._told = why, now

    async def _look_after_batches(self) -> None:
        while True:
            await self._batches.look_after()
            self._states = await self._place.store.counts()
            self._deliveries = await self._place.store.deliveries.counts()
            self._stands_still = False
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _sweep(self) -> None:
        place = self._place
        while True:
            now = place.wall_clock()
            before = now - place.settings.retention_s
            while gone := await place.store.sweep(before, _SWEPT_AT_ONCE):
                await place.objects.remove(*contents_of(gone))
            while await place.store.deliveries.sweep(before, _SWEPT_AT_ONCE):
                pass
            await self._batches.sweep(before)
            await self._files.sweep(before)
            await place.objects.sweep(now - _PART_KEPT_S)
            await asyncio.sleep(_SWEEP_EVERY_S)


def _objects_of(settings: JobsSettings, directory: Path) -> Objects:
    if not settings.objects:
        return FolderObjects(directory / "objects")
    # Only now: it is an extra, and the settings have seen to it that it is there.
    from router.jobs.bucket_objects import BucketObjects, bucket  # noqa: PLC0415

    return BucketObjects(bucket(settings.objects))
