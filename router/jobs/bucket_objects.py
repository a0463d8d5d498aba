"""Objects in S3 and what speaks like it, in Google Cloud Storage, or in Azure's Blob Storage.

Whoever runs the gateway gives it the rights as its platform does: environment, instance role,
workload identity. What is in the store may be read as soon as it has been written, and is durable
then: these stores promise both.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from router.domain.errors import NotDurableError, NotFoundError
from router.jobs.store import not_durable

_PART_BYTES = 256 * 1024
_BUFFER_BYTES = 8 * 1024 * 1024
"""A longer object is uploaded in parts of that size; S3 takes none below 5 MiB."""
_AT_ONCE = 16
_TIMEOUT_S = 30
_RETRIES = 3
_PROBE = "written-by-hybrid-router"
_NOT_WRITTEN = "the object store of jobs cannot be written"
_NOT_READ = "the object store of jobs cannot be read"


def _failed(what: str, error: Exception) -> NotDurableError:
    reason = str(error).partition("\n")[0]  # what follows is the client's own state, at length
    return not_durable(what, OSError(reason))


class BucketWriting:
    """An object that is being written (a `Writing`)."""

    def __init__(self, store: ObjectStore) -> None:
        self.name = token_hex(16)
        self.size_bytes = 0
        self._store = store
        self._writer: Any = None

    async def __aenter__(self) -> Self:
        self._writer = obstore.open_writer_async(
            self._store, self.name, buffer_size=_BUFFER_BYTES, max_concurrency=1
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Parts that were sent of an object that is not kept are for the bucket's own rule.
        self._writer = None

    async def write(self, part: bytes) -> None:
        """Add to it. Raises NotDurableError."""
        self.size_bytes += len(part)
        try:
            await self._writer.write(part)
        except (BaseError, OSError) as error:
            raise _failed(_NOT_WRITTEN, error) from error

    async def keep(self) -> str:
        """It is complete: returns its name once it is stored. Raises NotDurableError."""
        try:
            await self._writer.close()
        except (BaseError, OSError) as error:
            raise _failed(_NOT_WRITTEN, error) from error
        return self.name


def bucket(url: str) -> ObjectStore:
    """The store behind `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`."""
    return from_url(
        url,
        client_options={
            "timeout": f"{_TIMEOUT_S}s",
            "connect_timeout": "5s",
            "allow_http": True,  # where AWS_ENDPOINT_URL says so
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_TIMEOUT_S)},
    )


class BucketObjects:
    """The objects of one store (`Objects`)."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def open(self) -> None:
        """See that it can be written. Raises NotDurableError."""
        try:
            await obstore.put_async(self._store, _PROBE, b"")
        except (BaseError, OSError) as error:
            raise _failed(_NOT_WRITTEN, error) from error

    def writing(self) -> BucketWriting:
        """A new object."""
        return BucketWriting(self._store)

    async def keep(self, content: bytes) -> str:
        """Write a whole object; returns its name. Raises NotDurableError."""
        name = token_hex(16)
        try:
            await obstore.put_async(self._store, name, content)
        except (BaseError, OSError) as error:
            raise _failed(_NOT_WRITTEN, error) from error
        return name

    async def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """An object, or that part of it. Raises NotFoundError and NotDurableError."""
        try:
            if length is None:
                found = await obstore.get_async(self._store, name)
                return bytes(await found.bytes_async())[start:]
            return bytes(
                await obstore.get_range_async(self._store, name, start=start, length=length)
            )
        except FileNotFoundError as error:
            raise NotFoundError("the content is not there any more") from error
        except (BaseError, OSError) as error:
            raise _failed(_NOT_READ, error) from error

    async def parts(self, name: str) -> AsyncIterator[bytes]:
        """An object, bit by bit. Raises NotFoundError and NotDurableError."""
        try:
            found = await obstore.get_async(self._store, name)
            async for part in found.stream(min_chunk_size=_PART_BYTES):
                whole = memoryview(part)
                for start in range(0, len(whole), _PART_BYTES):
                    yield bytes(whole[start : start + _PART_BYTES])
        except FileNotFoundError as error:
            raise NotFoundError("the content is not there any more") from error
        except (BaseError, OSError) as error:
            raise _failed(_NOT_READ, error) from error

    async def remove(self, *names: str) -> None:
        """Forget objects; those that are not there are no matter. Raises NotDurableError."""
        for start in range(0, len(names), _AT_ONCE):
            try:
                await asyncio.gather(
                    *(self._remove(name) for name in names[start : start + _AT_ONCE])
                )
            except (BaseError, OSError) as error:
                raise _failed(_NOT_WRITTEN, error) from error

    async def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            await obstore.delete_async(self._store, name)

    async def sweep(self, before: float) -> None:
        """Nothing: uploads that were not finished are the bucket's to drop, by its own rule."""
