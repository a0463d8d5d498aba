"""Batches: a file of requests, each of which is a job, and their answers in a file.

A batch is a document; what is done for it as a whole (`prepare`, `gather`) are jobs themselves, so
that any gateway does it, again if need be. Each step may be repeated: its jobs and files have names
that follow from the batch's, and a document changes only from what was read.
"""

import re
from collections.abc import Callable, Mapping

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from router.domain.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    TooManyJobsError,
)
from router.domain.ports import BackendResponse
from router.gateway.access import model_for
from router.gateway.intake import resolved_intent
from router.gateway.protocols.base import Target, require
from router.jobs.asking import Asking, answer_of, list_of
from router.jobs.backlog import Outlook
from router.jobs.batch_records import (
    BATCH_KIND,
    ENDED,
    OPEN_KIND,
    Batch,
    batch_of,
    changed,
    document_of,
    step_id,
)
from router.jobs.deliveries.addresses import callback_of
from router.jobs.files import Files, new_id
from router.jobs.gathering import Gathering
from router.jobs.keeping import ordered_for_batch
from router.jobs.place import Place, Step
from router.jobs.preparing import Preparing
from router.jobs.records import OPEN, Job, Kind, Result, Spec, State, lane_of
from router.jobs.store import Document

_MAX_BODY_BYTES = 64 * 1024
_MAX_METADATA = 16
_MAX_METADATA_CHARS = 512
_MAX_WINDOW_S = 30 * 86400.0
_MAX_LISTED = 1000
_MAX_TOLD_ERRORS = 100
_OF_THE_BATCH = 1000
"""Steps of batches are not refused for want of room among the jobs."""
_WINDOW = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_STEPS_MODEL = ""


