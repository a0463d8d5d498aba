"""Payloads, answers and files that are too long for the journal: objects, in a folder or a bucket.

An object that can be read is whole, and durable before anybody knows its name. Names are made here
and never come from a client. Implemented by `folder_objects` and `bucket_objects`.
"""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self


class Writing(Protocol):
    """An object that is being written; `name` is what it can be read by after `keep`.

    Left without `keep`, nothing can be read of it.
    """

    name: str
    size_bytes: int

    async def __aenter__(self) -> Self:
        """Begin. Raises NotDurableError."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop it if it was not kept."""
        ...

    async def write(self, part: bytes) -> None:
        """Add to it. Raises NotDurableError."""
        ...

    async def keep(self) -> str:
        """It is complete: returns its name once it is durable. Raises NotDurableError."""
        ...


class Objects(Protocol):
    """Where objects are kept, by all gateways that share jobs."""

    async def open(self) -> None:
        """See that objects can be written. Raises NotDurableError."""
        ...

    def writing(self) -> Writing:
        """A new object."""
        ...

    async def keep(self, content: bytes) -> str:
        """Write a whole object; returns its name. Raises NotDurableError."""
        ...

    async def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """An object, or that part of it. Raises NotFoundError, and NotDurableError for now."""
        ...

    def parts(self, name: str) -> AsyncIterator[bytes]:
        """An object, bit by bit. Raises NotFoundError, and NotDurableError for now."""
        ...

    async def remove(self, *names: str) -> None:
        """Forget objects; those that are not there are no matter. Raises NotDurableError."""
        ...

    async def sweep(self, before: float) -> None:
        """Drop what was begun before that (wall clock) and never kept."""
        ...
