"""A request that takes more than the shortcut: served in a task.

Everything that may have to wait is here: functions, queues, retries, hedges, canaries. What is
decided and tried is the director's business; this is the request's task and its way to the client.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from aiohttp.helpers import rfc822_formatted_time

from router.domain.errors import AttemptError
from router.domain.ports import BackendResponse
from router.gateway.body import STREAM_ABOVE_BYTES
from router.gateway.http.framing import Arrival
from router.gateway.relay import LAST_CHUNK, Headers, chunk, reply_head
from router.gateway.responses import ErrorAnswer
from router.gateway.shortcut.fast_attempt import CLOSE

_BODYLESS = frozenset({204, 304})


class Client(Protocol):
    """The client's connection, as a direct request uses it.

    `transport` is None once the client has gone.
    """

    transport: asyncio.Transport | None

    @property
    def is_closing(self) -> bool:
        """Whether the connection ends with this response."""
        ...

    @property
    def takes_more(self) -> bool:
        """Whether it has room; it says `on_client_ready` when it has room again."""
        ...

    def send_part(self, data: bytes) -> None:
        """Send a part of a response."""
        ...

    def reply(self, data: bytes) -> None:
        """Send a whole response, or the end of one; the connection is then free again."""
        ...

    def abort(self) -> None:
        """Break off a response that cannot be completed."""
        ...

    def cut_short(self) -> None:
        """Nothing more is wanted of the client: the connection ends with the coming response."""
        ...


class Direct:
    """One request and its task; to the task it is where the answer goes.

    Exactly one of `whole`, `error` and `stream` is called, once. `arrival` is None for a request
    with a known head, all of which is here.
    """

    __slots__ = ("_arrival", "_client", "_task", "_writable")

    def __init__(self, client: Client, arrival: Arrival | None = None) -> None:
        self._client = client
        self._arrival = arrival
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    def start(self, serving: Coroutine[Any, Any, None]) -> None:
        """Serve the request; `serving` answers it by one of the methods below."""
        self._task = asyncio.get_running_loop().create_task(serving)

    # -- what the client's connection reports ----------------------------------------------------

    def on_client_ready(self) -> None:
        """The client takes more of its answer."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def client_gone(self) -> None:
        """The client has closed its connection: so does everybody's work end."""
        if self._task is not None:  # whose first step is due before this: it may hold slots
            asyncio.get_running_loop().call_soon(self._task.cancel)

    # -- the answer ------------------------------------------------------------------------------

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send an answer that is here."""
        arrival = self._arrival
        if arrival is not None and _is_cut_short(arrival):
            self._client.cut_short()
        head = self._head(status, headers, len(body))
        self._client.reply(head if self._is_head else head + body)

    def error(self, answer: ErrorAnswer, headers: Headers) -> None:
        """Send an error; the connection closes where the request was not read to its end."""
        if answer.closes and self._arrival is not None:
            self._client.cut_short()
        self.whole(answer.status, [*answer.headers, *headers], answer.body)

    async def stream(self, response: BackendResponse, headers: Headers) -> None:
        """Pass an answer on as it arrives, at the pace of the slower side.

        Once the head is out nothing can be repeated: if the upstream breaks, so does the
        connection. Raises AttemptError.
        """
        assert response.rest is not None  # noqa: S101
        given = {name.lower(): value for name, value in response.headers}.get("content-length")
        is_chunked = given is None and not self._is_old
        if given is None and self._is_old:
            self._client.cut_short()  # its end is the connection's
        self._client.send_part(self._head(response.status, headers, given))
        if self._is_head:
            self._client.reply(b"")
            return
        try:
            if response.body:
                await self._send(response.body, is_chunked=is_chunked)
            async for part in response.rest:
                await self._send(part, is_chunked=is_chunked)
        except AttemptError:
            self._client.abort()
            raise
        self._client.reply(LAST_CHUNK if is_chunked else b"")

    @property
    def _is_head(self) -> bool:
        return self._arrival is not None and self._arrival.message.method == "HEAD"

    @property
    def _is_old(self) -> bool:
        return self._arrival is not None and self._arrival.is_old

    def _head(self, status: int, headers: Headers, length: int | str | None) -> bytes:
        return answer_head(self._client, status, headers, length, is_old=self._is_old)

    async def _send(self, part: bytes, *, is_chunked: bool) -> None:
        client = self._client
        client.send_part(chunk(part) if is_chunked else part)
        while not client.takes_more:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable


def answer_head(
    client: Client,
    status: int,
    headers: Headers,
    length: int | str | None,
    *,
    is_old: bool = False,
) -> bytes:
    """The head of an answer; a body without a length is sent in chunks.

    `is_old` is for a client of HTTP/1.0: it knows no chunks, and has to be told to go on.
    """
    lines = list(headers)
    if not any(name.lower() == "date" for name, _ in headers):
        lines.append(("date", rfc822_formatted_time()))
    if length is not None:
        if status not in _BODYLESS:  # no body, so no length of it (RFC 9110 section 8.6)
            lines.append(("content-length", str(length)))
    elif not is_old:
        lines.append(("transfer-encoding", "chunked"))
    if client.is_closing:
        return reply_head(status, lines) + CLOSE + b"\r\n"
    if is_old:
        lines.append(("connection", "keep-alive"))
    return reply_head(status, lines) + b"\r\n"


def _is_cut_short(arrival: Arrival) -> bool:
    """Whether an answer comes before the end of a long body, whose rest is of no use to anybody."""
    return (arrival.length or 0) > STREAM_ABOVE_BYTES and not arrival.payload.is_eof()
