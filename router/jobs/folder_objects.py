"""Objects in a folder.

An object is written under another name and gets its own once all of it is on the disk, its name
included; so one that can be read is whole. Names are made here and never come from a client.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import BinaryIO, Self

from router.domain.errors import NotFoundError
from router.jobs.store import not_durable

_PART_BYTES = 256 * 1024
_NOT_WRITTEN = "the folder of jobs cannot be written"


class FolderWriting:
    """An object that is being written (a `Writing`)."""

    def __init__(self, folder: Path) -> None:
        self.name = token_hex(16)
        self.size_bytes = 0
        self._to = folder / self.name[:2] / self.name
        self._from = folder / f"{self.name}.part"
        self._file: BinaryIO | None = None

    async def __aenter__(self) -> Self:
        try:
            self._file = await asyncio.to_thread(self._begin)
        except OSError as error:
            raise not_durable(_NOT_WRITTEN, error) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            await asyncio.to_thread(self._drop, self._file)

    async def write(self, part: bytes) -> None:
        """Add to it. Raises NotDurableError."""
        assert self._file is not None  # noqa: S101  it is entered, and not kept
        self.size_bytes += len(part)
        try:
            await asyncio.to_thread(self._file.write, part)
        except OSError as error:
            raise not_durable(_NOT_WRITTEN, error) from error

    async def keep(self) -> str:
        """End the file; returns its name once it is on the disk. Raises NotDurableError."""
        assert self._file is not None  # noqa: S101  it is entered, and not kept
        file, self._file = self._file, None
        try:
            await asyncio.to_thread(self._keep, file)
        except OSError as error:
            raise not_durable(_NOT_WRITTEN, error) from error
        return self.name

    def _begin(self) -> BinaryIO:
        try:
            return self._from.open("wb")
        except FileNotFoundError:  # this came before `open`
            self._from.parent.mkdir(0o700, parents=True, exist_ok=True)
            return self._from.open("wb")

    def _keep(self, file: BinaryIO) -> None:
        with file:
            file.flush()
            os.fsync(file.fileno())
        is_new = not self._to.parent.exists()
        self._to.parent.mkdir(exist_ok=True)
        self._from.rename(self._to)
        _sync_folder(self._to.parent)
        if is_new:
            _sync_folder(self._to.parent.parent)

    def _drop(self, file: BinaryIO) -> None:
        with suppress(OSError):  # what cannot be closed is not wanted any more
            file.close()
        self._from.unlink(missing_ok=True)


class FolderObjects:
    """The objects of one folder (`Objects`), which gateways that share jobs have to share too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open(self) -> None:
        """Make the folder, and drop what was being written when a gateway ended.

        Raises NotDurableError.
        """
        try:
            await asyncio.to_thread(self._folder.mkdir, 0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise not_durable(_NOT_WRITTEN, error) from error

    def writing(self) -> FolderWriting:
        """A new object."""
        return FolderWriting(self._folder)

    async def keep(self, content: bytes) -> str:
        """Write a whole object; returns its name. Raises NotDurableError."""
        async with self.writing() as new:
            await new.write(content)
            return await new.keep()

    async def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """An object, or that part of it. Raises NotFoundError."""

        def read() -> bytes:
            with self._path(name).open("rb") as file:
                file.seek(start)
                return file.read() if length is None else file.read(length)

        try:
            return await asyncio.to_thread(read)
        except OSError as error:
            raise NotFoundError("the content is not there any more") from error

    async def parts(self, name: str) -> AsyncIterator[bytes]:
        """An object, bit by bit. Raises NotFoundError."""
        start = 0
        while part := await self.read(name, start, _PART_BYTES):
            yield part
            start += len(part)

    async def remove(self, *names: str) -> None:
        """Forget objects; those that are not there are no matter."""

        def remove() -> None:
            for name in names:
                self._path(name).unlink(missing_ok=True)

        if names:
            await asyncio.to_thread(remove)

    async def sweep(self, before: float) -> None:
        """Drop what was begun before that (wall clock) and never kept."""

        def sweep() -> None:
            for path in self._folder.glob("*.part"):
                with suppress(OSError):  # another gateway was quicker
                    if path.stat().st_mtime < before:
                        path.unlink()

        await asyncio.to_thread(sweep)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
