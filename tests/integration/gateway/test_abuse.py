"""Clients and replicas that misbehave: every outcome is right, counted once, and nothing is left.

Every test runs on the ordinary path, and on the fast path with a head that it knows.
"""

import asyncio
import gc
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest

import router.gateway.server
from router.gateway.http.connection import ClientConnection
from tests.fakes.upload_server import Arrival, UploadServer, upload_server
from tests.fakes.upstreams import ok
from tests.integration.harness import INFER, Harness

LATE = "200ms"
SOON_S = 10.0
"""Ample on a busy machine, and far less than any time-out that could be what ended it."""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
ROUNDS = 3


def post(body: bytes = b"{}", request_id: str = "", size: int | None = None) -> bytes:
    lines = [f"POST {INFER} HTTP/1.1", "host: x", f"content-length: {size or len(body)}"]
    lines += [f"x-request-id: {request_id}"] if request_id else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass
class Site:
    """A gateway before one replica of which every byte is the test's own."""

    gateway: Harness
    server: UploadServer

    async def counts(self) -> dict[str, int]:
        """How many requests have ended in each way."""
        text = (await self.gateway.ask("GET", "/metrics")).body.decode()
        found = re.findall(
            r'^router_requests_total\{.*outcome="(\w+)".*\} (\S+)$', text, re.MULTILINE
        )
        counts: dict[str, int] = {}
        for outcome, value in found:
            counts[outcome] = counts.get(outcome, 0) + round(float(value))
        return {outcome: count for outcome, count in counts.items() if count}

    async def gone(self, within_s: float = 10.0) -> None:
        """Until nothing is under way any more."""
        gateway = self.gateway
        started = time.monotonic()
        await gateway.until(lambda: gateway.in_flight == gateway.pool.in_flight == 0)
        assert time.monotonic() - started < within_s
        assert gateway.gateway._data.bodies.held_bytes == 0


def tasks_of_the_gateway() -> int:
    return sum("upload_server" not in repr(task.get_coro()) for task in asyncio.all_tasks())


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> "WeakSet[ClientConnection]":
    """The client connections of this test's gateway that something still refers to, open or not."""
    made: WeakSet[ClientConnection] = WeakSet()

    class Counted(ClientConnection):  # a subclass without slots can be referred to weakly
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.add(self)

    monkeypatch.setattr(router.gateway.server, "ClientConnection", Counted)
    return made


@pytest.fixture
def response_timeout() -> str:
    """So long that the gateway ends nothing by itself; tests of a late replica set it to `LATE`."""
    return "60s"


@pytest.fixture(params=[False, True], ids=["ordinary", "fast"])
async def site(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    connections: "WeakSet[ClientConnection]",
    response_timeout: str,
) -> AsyncIterator[Site]:
    async with upload_server() as server:
        settings: dict[str, Any] = {
            "server": {"fast_path": request.param, "send_timeout": "500ms"},
            "model": {"attempts": 1},
            "pool": {
                "urls": [server.url], "concurrency": 100,
                "health": {"interval": "60s", "ejection": {"failures": 100}},
                "timeouts": {"response": response_timeout},
            },
        }  # fmt: skip
        async with Harness(tmp_path, warm=[ok()], **settings) as gateway:
            site = Site(gateway, server)
            reader, writer = await gateway.connect()
            for _ in range(2):  # the head is known from now on, and a connection is open
                writer.write(post())
                assert await answer(reader) == 200
            assert len(connections) == 1
            writer.close()
            await gateway.until(lambda: gateway.gateway._data.limits.open == 0)
            before = tasks_of_the_gateway()
            yield site
            await site.gone()
            await gateway.client.close()
            await gateway.until(lambda: gateway.gateway._data.limits.open == 0)
            await gateway.until(lambda: tasks_of_the_gateway() <= before)
            gc.collect()  # what is left now, something refers to
            assert not connections


