"""Takes the file of a batch apart: a job of each line.

May be done again at any time: the jobs have names that follow from the batch's and the line's, so
those that are there already stay as they are.
"""

import asyncio
from functools import partial

from multidict import CIMultiDict, CIMultiDictProxy

from router.domain.errors import InvalidRequestError, RouterError
from router.gateway.access import model_for
from router.gateway.intake import resolved_intent
from router.gateway.protocols.base import Target
from router.jobs.batch_records import Batch
from router.jobs.calls import caller_of
from router.jobs.lines import Placed, line_of, lines_of
from router.jobs.place import Place
from router.jobs.records import Job, Result, Spec, State, lane_of
from router.turns import Turn

LINE_HEADERS = (("content-type", "application/json"),)
_PAGE = 64
"""Lines in one transaction: packing them keeps the loop for less than two milliseconds."""
_MOST_PAGES = 16
"""On their way into the store: those that share an `fsync`."""


class Preparing:
    """One batch, line by line."""

    def __init__(self, place: Place, batch: Batch, tenant: str) -> None:
        """Raises UnauthorizedError if the batch's key is not known any more, and RouterError."""
        self._place = place
        self._batch = batch
        self._tenant = tenant
        self._runtime = place.runtime.current
        self._caller = caller_of(self._runtime, Spec(key=batch.key))
        self._headers = CIMultiDictProxy(CIMultiDict(LINE_HEADERS))
        target = resolved_intent(
            ("POST", batch.endpoint), self._headers, self._runtime, 0.0,
            caller=lambda _: self._caller, is_ready=True,
        ).target  # fmt: skip
        assert isinstance(target, Target)  # noqa: S101  as it was when the batch was made
        self._target = target
        self._lanes: dict[str, str] = {}
        self._seen = set[str]()

    async def run(self) -> int:
        """Keep a job of each line; how many there are. Raises RouterError."""
        page, total, turn = list[Job](), 0, Turn()
        free = asyncio.Semaphore(_MOST_PAGES)
        longest = self._runtime.settings.server.max_body_bytes
        try:
            async with asyncio.TaskGroup() as group:
                parts = self._place.objects.parts(self._batch.content)
                async for placed in lines_of(parts, longest):
                    page.append(await self._job(placed))
                    total += 1
                    if len(page) == _PAGE:
                        await free.acquire()
                        adding = group.create_task(self._added(page))
                        adding.add_done_callback(lambda _: free.release())
                        page = []
                    await turn.pause_if_over()
                await self._added(page)
        except* RouterError as errors:
            raise _first_of(errors) from errors
        return total

    async def _added(self, page: list[Job]) -> None:
        if page:
            await self._place.store.add(
                page, self._place.settings.max_jobs, self._place.settings.max_bytes
            )

    async def _job(self, placed: Placed) -> Job:
        """The job of a line; one that is wrong is failed from the start."""
        batch, now = self._batch, self._place.wall_clock()
        make = partial(
            Job, f"{batch.id}-{placed.number:08}", tenant=self._tenant, created_at=now,
            due_at=batch.expires_at, batch=batch.id, line=placed.number,
        )  # fmt: skip
        custom_id = ""
        try:
            if placed.content is None:
                raise InvalidRequestError(f"the line has {placed.length} bytes, and may not")
            line = line_of(placed.content, batch.endpoint)
            custom_id = line.custom_id
            if custom_id in self._seen:
                raise InvalidRequestError("another line has the same custom_id")
            self._seen.add(custom_id)
            body = bytes(line.body)
            lane = await self._lane(body)
        except RouterError as error:
            wrong = lane_of("", self._tenant, batch.id, batch.window_s)
            result = Result(cause=str(error))
            spec = Spec(custom_id=custom_id)
            return make(wrong, spec=spec, state=State.DEAD, ended_at=now, result=result)
        # An equal text before it is as good as the body itself.
        start = placed.start + placed.content.index(body)
        spec = Spec(
            key=batch.key, target=batch.endpoint, custom_id=custom_id, headers=LINE_HEADERS,
            payload=batch.content, start=start, length=len(body),
        )  # fmt: skip
        return make(lane, spec=spec)

    async def _lane(self, body: bytes) -> str:
        name = self._target.model
        if name is None:
            name = (await self._target.protocol.asked(body, self._headers)).model
        lane = self._lanes.get(name)
        if lane is None:
            model = model_for(self._runtime, self._caller, name)
            if not model.settings.idempotent:
                raise InvalidRequestError(f"model {name} is not idempotent, and takes no jobs")
            lane = lane_of(model.name, self._tenant, self._batch.id, self._batch.window_s)
            self._lanes[name] = lane
        return lane


def _first_of(errors: BaseExceptionGroup[RouterError]) -> RouterError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, RouterError)  # noqa: S101  the group has no others
    return error
