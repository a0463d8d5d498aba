"""A model server for large bodies: it tells what has arrived so far, and reads at a test's pace.

    async with upload_server() as server:
        arrival = await server.arrival(0)      # the head is here, the body may still be coming
        await arrival.received(1_000_000)      # at least that much of it

Health probes are always answered.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

WITHIN_S = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Arrival:
    """One inference request, as far as it has arrived."""

    head: bytes
    length: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    size: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self, up_to: int | None = None) -> None:
        """Read the body, to its end or until that much of it is here."""
        wanted = self.length if up_to is None else up_to
        while self.size < wanted:
            data = await self.reader.read(min(65536, wanted - self.size))
            if not data:
                raise ConnectionResetError
            self.size += len(data)
            self.digest.update(data)
            async with self.changed:
                self.changed.notify_all()

    async def received(self, size: int) -> None:
        """Wait until that much of the body has been read."""
        async with asyncio.timeout(WITHIN_S), self.changed:
            await self.changed.wait_for(lambda: self.size >= size)

    async def answer(self, status: int = 200, body: bytes | None = None) -> None:
        """Answer with what has arrived."""
        if body is None:
            seen = {"bytes": self.size, "sha256": self.digest.hexdigest()}
            body = json.dumps(seen).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
        self.writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await self.writer.drain()

    async def until_closed(self) -> None:
        """Wait until the gateway has closed its connection."""
        async with asyncio.timeout(WITHIN_S):
            await self.closed.wait()


Behaviour = Callable[[Arrival], Awaitable[None]]


async def reads_all(arrival: Arrival) -> None:
    """Read the whole body and answer with its digest."""
    await arrival.read()
    await arrival.answer()


@dataclass
class UploadServer:
    """A running server; `behave` may be replaced at any time."""

    behave: Behaviour = reads_all
    url: str = ""
    arrivals: list[Arrival] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def arrival(self, index: int) -> Arrival:
        """The index-th inference request, once its head is here."""
        async with asyncio.timeout(WITHIN_S), self.changed:
            await self.changed.wait_for(lambda: len(self.arrivals) > index)
        return self.arrivals[index]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = _LENGTH.search(head)
                arrival = Arrival(head, int(found[1]) if found else 0, reader, writer)
                if head.startswith(b"GET"):
                    await arrival.answer(body=b"{}")
                else:
                    await self._take(arrival)

    async def _take(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        async with self.changed:
            self.changed.notify_all()
        try:
            await self.behave(arrival)
            if arrival.size < arrival.length:  # answered early: the rest is thrown away
                while await arrival.reader.read(65536):
                    pass
                raise ConnectionResetError
        except ConnectionError:
            arrival.closed.set()
            raise


@asynccontextmanager
async def upload_server(behave: Behaviour = reads_all) -> AsyncIterator[UploadServer]:
    """Listen on a free port of the loopback until the block ends."""
    server = UploadServer(behave)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await server._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            if not writer.is_closing():
                writer.transport.abort()
            tasks.discard(task)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()
