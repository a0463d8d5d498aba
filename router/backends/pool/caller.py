"""Carries one attempt to one replica over HTTP, body untouched."""

from router.backends.forwarding import forwarded_headers
from router.backends.refusal import refusal_of
from router.domain.ports import BackendResponse, Payload
from router.domain.request import InferenceRequest
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient
from router.upstream.response import UpstreamResponse


class PoolCaller:
    """Sends requests as they came, except for what the upstream must not or cannot miss."""

    def __init__(self, upstream: UpstreamClient, connect_timeout_s: float) -> None:
        self._upstream = upstream
        self.connect_timeout_s = connect_timeout_s

    async def send(
        self, address: Address, request: InferenceRequest, body: Payload, timeout_s: float
    ) -> BackendResponse:
        """Return the replica's answer. Raises AttemptError; busy or broken replicas are one too."""
        call = Call(
            method=request.method,
            target=request.target,
            headers=forwarded_headers(request),
            body=body,
            body_bytes=request.payload_bytes,
            deadline=request.deadline,
            is_idempotent=request.is_idempotent,
            connect_timeout_s=self.connect_timeout_s,
        )
        return await self.understood(await self._upstream.send(address, call, timeout_s=timeout_s))

    @staticmethod
    async def understood(response: UpstreamResponse) -> BackendResponse:
        """The replica's answer, if it is one of the model's. Raises AttemptError."""
        if (
            refusal := refusal_of(response.status, response.body, "a replica", response.headers)
        ) is not None:
            await response.aclose()
            raise refusal
        return BackendResponse(response.status, response.headers, response.body, response.rest)
