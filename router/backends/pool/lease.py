"""A reserved slot of one replica: the attempt that uses it, and what is learned when it ends."""

from collections.abc import Awaitable
from typing import Protocol

from router.admission.uploads import Unfinished
from router.backends.pool.caller import PoolCaller
from router.backends.pool.endpoint import Endpoint
from router.domain.clock import Clock
from router.domain.decision import Verdict
from router.domain.ports import BackendResponse, Payload, Upload
from router.domain.request import InferenceRequest
from router.upstream.response import UpstreamResponse


class Keeper(Protocol):
    """Whom the slot goes back to."""

    def learn(self, endpoint: Endpoint, payload_bytes: int, served_s: float) -> None:
        """The endpoint has answered a request of that size well, in so many seconds."""
        ...

    def erred(self, endpoint: Endpoint, request: InferenceRequest) -> None:
        """The endpoint has answered the request with an error of its model server."""
        ...

    def takes_upload(self, request: InferenceRequest, upload: Unfinished, now: float) -> bool:
        """Whether a slot may be held for that body; it is then counted until it leaves."""
        ...

    def upload_left(self, upload: Unfinished) -> None:
        """A slot is no longer held for that body."""
        ...

    def job_left(self) -> None:
        """The slot of a job is given back."""
        ...

    def release(
        self, endpoint: Endpoint, verdict: Verdict, since: float, now: float, tenant: str
    ) -> float:
        """A tenant's attempt that began at `since` has ended; returns the replica's seconds."""
        ...


class PoolLease:
    """A slot of one endpoint."""

    __slots__ = (
        "_caller", "_clock", "_endpoint", "_is_job", "_payload_bytes", "_pool", "_request",
        "_served_s", "_since", "_upload",
    )  # fmt: skip

    def __init__(
        self, pool: Keeper, endpoint: Endpoint, caller: PoolCaller, clock: Clock, since: float,
        *, is_job: bool = False,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._is_job = is_job
        self._endpoint = endpoint
        self._caller = caller
        self._clock = clock
        self._since = since
        self._request: InferenceRequest | None = None
        self._payload_bytes: int | None = None
        self._served_s = 0.0
        self._upload: Upload | None = None

    @property
    def endpoint_id(self) -> str:
        """Opaque id of the endpoint."""
        return self._endpoint.id

    def may_wait_for(self, request: InferenceRequest, upload: Upload) -> bool:
        """Whether the pool lets this slot be held while that body comes."""
        if not self._pool.takes_upload(request, upload, self._clock()):
            return False
        self._upload = upload
        return True

    async def send(
        self, request: InferenceRequest, body: Payload, timeout_s: float
    ) -> BackendResponse:
        """Send to the endpoint."""
        started = self._clock()
        self._note(request)
        response = await self._caller.send(self._endpoint.address, request, body, timeout_s)
        self._served_s = self._clock() - started
        if not isinstance(body, bytes):
            self._served_s -= body.waited_s  # a slow client says nothing about the replica
        return response

    async def taken_over(
        self, request: InferenceRequest, answer: Awaitable[UpstreamResponse], started: float
    ) -> BackendResponse:
        """As `send`, for a request that is under way at the endpoint since `started`."""
        self._note(request)
        response = await self._caller.understood(await answer)
        self._served_s = self._clock() - started
        return response

    def _note(self, request: InferenceRequest) -> None:
        self._request = request
        self._payload_bytes = request.payload_bytes if request.is_inference else None

    def release(self, verdict: Verdict, now: float, response: BackendResponse | None) -> float:
        """Free the slot; learn the endpoint's health, the model's service time, what was used."""
        pool = self._pool
        if self._is_job:
            pool.job_left()
        tenant = self._request.tenant if self._request is not None else None
        if self._upload is not None:
            pool.upload_left(self._upload)
        learns = response is not None and response.status < 400
        if learns and self._payload_bytes is not None:
            pool.learn(self._endpoint, self._payload_bytes, self._served_s)
        if verdict is Verdict.MODEL_ERROR and self._request is not None:
            pool.erred(self._endpoint, self._request)
        return pool.release(self._endpoint, verdict, self._since, now, tenant or "")
