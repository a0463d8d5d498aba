"""The Runtime API over real HTTP, with the environment's side played by the test."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from workers.function_host.runtime_api import (
    Answered,
    AnsweredTooMuch,
    Delivery,
    InitFailed,
    Polled,
    Raised,
    RuntimeApi,
    RuntimeEvent,
)

BASE = "/2018-06-01/runtime"
DELIVERY = Delivery("id-1", b'{"a":1}', 1234, "arn:aws:lambda:us-east-1:0:function:f")


@dataclass
class Side:
    """Both ends: the API under test and a client in the sandbox's place."""

    api: RuntimeApi
    session: aiohttp.ClientSession
    url: str
    events: "asyncio.Queue[RuntimeEvent]"

    def poll(self) -> "asyncio.Task[aiohttp.ClientResponse]":
        return asyncio.ensure_future(self._get(f"{BASE}/invocation/next"))

    async def _get(self, path: str) -> aiohttp.ClientResponse:
        response = await self.session.get(self.url + path)
        await response.read()
        return response

    async def post(self, path: str, body: bytes) -> int:
        async with self.session.post(self.url + BASE + path, data=body) as response:
            return response.status

    async def event(self) -> RuntimeEvent:
        return await asyncio.wait_for(self.events.get(), 5)

    async def take(self) -> None:
        """Poll and get DELIVERY."""
        poll = self.poll()
        assert await self.event() == Polled()
        self.api.deliver(DELIVERY)
        assert (await poll).status == 200


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    events: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
    api = RuntimeApi(events.put_nowait)
    url = f"http://{await api.listen()}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield Side(api, session, url, events)
    await api.close()


async def test_a_poll_gets_the_next_invocation(side: Side) -> None:
    poll = side.poll()
    assert await side.event() == Polled()
    side.api.deliver(DELIVERY)
    response = await poll
    assert await response.read() == b'{"a":1}'
    assert response.headers["Lambda-Runtime-Aws-Request-Id"] == "id-1"
    assert response.headers["Lambda-Runtime-Deadline-Ms"] == "1234"
    assert response.headers["Lambda-Runtime-Invoked-Function-Arn"] == DELIVERY.function_arn
    assert response.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(
    ("path", "event"), [("response", Answered(b"42")), ("error", Raised(b"42"))]
)
async def test_an_answer_counts_once(path: str, event: RuntimeEvent, side: Side) -> None:
    await side.take()
    assert await side.post(f"/invocation/id-1/{path}", b"42") == 202
    assert await side.event() == event
    assert await side.post(f"/invocation/id-1/{path}", b"43") == 400
    assert side.events.empty()


async def test_an_answer_to_something_else_is_refused(side: Side) -> None:
    await side.take()
    assert await side.post("/invocation/id-2/response", b"42") == 400
    assert side.events.empty()
    assert await side.post("/invocation/id-1/response", b"42") == 202


async def test_of_two_answers_at_once_the_first_complete_one_counts(side: Side) -> None:
    await side.take()
    release = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"slow"
        await release.wait()

    url = f"{side.url}{BASE}/invocation/id-1/response"
    late = asyncio.ensure_future(side.session.post(url, data=slow()))
    assert await side.post("/invocation/id-1/response", b"quick") == 202
    release.set()
    assert (await late).status == 400
    assert await side.event() == Answered(b"quick")
    assert side.events.empty()


async def test_an_answer_over_the_limit_is_an_event_without_it(side: Side) -> None:
    await side.take()
    place, _, secret = side.url.removeprefix("http://").partition("/")
    host, port = place.split(":")
    head = (
        f"POST /{secret}{BASE}/invocation/id-1/response HTTP/1.1\r\nHost: x\r\n"
        "Content-Length: 6291557\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode())
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 413 ")
    assert await side.event() == AnsweredTooMuch()
    writer.close()
    await writer.wait_closed()


async def test_no_poll_while_an_invocation_runs(side: Side) -> None:
    await side.take()
    assert (await side.poll()).status == 403
    assert side.events.empty()


async def test_a_second_poll_replaces_the_first(side: Side) -> None:
    """A client that lost its connection polls again; the event must not go to the dead one."""
    first = side.poll()
    assert await side.event() == Polled()
    second = side.poll()
    assert (await first).status == 410
    side.api.deliver(DELIVERY)
    assert (await second).status == 200
    assert side.events.empty()


async def test_an_init_error_is_taken_once_and_only_before_the_first_poll(side: Side) -> None:
    assert await side.post("/init/error", b'{"errorType":"X"}') == 202
    assert await side.event() == InitFailed(b'{"errorType":"X"}')
    assert await side.post("/init/error", b"{}") == 403


async def test_no_init_error_after_a_poll(side: Side) -> None:
    await side.take()
    assert await side.post("/init/error", b"{}") == 403


async def test_closing_turns_a_waiting_poll_away(side: Side) -> None:
    poll = side.poll()
    assert await side.event() == Polled()
    await side.api.close()
    assert (await poll).status == 410


async def test_delivering_without_a_poll_is_an_error(side: Side) -> None:
    with pytest.raises(RuntimeError, match="not asked for work"):
        side.api.deliver(DELIVERY)


async def test_each_sandbox_has_a_port_of_its_own(side: Side) -> None:
    other = RuntimeApi(lambda _: None)
    try:
        address = await other.listen()
        assert f"http://{address}" != side.url
        assert address.startswith("127.0.0.1:")
    finally:
        await other.close()
