"""A wire between the gateway and a real server, on which a test sees what the server answered.

    async with tapped("127.0.0.1:1234") as tap:
        ... the gateway's pool has the url `tap.url` ...
        tap.answered()                  # every answer that the server has given since `forget`

Passes on every byte as it comes, and both directions' ends.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


@dataclass
class Tap:
    """A running wire. `sent` is what went to the server, `answers` what came back, by connection"""

    server: str
    url: str = ""
    sent: list[bytearray] = field(default_factory=list)
    answers: list[bytearray] = field(default_factory=list)

    def forget(self) -> None:
        """Start anew, on the connections that are open as well."""
        for recorded in (*self.sent, *self.answers):
            recorded.clear()

    def answered(self) -> list[int]:
        """The statuses of the server's answers, connection by connection."""
        found = (_STATUS.findall(bytes(recorded)) for recorded in self.answers)
        return [int(status) for statuses in found for status in statuses]

    def count(self, text: bytes) -> int:
        """How often the server's answers contain a text."""
        return sum(recorded.count(text) for recorded in self.answers)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self.server.split(":")
        back_reader, back_writer = await asyncio.open_connection(host, int(port))
        sent, answers = bytearray(), bytearray()
        self.sent.append(sent)
        self.answers.append(answers)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, back_writer, sent))
                group.create_task(_copy(back_reader, writer, answers))
        finally:
            back_writer.transport.abort()
            writer.transport.abort()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recorded: bytearray
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            recorded += data
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def tapped(server: str) -> AsyncIterator[Tap]:
    """Listen on a free port of the loopback until the block ends; `server` is HOST:PORT."""
    tap = Tap(server)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(asyncio.CancelledError):  # the test is over
                await tap._carry(reader, writer)
        finally:
            tasks.discard(task)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    tap.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield tap
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()
