"""Batches: a file of requests, each of which is a job, and their answers in a file.

A batch is a document; what is done for it as a whole (`prepare`, `gather`) are jobs themselves, so
that any gateway does it, again if need be. Each step may be repeated: its jobs and files have names
that follow from the batch's, and a document changes only from what was read.
"""

import re
from collections.abc import Mapping
from functools import partial

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from router.domain.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    RouterError,
    TooManyJobsError,
)
from router.domain.ports import BackendResponse
from router.gateway.access import model_for
from router.gateway.intake import resolved_intent
from router.gateway.protocols.base import Target, require
from router.jobs.asking import Asking, answer_of, list_of
from router.jobs.calls import caller_of
from router.jobs.files import File, Files, new_id
from router.jobs.lines import Placed, answered, is_good, line_of, lines_of
from router.jobs.objects import Writing
from router.jobs.records import OPEN, Job, Kind, Result, Spec, State, lane_of
from router.jobs.runner import Place, Step
from router.jobs.store import Document
from router.settings.keys import ApiKey

_KIND = "batch"
_OPEN_KIND = "open batch"
_MAX_BODY_BYTES = 64 * 1024
_MAX_METADATA = 16
_MAX_METADATA_CHARS = 512
_MAX_WINDOW_S = 30 * 86400.0
_PAGE = 500
_MAX_LISTED = 1000
_MAX_TOLD_ERRORS = 100
_OF_THE_BATCH = 1000
"""Steps of batches are not refused for want of room among the jobs."""
_WINDOW = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_STEPS_MODEL = ""


class Batch(msgspec.Struct):
    """A batch as it is told, but for its counts while it runs; `ends_as` is what it will become."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: float
    key: str
    metadata: dict[str, str] | None = None
    status: str = "validating"
    errors: dict[str, object] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: dict[str, int] = msgspec.field(
        default_factory=lambda: {"total": 0, "completed": 0, "failed": 0}
    )
    content: str = ""
    window_s: float = 0.0
    ends_as: str = "completed"

    def told(self) -> dict[str, object]:
        """What clients are told of it."""
        told: dict[str, object] = {"object": "batch", **msgspec.structs.asdict(self)}
        for name in ("content", "window_s", "ends_as", "key"):
            del told[name]
        told["expires_at"] = int(self.expires_at)
        return told


class Asked(msgspec.Struct):
    """What a client asks for."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