class Asked(msgspec.Struct):
    """What a client asks for."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


class Batches:
    """The paths under `/v1/batches`, and what is done for batches as a whole.

    `when_ended` is told the id of each batch that has ended here.
    """

    def __init__(self, place: Place, files: Files) -> None:
        self._place = place
        self._files = files
        self.outlook_of: Callable[[str], Outlook | None] = lambda _: None
        files.in_use = self._files_in_use
        self.when_ended: Callable[[str], None] = _nobody_is_told

    @property
    def steps(self) -> Mapping[Kind, Step]:
        """What jobs for a whole batch do."""
        return {Kind.PREPARE: self._prepare, Kind.GATHER: self._gather}

    # -- paths -----------------------------------------------------------------------------------

    async def answer(self, asking: Asking) -> BackendResponse:
        """The answer to a request. Raises RouterError."""
        match asking.method, asking.segments[2:]:
            case "POST", []:
                return await self._created(asking)
            case "GET", []:
                return await self._listed(asking)
            case _, []:
                require(asking.method, "GET", "POST")
            case _, [batch_id]:
                require(asking.method, "GET")
                return await self._told(await self._own(asking, batch_id))
            case _, [batch_id, "cancel"]:
                require(asking.method, "POST")
                return await self._cancelled(asking, batch_id)
            case _:
                pass
        raise NotFoundError("this path is not part of the API")

    async def _created(self, asking: Asking) -> BackendResponse:
        server, settings = asking.runtime.settings.server, self._place.settings
        content = await asking.body.read(_MAX_BODY_BYTES, server.body_timeout_s)
        try:
            asked = msgspec.json.decode(content, type=Asked)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"the body is not a valid batch: {error}") from None
        _check_metadata(asked.metadata)
        callback = callback_of(asking.callback, settings.deliveries)
        window_s = _window_s(asked.completion_window)
        file = await self._files.own(asking.tenant, asked.input_file_id)
        self._check_endpoint(asked.endpoint, asking)
        opened = await self._place.store.documents(
            OPEN_KIND, asking.tenant, limit=settings.max_batches
        )
        if len(opened) >= settings.max_batches:
            raise TooManyJobsError(f"you have {len(opened)} open batches, and may have no more", 60)
        now = self._place.wall_clock()
        batch = Batch(
            new_id("batch_", now), asked.endpoint, file.id, asked.completion_window, int(now),
            now + window_s, asking.caller.name if asking.caller is not None else "",
            asked.metadata, content=file.content, window_s=window_s,
        )  # fmt: skip
        await ordered_for_batch(self._place, batch, asking.tenant, callback)
        # What is open is noted first: a batch that nobody remembers is never worked on.
        await self._place.store.put(OPEN_KIND, Document(batch.id, asking.tenant, 1, b""))
        await self._place.store.put(BATCH_KIND, document_of(batch, asking.tenant, 1))
        await self._begin(Kind.PREPARE, batch, asking.tenant)
        return answer_of(batch.told())

    def _check_endpoint(self, endpoint: str, asking: Asking) -> None:
        """Raise what a request to that path would be answered."""
        headers = CIMultiDictProxy(CIMultiDict({"content-type": "application/json"}))
        target = resolved_intent(
            ("POST", endpoint), headers, asking.runtime, 0.0,
            caller=lambda _: asking.caller, is_ready=True,
        ).target  # fmt: skip
        if not isinstance(target, Target) or not target.is_inference:
            raise InvalidRequestError(f"endpoint = {endpoint[:200]!r}, must be one of inference")
        if target.model is not None:
            model_for(asking.runtime, asking.caller, target.model)

    async def _listed(self, asking: Asking) -> BackendResponse:
        limit = asking.number("limit", _MAX_LISTED, 20)
        documents = await self._place.store.documents(
            BATCH_KIND, asking.tenant, asking.text("after"), limit + 1
        )
        told = [
            (await self._counted(batch_of(one))).told(self.outlook_of(one.id)) for one in documents
        ]
        return answer_of(list_of(told, limit))

    async def _own(self, asking: Asking, batch_id: str) -> Document:
        document = await self._place.store.read(BATCH_KIND, batch_id)
        if document is None or document.tenant != asking.tenant:
            raise NotFoundError(f"there is no batch {batch_id[:80]!r}")
        return document

    async def _told(self, document: Document) -> BackendResponse:
        batch = await self._counted(batch_of(document))
        return answer_of(batch.told(self.outlook_of(batch.id)))

    async def _cancelled(self, asking: Asking, batch_id: str) -> BackendResponse:
        while True:
            document = await self._own(asking, batch_id)
            batch = batch_of(document)
            if batch.status in ENDED or batch.ends_as == "cancelled":
                return await self._told(document)
            if batch.status == "finalizing":
                raise ConflictError("all requests of the batch have ended: it is finalizing")
            batch.status, batch.ends_as = "cancelling", "cancelled"
            now = self._place.wall_clock()
            batch.cancelling_at = int(now)
            if await changed(self._place.store, document, batch):
                # At once, or much might still be begun; `look_after` does it again for lines that
                # are being added.
                await self._place.store.drop_open(State.CANCELLED, now, batch=batch.id)
                return await self._told(await self._own(asking, batch_id))

    # -- what is done for a whole batch ----------------------------------------------------------

    async def look_after(self) -> None:
        """Take each open batch as far as it can go now."""
        for opened in await self._place.store.documents(OPEN_KIND, None, limit=_MAX_LISTED):
            document = await self._place.store.read(BATCH_KIND, opened.id)
            if document is not None:
                await self._look_after(document, batch_of(document))
            elif opened.version:  # its gateway ended before it was written
                await self._place.store.remove(OPEN_KIND, opened.id)

    async def _look_after(self, document: Document, batch: Batch) -> None:
        now, store = self._place.wall_clock(), self._place.store
        if batch.status in ENDED:
            await store.remove(OPEN_KIND, batch.id)
        elif batch.status == "validating":
            await self._see_to(Kind.PREPARE, document, batch)
        elif batch.status == "finalizing":
            await self._see_to(Kind.GATHER, document, batch)
        else:
            if batch.status == "in_progress" and now >= batch.expires_at:
                batch.ends_as = "expired"
            if batch.ends_as != "completed":
                state = State.EXPIRED if batch.ends_as == "expired" else State.CANCELLED
                await store.drop_open(state, now, batch=batch.id)
            counts = await store.batch_counts(batch.id)
            prepared = await store.get(step_id(Kind.PREPARE, batch.id))
            is_prepared = prepared is None or prepared.state not in OPEN
            if is_prepared and not any(counts.get(state) for state in OPEN):
                batch.status, batch.finalizing_at = "finalizing", int(now)
                if await changed(self._place.store, document, batch):
                    await self._begin(Kind.GATHER, batch, document.tenant)

    async def _see_to(self, kind: Kind, document: Document, batch: Batch) -> None:
        """Have a step done; what has failed too often ends the batch."""
        job = await self._begin(kind, batch, document.tenant)
        if job.state is State.DEAD and job.result is not None:
            await self._fail(document, batch, [{"code": "gateway", "message": job.result.cause}])

    async def _fail(
        self, document: Document, batch: Batch, errors: list[dict[str, object]]
    ) -> None:
        now = self._place.wall_clock()
        await self._place.store.drop_open(State.CANCELLED, now, batch=batch.id)
        batch.status, batch.failed_at = "failed", int(now)
        batch.errors = {"object": "list", "data": errors[:_MAX_TOLD_ERRORS]}
        if await changed(self._place.store, document, batch):
            self.when_ended(batch.id)

    async def _begin(self, kind: Kind, batch: Batch, tenant: str) -> Job:
        now = self._place.wall_clock()
        spec = Spec(kind=kind, key=batch.key, custom_id=batch.id)
        lane = lane_of(_STEPS_MODEL, tenant, "", 1.0)
        job = Job(step_id(kind, batch.id), lane, tenant, now, now, spec)
        (kept,) = await self._place.store.add([job], self._place.settings.max_jobs + _OF_THE_BATCH)
        return kept

    async def _prepare(self, job: Job) -> Result:
        """Make a job of each line; those that are wrong are failed from the start."""
        document = await self._place.store.read(BATCH_KIND, job.spec.custom_id)
        batch = batch_of(document) if document is not None else None
        if document is None or batch is None or batch.status != "validating":
            return Result()
        try:
            total = await Preparing(self._place, batch, document.tenant).run()
        except TooManyJobsError as error:
            await self._fail(document, batch, [{"code": error.code, "message": str(error)}])
            return Result()
        if not total:
            told: dict[str, object] = {"code": "empty_file", "message": "the file has no request"}
            await self._fail(document, batch, [told])
            return Result()
        batch.status, batch.in_progress_at = "in_progress", int(self._place.wall_clock())
        batch.request_counts = {**batch.request_counts, "total": total}
        await changed(self._place.store, document, batch)
        return Result()

    async def _gather(self, job: Job) -> Result:
        """Write the answers of all lines into files, in their order."""
        document = await self._place.store.read(BATCH_KIND, job.spec.custom_id)
        batch = batch_of(document) if document is not None else None
        if document is None or batch is None or batch.status != "finalizing":
            return Result()
        gathering = Gathering(self._place, self._files, batch, document.tenant)
        output_id, error_id, batch.request_counts = await gathering.run()
        batch.output_file_id, batch.error_file_id = output_id, error_id
        batch.status = batch.ends_as
        setattr(batch, f"{batch.ends_as}_at", int(self._place.wall_clock()))
        if await changed(self._place.store, document, batch):
            await self._place.store.remove(OPEN_KIND, batch.id)
            self.when_ended(batch.id)
        return Result()

    async def _files_in_use(self, tenant: str) -> set[str]:
        opened = await self._place.store.documents(OPEN_KIND, tenant, limit=_MAX_LISTED)
        found = [await self._place.store.read(BATCH_KIND, one.id) for one in opened]
        return {batch_of(one).input_file_id for one in found if one is not None}

    async def sweep(self, before: float) -> None:
        """Forget batches that were made before that and have ended."""
        after = new_id("batch_", before)
        while old := await self._place.store.documents(BATCH_KIND, None, after):
            for document in old:
                if batch_of(document).status in ENDED:
                    await self._place.store.remove(BATCH_KIND, document.id)
            after = old[-1].id

    async def _counted(self, batch: Batch) -> Batch:
        """The batch with its counts as they are now."""
        if batch.status in ENDED or batch.status == "validating":
            return batch
        counts = await self._place.store.batch_counts(batch.id)
        done = counts.get(State.DONE, 0)
        failed = sum(counts.values()) - done - sum(counts.get(state, 0) for state in OPEN)
        batch.request_counts = {**batch.request_counts, "completed": done, "failed": failed}
        return batch


def _nobody_is_told(_: str) -> None:
    """Of a gateway whose parts are not put together yet."""


def _window_s(text: str) -> float:
    found = _WINDOW.fullmatch(text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 1.0 <= seconds <= _MAX_WINDOW_S:
        raise InvalidRequestError(
            f"completion_window = {text[:40]!r}, must be 1s..30d, such as 24h or 90m"
        )
    return seconds


def _check_metadata(metadata: Mapping[str, str] | None) -> None:
    given = metadata or {}
    if len(given) > _MAX_METADATA or any(
        len(text) > _MAX_METADATA_CHARS for pair in given.items() for text in pair
    ):
        raise InvalidRequestError(
            f"metadata may have {_MAX_METADATA} entries of {_MAX_METADATA_CHARS} characters"
        )