async def answer(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, once all of it is here; 0 if it is broken off."""
    try:
        async with asyncio.timeout(5):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"transfer-encoding: chunked" in head:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return 0
    return int(head.split()[1])


def says(*parts: bytes, every_s: float = 0.0, then_closes: bool = False) -> Any:
    async def behave(arrival: Arrival) -> None:
        await arrival.read()
        for part in parts:
            arrival.writer.write(part)
            await asyncio.sleep(every_s)  # so that each stands alone
        if then_closes:
            arrival.writer.close()

    return behave


def bytewise(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


LATE_REPLICAS = {
    "a head of one byte a second": says(*bytewise(OK), every_s=1.0),
    "a body of one byte a second": says(OK[:-2], *bytewise(OK[-2:]), every_s=1.0),
    "nothing at all": says(every_s=1.0),
}
BROKEN_REPLICAS = {
    "the end, at once": says(then_closes=True),
    "the end, within its head": says(OK[:20], then_closes=True),
    "the end, within its body": says(OK[:-1], then_closes=True),
    "no HTTP": says(b"nonsense\r\n\r\n"),
    "two lengths": says(OK.replace(b"\r\n\r\n", b"\r\ncontent-length: 1\r\n\r\n")),
}


@pytest.mark.parametrize("response_timeout", [LATE])
@pytest.mark.parametrize("behave", LATE_REPLICAS.values(), ids=LATE_REPLICAS)
async def test_a_replica_that_is_late_with(site, behave):
    await assert_it_fails(site, behave, 504)


@pytest.mark.parametrize("behave", BROKEN_REPLICAS.values(), ids=BROKEN_REPLICAS)
async def test_a_replica_that_gives(site, behave):
    await assert_it_fails(site, behave, 502)


async def assert_it_fails(site: Site, behave: Any, status: int) -> None:
    site.server.behave = behave
    before = await site.counts()
    for number in range(ROUNDS):
        reader, writer = await site.gateway.connect()
        writer.write(post(request_id=f"r{number}"))
        assert await answer(reader) == status
        line = await site.gateway.logged(f"r{number}")
        assert (line["status"], line["outcome"]) == (status, "upstream_failed")
        writer.close()
    assert await site.counts() == {**before, "upstream_failed": ROUNDS}


CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"


@pytest.mark.parametrize(
    "rest", [b"", b"5\r\nhe", b"zz\r\n"], ids=["the end", "a part", "nonsense"]
)
async def test_chunks_and_then(site, rest):
    site.server.behave = says(CHUNKS, rest, then_closes=True, every_s=0.01)
    before = await site.counts()
    for number in range(ROUNDS):
        reader, writer = await site.gateway.connect()
        writer.write(post(request_id=f"c{number}"))
        assert await answer(reader) in {0, 502}, "it is not made to look complete"
        line = await site.gateway.logged(f"c{number}")
        assert line["outcome"] == "upstream_failed"
        writer.close()
    assert await site.counts() == {**before, "upstream_failed": ROUNDS}


async def waits(arrival: Arrival) -> None:
    await arrival.read()
    await arrival.reader.read()
    raise ConnectionResetError


async def streams(arrival: Arrival) -> None:
    await arrival.read()
    arrival.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
    await arrival.reader.read()
    raise ConnectionResetError


LEAVING = {
    "while its replica works": (waits, 499, None),
    "while its answer streams": (streams, 499, b"data: 1\n\n"),
}


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
@pytest.mark.parametrize("case", LEAVING.values(), ids=LEAVING)
async def test_a_client_that_leaves(site, case, how):
    site.server.behave, status, first = case
    before = await site.counts()
    seen = len(site.server.arrivals)
    for number in range(ROUNDS):
        reader, writer = await site.gateway.connect()
        writer.write(post(request_id=f"l{number}"))
        arrival = await site.server.arrival(seen + number)
        if first is not None:
            await reader.readuntil(first)
        assert site.gateway.pool.in_flight == 1
        if number == 0:  # the next ones find no connection to the replica open
            fast = site.gateway.gateway._data.fast_path
            assert fast is None or fast.in_flight == 1
        started = time.monotonic()
        if how == "half-close":
            writer.write_eof()
        elif how == "reset":
            writer.transport.abort()
        else:
            writer.close()
        await arrival.until_closed()
        await site.gone()
        assert time.monotonic() - started < SOON_S
        line = await site.gateway.logged(f"l{number}")
        assert (line["status"], line["outcome"]) == (status, "client_closed")
    assert await site.counts() == {**before, "client_closed": ROUNDS}


async def test_one_that_pipelines_is_answered_and_counted(site):
    before = await site.counts()
    reader, writer = await site.gateway.connect()
    writer.write(b"".join(post(b"%03d" % number) for number in range(50)))
    assert [await answer(reader) for _ in range(50)] == [200] * 50
    assert await site.counts() == {"ok": before["ok"] + 50}
    writer.close()


async def test_one_that_pipelines_and_leaves_is_counted_once(site):
    site.server.behave = waits
    before = await site.counts()
    seen = len(site.server.arrivals)
    _, writer = await site.gateway.connect()
    writer.write(b"".join(post(b"%03d" % number) for number in range(10)))
    arrival = await site.server.arrival(seen)
    writer.transport.abort()
    await arrival.until_closed()
    await site.gone()
    assert len(site.server.arrivals) == seen + 1
    assert await site.counts() == {**before, "client_closed": 1}
