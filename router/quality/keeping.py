"""Bodies that pass through to somebody else and are kept, within a budget.

Neither the pace nor the content of what passes is changed; what does not fit is not kept.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from router.domain.ports import Payload, Upload


@dataclass(slots=True)
class ByteBudget:
    """Bytes that all copies of one shadow may keep."""

    held: int = 0

    def take(self, size: int, limit: int) -> bool:
        """Whether that much more is kept now."""
        if self.held + size > limit:
            return False
        self.held += size
        return True


class Keeper:
    """The bytes of one exchange. `close` gives the budget back, once."""

    def __init__(self, budget: ByteBudget, limit: int) -> None:
        self._budget = budget
        self._limit = limit
        self._held = 0

    def reserve(self, size: int) -> bool:
        """Whether there is room for so much more."""
        if not self._budget.take(size, self._limit):
            return False
        self._held += size
        return True

    def close(self) -> None:
        """Nothing is kept any more."""
        self._budget.held -= self._held
        self._held = 0


class KeptUpload:
    """A request's body that is passed on as it comes, and kept (an `Upload`).

    Room for it has been reserved before.
    """

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._parts: list[bytes] = []

    @property
    def waited_s(self) -> float:
        """As of the upload."""
        return self._upload.waited_s

    @property
    def is_complete(self) -> bool:
        """As of the upload."""
        return self._upload.is_complete

    @property
    def is_untouched(self) -> bool:
        """As of the upload."""
        return self._upload.is_untouched

    async def read(self) -> bytes:
        """The next bytes."""
        part = await self._upload.read()
        self._parts.append(part)
        return part

    async def whole(self) -> bytes:
        """All of it."""
        body = await self._upload.whole()
        self._parts = [body]
        return body

    @property
    def content(self) -> bytes:
        """What has passed so far."""
        return b"".join(self._parts)


class KeptParts:
    """What passes of an answer, kept as far as there is room."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._parts: list[bytes] | None = []

    def keep(self, part: bytes) -> None:
        """Keep a part that was passed on, if there is room; else nothing of the answer."""
        if self._parts is None:
            return
        if self._keeper.reserve(len(part)):
            self._parts.append(part)
        else:
            self._parts = None

    @property
    def content(self) -> bytes | None:
        """What has passed, None if there was no room for it."""
        return None if self._parts is None else b"".join(self._parts)


class KeptAnswer(KeptParts):
    """The rest of an answer that is passed on as it comes, and kept as far as there is room."""

    def __init__(self, rest: AsyncIterator[bytes], keeper: Keeper) -> None:
        super().__init__(keeper)
        self._rest = rest

    def __aiter__(self) -> "KeptAnswer":
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._rest)
        self.keep(chunk)
        return chunk

    async def aclose(self) -> None:
        """Drop what has not been read."""
        if hasattr(self._rest, "aclose"):
            await self._rest.aclose()


def kept_body(body: Payload) -> bytes | None:
    """All of a body that was sent; None if it is not here."""
    if isinstance(body, bytes):
        return body
    return body.content if isinstance(body, KeptUpload) else None