class Batches:
    """The paths under `/v1/batches`, and what is done for batches as a whole."""

    def __init__(self, place: Place, files: Files) -> None:
        self._place = place
        self._files = files
        files.in_use = self._files_in_use

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
        window_s = _window_s(asked.completion_window)
        file = await self._files.own(asking.tenant, asked.input_file_id)
        self._check_endpoint(asked.endpoint, asking)
        opened = await self._place.store.documents(
            _OPEN_KIND, asking.tenant, limit=settings.max_batches
        )
        if len(opened) >= settings.max_batches:
            raise TooManyJobsError(f"you have {len(opened)} open batches, and may have no more", 60)
        now = self._place.wall_clock()
        batch = Batch(
            new_id("batch_", now), asked.endpoint, file.id, asked.completion_window, int(now),
            now + window_s, asking.caller.name if asking.caller is not None else "",
            asked.metadata, content=file.content, window_s=window_s,
        )  # fmt: skip
        # What is open is noted first: a batch that nobody remembers is never worked on.
        await self._place.store.put(_OPEN_KIND, Document(batch.id, asking.tenant, 1, b""))
        await self._place.store.put(_KIND, _document(batch, asking.tenant, 1))
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
            _KIND, asking.tenant, asking.text("after"), limit + 1
        )
        told = [(await self._counted(_batch(one))).told() for one in documents]
        return answer_of(list_of(told, limit))

    async def _own(self, asking: Asking, batch_id: str) -> Document:
        document = await self._place.store.read(_KIND, batch_id)
        if document is None or document.tenant != asking.tenant:
            raise NotFoundError(f"there is no batch {batch_id[:80]!r}")
        return document

    async def _told(self, document: Document) -> BackendResponse:
        return answer_of((await self._counted(_batch(document))).told())

    async def _cancelled(self, asking: Asking, batch_id: str) -> BackendResponse:
        while True:
            document = await self._own(asking, batch_id)
            batch = _batch(document)
            if batch.status in _ENDED or batch.ends_as == "cancelled":
                return await self._told(document)
            if batch.status == "finalizing":
                raise ConflictError("all requests of the batch have ended: it is finalizing")
            batch.status, batch.ends_as = "cancelling", "cancelled"
            batch.cancelling_at = int(self._place.wall_clock())
            if await self._changed(document, batch):
                return await self._told(await self._own(asking, batch_id))

    # -- what is done for a whole batch ----------------------------------------------------------

    async def look_after(self) -> None:
        """Take each open batch as far as it can go now."""
        for opened in await self._place.store.documents(_OPEN_KIND, None, limit=_MAX_LISTED):
            document = await self._place.store.read(_KIND, opened.id)
            if document is not None:
                await self._look_after(document, _batch(document))
            elif opened.version:  # its gateway ended before it was written
                await self._place.store.remove(_OPEN_KIND, opened.id)

    async def _look_after(self, document: Document, batch: Batch) -> None:
        now, store = self._place.wall_clock(), self._place.store
        if batch.status in _ENDED:
            await store.remove(_OPEN_KIND, batch.id)
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
            prepared = await store.get(_step_id(Kind.PREPARE, batch.id))
            is_prepared = prepared is None or prepared.state not in OPEN
            if is_prepared and not any(counts.get(state) for state in OPEN):
                batch.status, batch.finalizing_at = "finalizing", int(now)
                if await self._changed(document, batch):
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
        await self._changed(document, batch)

    async def _begin(self, kind: Kind, batch: Batch, tenant: str) -> Job:
        now = self._place.wall_clock()
        spec = Spec(kind=kind, key=batch.key, custom_id=batch.id)
        lane = lane_of(_STEPS_MODEL, tenant, "", 1.0)
        job = Job(_step_id(kind, batch.id), lane, tenant, now, now, spec)
        (kept,) = await self._place.store.add([job], self._place.settings.max_jobs + _OF_THE_BATCH)
        return kept

    async def _prepare(self, job: Job) -> Result:
        """Make a job of each line; those that are wrong are failed from the start."""
        document = await self._place.store.read(_KIND, job.spec.custom_id)
        batch = _batch(document) if document is not None else None
        if document is None or batch is None or batch.status != "validating":
            return Result()
        try:
            total = await self._lines_kept(document, batch)
        except TooManyJobsError as error:
            await self._fail(document, batch, [{"code": error.code, "message": str(error)}])
            return Result()
        if not total:
            told: dict[str, object] = {"code": "empty_file", "message": "the file has no request"}
            await self._fail(document, batch, [told])
            return Result()
        batch.status, batch.in_progress_at = "in_progress", int(self._place.wall_clock())
        batch.request_counts = {**batch.request_counts, "total": total}
        await self._changed(document, batch)
        return Result()

    async def _lines_kept(self, document: Document, batch: Batch) -> int:
        runtime = self._place.runtime.current
        caller = caller_of(runtime, Spec(key=batch.key))
        seen, page, total = set[str](), list[Job](), 0
        parts = self._place.objects.parts(batch.content)
        async for placed in lines_of(parts, runtime.settings.server.max_body_bytes):
            page.append(await self._line_job(placed, batch, document.tenant, caller, seen))
            total += 1
            if len(page) == _PAGE:
                await self._place.store.add(page, self._place.settings.max_jobs)
                page = []
        if page:
            await self._place.store.add(page, self._place.settings.max_jobs)
        return total

    async def _line_job(
        self, placed: Placed, batch: Batch, tenant: str, caller: ApiKey | None, seen: set[str]
    ) -> Job:
        """The job of a line."""
        now = self._place.wall_clock()
        make = partial(
            Job, f"{batch.id}-{placed.number:08}", tenant=tenant, created_at=now,
            due_at=batch.expires_at, batch=batch.id, line=placed.number,
        )  # fmt: skip
        custom_id = ""
        try:
            if placed.content is None:
                raise InvalidRequestError(f"the line has {placed.length} bytes, and may not")
            line = line_of(placed.content, batch.endpoint)
            custom_id = line.custom_id
            if custom_id in seen:
                raise InvalidRequestError("another line has the same custom_id")
            seen.add(custom_id)
            model = await self._model_of(bytes(line.body), batch, caller)
        except RouterError as error:
            spec = Spec(custom_id=custom_id)
            result = Result(cause=str(error))
            lane = lane_of(_STEPS_MODEL, tenant, batch.id, batch.window_s)
            return make(lane, spec=spec, state=State.DEAD, ended_at=now, result=result)
        spec = Spec(
            key=batch.key, target=batch.endpoint, custom_id=custom_id,
            headers=(("content-type", "application/json"),),
            payload=batch.content, start=placed.start, length=placed.length,
        )  # fmt: skip
        return make(lane_of(model, tenant, batch.id, batch.window_s), spec=spec)

    async def _model_of(self, body: bytes, batch: Batch, caller: ApiKey | None) -> str:
        runtime = self._place.runtime.current
        headers = CIMultiDictProxy(CIMultiDict({"content-type": "application/json"}))
        target = resolved_intent(
            ("POST", batch.endpoint), headers, runtime, 0.0, caller=lambda _: caller, is_ready=True
        ).target
        assert isinstance(target, Target)  # noqa: S101  as it was when the batch was made
        name = target.model
        if name is None:
            name = (await target.protocol.asked(body, headers)).model
        model = model_for(runtime, caller, name)
        if not model.settings.idempotent:
            raise InvalidRequestError(f"model {name} is not idempotent, and takes no jobs")
        return model.name

    async def _gather(self, job: Job) -> Result:
        """Write the answers of all lines into files, in their order."""
        document = await self._place.store.read(_KIND, job.spec.custom_id)
        batch = _batch(document) if document is not None else None
        if document is None or batch is None or batch.status != "finalizing":
            return Result()
        objects = self._place.objects
        async with objects.writing() as output, objects.writing() as errors:
            counts = await self._written(batch, document.tenant, output, errors)
            batch.output_file_id = await self._file_of(output, "output", batch, document.tenant)
            batch.error_file_id = await self._file_of(errors, "errors", batch, document.tenant)
        batch.request_counts = counts
        batch.status = batch.ends_as
        now = int(self._place.wall_clock())
        setattr(batch, f"{batch.ends_as}_at", now)
        if await self._changed(document, batch):
            await self._place.store.remove(_OPEN_KIND, batch.id)
        return Result()

    async def _written(
        self, batch: Batch, tenant: str, output: Writing, errors: Writing
    ) -> dict[str, int]:
        good = bad = 0
        after = ""
        while jobs := await self._place.store.listed(
            tenant, batch=batch.id, after=after, limit=_PAGE
        ):
            after = jobs[-1].id
            lines: dict[bool, list[bytes]] = {True: [], False: []}
            for job in jobs:
                lines[is_good(job)].append(answered(job, await self._body(job)))
            for there, found in ((output, lines[True]), (errors, lines[False])):
                if found:
                    await there.write(b"".join(found))
            good += len(lines[True])
            bad += len(lines[False])
        return {"total": good + bad, "completed": good, "failed": bad}

    async def _body(self, job: Job) -> bytes:
        if job.result is None or not job.result.content:
            return job.result.body if job.result is not None else b""
        return await self._place.objects.read(job.result.content)

    async def _file_of(self, written: Writing, what: str, batch: Batch, tenant: str) -> str | None:
        """The file that a part of the answers becomes; None for no lines."""
        if not written.size_bytes:
            return None
        now = self._place.wall_clock()
        name = f"file-{batch.id.removeprefix('batch_')}-{what}"
        size, content = written.size_bytes, await written.keep()
        file = File(name, content, size, int(now), f"{batch.id}_{what}.jsonl", "batch_output")
        if not await self._files.keep(tenant, file):
            await self._place.objects.remove(content)  # of an earlier try, and the same
        return name

    async def _files_in_use(self, tenant: str) -> set[str]:
        opened = await self._place.store.documents(_OPEN_KIND, tenant, limit=_MAX_LISTED)
        found = [await self._place.store.read(_KIND, one.id) for one in opened]
        return {_batch(one).input_file_id for one in found if one is not None}

    async def sweep(self, before: float) -> None:
        """Forget batches that were made before that and have ended."""
        after = new_id("batch_", before)
        while old := await self._place.store.documents(_KIND, None, after):
            for document in old:
                if _batch(document).status in _ENDED:
                    await self._place.store.remove(_KIND, document.id)
            after = old[-1].id

    async def _counted(self, batch: Batch) -> Batch:
        """The batch with its counts as they are now."""
        if batch.status in _ENDED or batch.status == "validating":
            return batch
        counts = await self._place.store.batch_counts(batch.id)
        done = counts.get(State.DONE, 0)
        failed = sum(counts.values()) - done - sum(counts.get(state, 0) for state in OPEN)
        batch.request_counts = {**batch.request_counts, "completed": done, "failed": failed}
        return batch

    async def _changed(self, document: Document, batch: Batch) -> bool:
        return await self._place.store.put(
            _KIND, _document(batch, document.tenant, document.version + 1)
        )


def _document(batch: Batch, tenant: str, version: int) -> Document:
    return Document(batch.id, tenant, version, msgspec.json.encode(batch))


def _batch(document: Document) -> Batch:
    return msgspec.json.decode(document.content, type=Batch)


def _step_id(kind: Kind, batch_id: str) -> str:
    return f"{batch_id}-{kind}"


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
