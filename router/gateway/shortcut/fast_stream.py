"""An answer that is passed on to the client as it comes, by callbacks.

Decides its framing towards the client, and stops the upstream while the client does not read.
"""

from typing import Protocol

from router.domain.clock import Clock
from router.domain.tokens import Tokens
from router.gateway.relay import LAST_CHUNK, chunk
from router.gateway.usage import Passing
from router.upstream.connection import Connection
from router.upstream.response_head import ResponseHead


class Reader(Protocol):
    """The client's connection, as a stream uses it."""

    @property
    def takes_more(self) -> bool:
        """Whether it has room; it says `on_client_ready` when it has room again."""
        ...

    def send_part(self, data: bytes) -> None:
        """Send a part of a response."""
        ...


class AnswerStream:
    """The body of one answer. `idle_s` is how long the upstream may send nothing.

    `tells_tokens` says that it is to be looked at for them.
    """

    __slots__ = (
        "_client", "_clock", "_connection", "_idle_s", "_is_chunked", "_passing", "framing",
        "passed_bytes",
    )  # fmt: skip

    def __init__(
        self,
        client: Reader,
        connection: Connection,
        head: ResponseHead,
        clock: Clock,
        idle_s: float,
        *,
        tells_tokens: bool = False,
    ) -> None:
        self._client = client
        self._connection = connection
        self._clock = clock
        self._idle_s = idle_s
        self._passing = Passing() if tells_tokens else None
        self.passed_bytes = 0
        length = head.content_length
        self._is_chunked = length is None
        self.framing = (
            b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        )
        connection.set_deadline(clock() + idle_s)

    @property
    def end(self) -> bytes:
        """What follows the last byte of the body."""
        return LAST_CHUNK if self._is_chunked else b""

    @property
    def tokens(self) -> Tokens | None:
        """What the answer has told so far."""
        return self._passing.tokens if self._passing is not None else None

    def push(self, data: bytes) -> None:
        """Pass on what came."""
        self.passed_bytes += len(data)
        if self._passing is not None:
            self._passing.add(data)
        if self._is_chunked:
            data = chunk(data)
        self._client.send_part(data)
        self._connection.set_deadline(self._clock() + self._idle_s)
        if not self._client.takes_more:
            self._connection.pause_reading()

    def resume(self) -> None:
        """The client has room again."""
        self._connection.resume_reading()
