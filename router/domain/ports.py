"""The interfaces between the director and the adapters that move bytes."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.domain.decision import Verdict
from router.domain.request import InferenceRequest

Headers = Sequence[tuple[str, str]]


class Upload(Protocol):
    """A body that is still coming from the client. It has one reader, and comes once.

    Reading raises RouterError: the client left, broke its framing, or is too slow.
    """

    @property
    def waited_s(self) -> float:
        """Seconds spent waiting for the client so far."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the client has sent all of it."""
        ...

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has been read: only then may another attempt have the body."""
        ...

    async def read(self) -> bytes:
        """The next bytes, as soon as there are any."""
        ...

    async def whole(self) -> bytes:
        """All of it, to be kept; nothing may have been read before."""
        ...


Payload = bytes | Upload
"""A body: in hand, and good for any number of attempts, or still to come."""


@dataclass(slots=True)
class BackendResponse:
    """An answer of a backend.

    `body` is the whole body, or its beginning when `rest` is not None. `cold_start`, `billed_s`,
    `init_s` and `environment_id` are what the platform said, None where it does not say.
    """

    status: int
    headers: Headers
    body: bytes
    rest: AsyncIterator[bytes] | None = None
    cold_start: bool | None = None
    billed_s: float | None = None
    init_s: float | None = None
    environment_id: str | None = None

    async def close(self) -> None:
        """Drop what has not been read; cancels the upstream."""
        if self.rest is not None and hasattr(self.rest, "aclose"):
            await self.rest.aclose()


class Lease(Protocol):
    """A reserved slot of a backend. Whoever holds it releases it exactly once."""

    @property
    def endpoint_id(self) -> str:
        """Opaque name of where the attempt goes; never an address."""
        ...

    def may_wait_for(self, request: InferenceRequest, upload: Upload) -> bool:
        """Whether the slot may be held for a body that is still to come."""
        ...

    async def send(
        self, request: InferenceRequest, body: Payload, timeout_s: float
    ) -> BackendResponse:
        """Carry out the attempt."""
        ...

    def release(self, verdict: Verdict, now: float, response: BackendResponse | None) -> float:
        """Free the slot and learn from how the attempt went.

        Returns the seconds of a whole replica that it took; none of a function's.
        """
        ...


class Slots(Protocol):
    """A backend of one model, as something with slots to reserve."""

    def try_reserve(
        self, request: InferenceRequest, now: float, avoid: Collection[str] = ()
    ) -> Lease | None:
        """Pick a place and reserve it in one step; None if all are busy or others wait.

        `avoid` names endpoints that already failed this request.
        """
        ...

    async def reserve(
        self, request: InferenceRequest, timeout_s: float, avoid: Collection[str] = ()
    ) -> Lease:
        """Wait for a slot, of other endpoints than those to avoid where there are any.

        Raises QueueFullError or QueueTimeoutError.
        """
        ...


class PoolDriver(Protocol):
    """Keeps replicas running and tells the pool about them."""

    @property
    def is_shared(self) -> bool:
        """Whether all gateways have the same replicas: one of them sets their number, and pays."""
        ...

    def want(self, replicas: int, *, may_shrink: bool = True) -> None:
        """Set the wanted number of replicas, or the least of them. Must not block."""
        ...

    @property
    def billed(self) -> int:
        """Replicas of this gateway that cost money now, ready or not."""
        ...

    def take_over(self) -> int:
        """Replicas of an earlier gateway that were adopted since this was last asked."""
        ...

    async def run(self) -> None:
        """Work until cancelled, then stop what was started and shall not outlive the gateway."""
        ...
