"""A raw server that does exactly what a script says: which bytes, when, and how it ends.

It parses nothing but the length of requests, so it can be as wrong as a test needs it to be.

    async with scripted_server([read_request(), send(ANSWER), close()]) as server:
        ... server.url, server.connections[0].received
"""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

STEP_TIMEOUT_S = 20.0
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class ServerConnection:
    """One accepted connection, as a script and a test see it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: bytes = b""
    requests: list[bytes] = field(default_factory=list)
    closed_by_peer: asyncio.Event = field(default_factory=asyncio.Event)
    script_done: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, size: int = 65536) -> bytes:
        """Read some bytes; b"" (and `closed_by_peer`) once the peer has closed or reset."""
        try:
            data = await self.reader.read(size)
        except ConnectionError:
            data = b""
        self.received += data
        if not data:
            self.closed_by_peer.set()
        return data


Step = Callable[[ServerConnection], Awaitable[None]]


class PeerClosedError(Exception):
    """The peer closed while the script wanted to read: the rest of the script is skipped."""


@dataclass
class ScriptedServer:
    """A running server; `connections` in the order of accepting."""

    url: str
    port: int
    connections: list[ServerConnection] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def connection(self, index: int) -> ServerConnection:
        """Return the index-th connection, waiting until it has been accepted."""
        async with asyncio.timeout(STEP_TIMEOUT_S), self.changed:
            await self.changed.wait_for(lambda: len(self.connections) > index)
        return self.connections[index]


def read_request() -> Step:
    """Read one whole request (head, and body by Content-Length)."""

    async def step(connection: ServerConnection) -> None:
        consumed = sum(map(len, connection.requests))
        while (end := connection.received.find(b"\r\n\r\n", consumed)) < 0:
            await _read_or_stop(connection)
        length = _CONTENT_LENGTH.search(connection.received, consumed, end + 2)
        total = end + 4 + (int(length[1]) if length else 0)
        while len(connection.received) < total:
            await _read_or_stop(connection)
        connection.requests.append(connection.received[consumed:total])

    return step


def read_head() -> Step:
    """Read until the end of a request's head has come; more may come with it."""

    async def step(connection: ServerConnection) -> None:
        while b"\r\n\r\n" not in connection.received:
            await _read_or_stop(connection)

    return step


def send(data: bytes) -> Step:
    """Send bytes in one write."""

    async def step(connection: ServerConnection) -> None:
        connection.writer.write(data)
        await connection.writer.drain()

    return step


def send_in_pieces(data: bytes, sizes: Sequence[int] = (1,)) -> Step:
    """Send bytes in segments of these sizes, the last size repeating; one byte each by default."""

    async def step(connection: ServerConnection) -> None:
        rest, index = data, 0
        while rest:
            size = sizes[min(index, len(sizes) - 1)]
            connection.writer.write(rest[:size])
            await connection.writer.drain()
            await asyncio.sleep(0)  # let the peer read, so that segments stay apart
            rest, index = rest[size:], index + 1

    return step


def wait_for(event: asyncio.Event) -> Step:
    """Go on when the test says so."""

    async def step(_: ServerConnection) -> None:
        await event.wait()

    return step


def signal(event: asyncio.Event) -> Step:
    """Tell the test that the script has come this far."""

    async def step(_: ServerConnection) -> None:
        event.set()

    return step


def half_close() -> Step:
    """Send FIN but go on reading."""

    async def step(connection: ServerConnection) -> None:
        connection.writer.write_eof()

    return step


def close() -> Step:
    """Close the connection in the ordinary way."""

    async def step(connection: ServerConnection) -> None:
        connection.writer.close()

    return step


def reset() -> Step:
    """Close the connection with RST."""

    async def step(connection: ServerConnection) -> None:
        sock: socket.socket = connection.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.writer.transport.abort()

    return step


def stop_reading() -> Step:
    """Leave whatever the peer sends in the socket, until it is full."""

    async def step(connection: ServerConnection) -> None:
        cast(asyncio.Transport, connection.writer.transport).pause_reading()

    return step


def until_peer_closes() -> Step:
    """Never answer: read and drop until the peer closes."""

    async def step(connection: ServerConnection) -> None:
        while await connection.read():
            pass

    return step


@asynccontextmanager
async def scripted_server(
    *scripts: Sequence[Step],
    ssl_context: ssl.SSLContext | None = None,
    unix_path: str | None = None,
) -> AsyncIterator[ScriptedServer]:
    """Serve the n-th connection by the n-th script; more connections get the last one again.

    After its script a connection stays open, and is watched for the peer's close, until the
    test ends. A step that takes longer than STEP_TIMEOUT_S ends the connection.
    """
    tasks: set[asyncio.Task[None]] = set()
    server = ScriptedServer(url="", port=0)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        connection = ServerConnection(reader, writer)
        server.connections.append(connection)
        async with server.changed:
            server.changed.notify_all()
        script = scripts[min(len(server.connections), len(scripts)) - 1]
        try:
            await _play(script, connection)
        finally:
            writer.transport.abort()
            tasks.discard(task)

    if unix_path is not None:
        listener = await asyncio.start_unix_server(accept, unix_path)
        server.url = f"unix:{unix_path}"
    else:
        listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=ssl_context)
        server.port = listener.sockets[0].getsockname()[1]
        server.url = f"{'https' if ssl_context else 'http'}://127.0.0.1:{server.port}"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()


async def _play(script: Sequence[Step], connection: ServerConnection) -> None:
    # A peer that has gone makes any step fail with an OSError: the test looks at the peer's side.
    with suppress(PeerClosedError, OSError, asyncio.CancelledError):
        for step in script:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await step(connection)
        connection.script_done.set()
        while not connection.writer.is_closing() and await connection.read():
            pass
    connection.script_done.set()


async def _read_or_stop(connection: ServerConnection) -> None:
    if not await connection.read():
        raise PeerClosedError
