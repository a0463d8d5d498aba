"""Calls of a function that are alike: what they share is prepared, the rest is added to each."""

from typing import NamedTuple, Protocol

from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest
from router.upstream.address import Address
from router.upstream.client import Call
from router.upstream.response_head import ResponseHead


class Message(NamedTuple):
    """A call as it goes on the wire."""

    head: bytes
    body: bytes


class Understood(NamedTuple):
    """What an answer says; `head` is the one that the client gets, equal ones mostly one object."""

    head: ResponseHead
    response: BackendResponse


class Calls(Protocol):
    """The calls of requests that differ in their id, their body and some lines of their heads.

    A connection may take `connect_timeout_s` to open, None for the usual time.
    """

    connect_timeout_s: float | None
    max_answer_bytes: int

    @property
    def address(self) -> Address:
        """Where they go now. Raises PlatformRefusedError if its TLS files are unusable."""
        ...

    def message(self, lines: bytes, request_id: bytes, body: bytes) -> Message:
        """One call. `lines` are whole lines of its request's head. Raises AttemptError."""
        ...

    def passes_on(
        self, head: ResponseHead, size_bytes: int, start: bytes
    ) -> BackendResponse | None:
        """What the start of a long answer says; None as long as more of it has to be read.

        `size_bytes` have come of it, `start` has the first of them. Raises AttemptError for one
        that is not the model's.
        """
        ...

    def understand(self, head: ResponseHead, body: bytes) -> Understood:
        """What a complete answer says. Raises AttemptError for one that is not the model's."""
        ...


def ready_call(calls: Calls, request: InferenceRequest, body: bytes) -> Call:
    """A call of a request that shares nothing with others. Raises AttemptError."""
    head, content = calls.message(b"", request.request_id.encode("ascii"), body)
    return Call(
        method=request.method,
        target=request.target,
        head=head,
        body=content,
        connect_timeout_s=calls.connect_timeout_s,
        is_idempotent=request.is_idempotent,
    )
