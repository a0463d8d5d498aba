"""Files of batches, as OpenAI's clients upload, list, read and delete them.

A file goes to the disk as it comes; nothing looks inside before a batch is made of it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from secrets import token_hex

import msgspec
from aiohttp import BodyPartReader, web

from router.domain.errors import (
    BodyTimeoutError,
    BrokenBodyError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    TooManyJobsError,
)
from router.domain.ports import BackendResponse
from router.gateway.body import Body
from router.gateway.protocols.base import require
from router.jobs.asking import Asking, answer_of, list_of
from router.jobs.place import Place
from router.jobs.store import Document

KIND = "file"
_MAX_PARTS = 20
_MAX_FIELD_BYTES = 1024
_CHUNK_BYTES = 256 * 1024
_MAX_NAME_CHARS = 255
_MAX_LISTED = 10_000


class File(msgspec.Struct, frozen=True):
    """A file; `content` is the object that holds it."""

    id: str
    content: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str = "processed"

    def told(self) -> dict[str, object]:
        """What clients are told of it."""
        told: dict[str, object] = {"object": "file", **msgspec.structs.asdict(self)}
        del told["content"]
        return told


def new_id(prefix: str, now: float) -> str:
    """A name that nobody guesses; those that were given later sort later."""
    return f"{prefix}{int(now * 1e3):012x}{token_hex(10)}"


class Files:
    """The paths under `/v1/files`.

    `in_use` says which files of a tenant may not be forgotten.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.in_use: Callable[[str], Awaitable[Collection[str]]] = _none_in_use

    async def answer(self, asking: Asking) -> BackendResponse:
        """The answer to a request. Raises RouterError."""
        match asking.method, asking.segments[2:]:
            case "POST", []:
                return answer_of((await self._uploaded(asking)).told())
            case "GET", []:
                return await self._listed(asking)
            case _, []:
                require(asking.method, "GET", "POST")
            case "GET", [file_id]:
                return answer_of((await self.own(asking.tenant, file_id)).told())
            case "DELETE", [file_id]:
                return await self._deleted(asking, file_id)
            case _, [_]:
                require(asking.method, "GET", "DELETE")
            case _, [file_id, "content"]:
                require(asking.method, "GET")
                return await self._content(asking, file_id)
            case _:
                pass
        raise NotFoundError("this path is not part of the API")

    async def own(self, tenant: str, file_id: str) -> File:
        """A tenant's file. Raises NotFoundError."""
        document = await self._place.store.read(KIND, file_id)
        if document is None or document.tenant != tenant:
            raise NotFoundError(f"there is no file {file_id[:80]!r}")
        return _file(document)

    async def keep(self, tenant: str, file: File) -> bool:
        """Write a file down; False if one of that id is there."""
        document = Document(file.id, tenant, 1, msgspec.json.encode(file))
        return await self._place.store.put(KIND, document)

    async def sweep(self, before: float) -> None:
        """Forget files that were made before that."""
        after = new_id("file-", before)
        while old := await self._place.store.documents(KIND, None, after):
            for document in old:
                if document.id not in await self.in_use(document.tenant):
                    await self._forget(_file(document))
            after = old[-1].id

    async def _forget(self, file: File) -> None:
        await self._place.store.remove(KIND, file.id)
        await self._place.objects.remove(file.content)

    async def _uploaded(self, asking: Asking) -> File:
        settings = self._place.settings
        have = await self._place.store.documents(KIND, asking.tenant, limit=settings.max_files)
        if len(have) >= settings.max_files:
            raise TooManyJobsError(f"you have {len(have)} files, and may have no more", 60.0)
        left = settings.max_bytes - sum(_file(one).bytes for one in have)
        now = self._place.wall_clock()
        purpose, name, content, size = "", "", "", 0
        timeout_s = asking.runtime.settings.server.body_timeout_s
        async with self._place.objects.writing() as new:
            async for part in _parts(asking.body, timeout_s):
                if part.name == "purpose":
                    purpose = await _field(part, timeout_s)
                elif part.name == "file" and not name:
                    name = (part.filename or "upload.jsonl")[:_MAX_NAME_CHARS]
                    async for chunk in _chunks(part, timeout_s):
                        _check_size(new.size_bytes + len(chunk), settings.max_file, left)
                        await new.write(chunk)
                else:
                    await _field(part, timeout_s)
            if purpose != "batch":
                raise InvalidRequestError(f"purpose = {purpose[:40]!r}, must be batch")
            if not new.size_bytes:
                raise InvalidRequestError("the form has no file, or an empty one")
            content, size = await new.keep(), new.size_bytes
        file = File(new_id("file-", now), content, size, int(now), name, purpose)
        await self.keep(asking.tenant, file)
        return file

    async def _listed(self, asking: Asking) -> BackendResponse:
        limit = asking.number("limit", _MAX_LISTED, 100)
        documents = await self._place.store.documents(
            KIND, asking.tenant, asking.text("after"), limit + 1
        )
        files = [msgspec.json.decode(one.content, type=File).told() for one in documents]
        return answer_of(list_of(files, limit))

    async def _deleted(self, asking: Asking, file_id: str) -> BackendResponse:
        file = await self.own(asking.tenant, file_id)
        if file.id in await self.in_use(asking.tenant):
            raise ConflictError("a batch that has not ended reads the file")
        await self._forget(file)
        return answer_of({"id": file_id, "object": "file", "deleted": True})

    async def _content(self, asking: Asking, file_id: str) -> BackendResponse:
        file = await self.own(asking.tenant, file_id)
        parts = self._place.objects.parts(file.content)
        first = await anext(parts, b"")
        headers = [("content-type", "application/jsonl"), ("content-length", str(file.bytes))]
        return BackendResponse(200, headers, first, parts)


def _file(document: Document) -> File:
    return msgspec.json.decode(document.content, type=File)


def _check_size(size: int, most: int, left: int) -> None:
    if size > most:
        raise PayloadTooLargeError(f"the file is over the limit of {most} bytes")
    if size > left:
        raise TooManyJobsError(f"your files may have {max(0, left)} bytes more", 60.0)


async def _none_in_use(_: str) -> Collection[str]:
    return ()


async def _parts(body: Body, timeout_s: float) -> AsyncIterator[BodyPartReader]:
    """The parts of a form as they come. Raises InvalidRequestError and its like."""
    async with _reading(timeout_s):
        reader = body.form()
    for _ in range(_MAX_PARTS):
        async with _reading(timeout_s):
            part = await reader.next()
        if part is None:
            return
        if not isinstance(part, BodyPartReader):
            raise InvalidRequestError("the form has a form inside")
        yield part
    raise InvalidRequestError(f"the form has more than {_MAX_PARTS} parts")


async def _chunks(part: BodyPartReader, timeout_s: float) -> AsyncIterator[bytes]:
    while True:
        async with _reading(timeout_s):
            chunk = await part.read_chunk(_CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


async def _field(part: BodyPartReader, timeout_s: float) -> str:
    found = b""
    async for chunk in _chunks(part, timeout_s):
        found += chunk
        if len(found) > _MAX_FIELD_BYTES:
            raise InvalidRequestError(f"field {str(part.name)[:40]!r} is too long")
    return found.decode("utf-8", "replace")


@asynccontextmanager
async def _reading(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise BodyTimeoutError(f"nothing of the form came for {timeout_s:g} s") from None
    except web.RequestPayloadError as error:
        raise BrokenBodyError("the body's framing is broken") from error
    except (ValueError, RuntimeError, AssertionError, LookupError) as error:
        raise InvalidRequestError("the body is not a valid form") from error
