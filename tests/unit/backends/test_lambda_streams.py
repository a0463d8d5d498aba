"""Streamed invocations as a scripted server gives them: bytes as they come, the bill at the end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from router.backends.serverless.access import FixedHeaders
from router.backends.serverless.aws_lambda import LambdaCaller, LambdaTarget
from router.backends.serverless.bodies import Endpoint
from router.domain.errors import (
    AnswerTooLargeError,
    AttemptError,
    ModelFailedError,
    ResponseLostError,
    TimeLimitError,
    UpstreamBrokenError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)
from router.domain.ports import BackendResponse
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient
from tests.fakes.builders import make_request
from tests.fakes.event_streams import chunk, complete, event, frame, head, text
from tests.fakes.scripted_server import (
    Step,
    close,
    read_request,
    scripted_server,
    send,
    until_peer_closes,
)

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"
REPORT = "REPORT RequestId: 1 Billed Duration: 1510 ms Init Duration: 1500.5 ms"


def sized(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(clock=time.monotonic)
    yield client
    await client.close()


def caller(client: UpstreamClient, url: str, limit: int = 1 << 20) -> LambdaCaller:
    target = LambdaTarget(Endpoint(parse_address(url)), "fn", "live", 4096, limit, is_streamed=True)
    return LambdaCaller(target, client, FixedHeaders())


async def rest_of(response: BackendResponse) -> bytes:
    assert response.rest is not None
    return b"".join([part async for part in response.rest])


def wait_for(event: asyncio.Event) -> Step:
    async def step(_connection: object) -> None:
        await event.wait()

    return step


async def test_bytes_come_as_they_are_written_and_the_bill_at_the_end(
    client: UpstreamClient,
) -> None:
    seen = asyncio.Event()
    script = [
        read_request(),
        send(HEAD + sized(chunk(head(201, content_type="text/event-stream") + b"one"))),
        wait_for(seen),
        send(sized(chunk(b"two") + chunk(b"three"))),
        send(sized(complete(REPORT)) + END),
        read_request(),
        send(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"),
    ]
    async with scripted_server(script) as server:
        found = caller(client, server.url)
        response = await found.call(make_request(), b"{}", 5.0)
        assert (response.status, response.body) == (201, b"one")
        assert response.headers == [("content-type", "text/event-stream")]
        assert (response.cold_start, response.billed_s) == (None, None)
        seen.set()
        assert await rest_of(response) == b"twothree"
        assert (response.cold_start, response.billed_s, response.init_s) == (True, 1.51, 1.5005)
        with pytest.raises(UpstreamRejectedError):
            await found.call(make_request(), b"{}", 5.0)
        assert len(server.connections) == 1, "the connection was used again"
        line = server.connections[0].requests[0].partition(b"\r\n")[0].decode()
    path = "/2021-11-15/functions/fn/response-streaming-invocations"
    assert line == f"POST {path}?Qualifier=live HTTP/1.1"


async def test_the_head_may_be_cut_anywhere(client: UpstreamClient) -> None:
    sent = head(200, x_m="1") + b"body"
    data = b"".join(chunk(sent[at : at + 1]) for at in range(len(sent))) + complete()
    script = [read_request(), send(HEAD), *(send(sized(data[i : i + 7])) for i in range(0, 999, 7))]
    async with scripted_server([*script[:-1], send(sized(data[994:]) + END)]) as server:
        response = await caller(client, server.url).call(make_request(), b"{}", 5.0)
        body = response.body + (await rest_of(response) if response.rest is not None else b"")
    assert (response.status, response.headers, body) == (200, [("x-m", "1")], b"body")


async def test_what_comes_at_once_is_no_stream(client: UpstreamClient) -> None:
    data = HEAD + sized(chunk(head() + b"all") + complete(REPORT)) + END
    async with scripted_server([read_request(), send(data)]) as server:
        response = await caller(client, server.url).call(make_request(), b"{}", 5.0)
    assert (response.body, response.rest, response.billed_s) == (b"all", None, 1.51)


async def test_a_function_that_does_not_stream(client: UpstreamClient) -> None:
    answer = json.dumps({"statusCode": 404, "headers": {"x-m": "1"}, "body": "no"}).encode()
    parts = chunk(answer[:9]) + chunk(answer[9:])
    script = [read_request(), send(HEAD + sized(parts)), send(sized(complete(REPORT)) + END)]
    async with scripted_server(script) as server:
        response = await caller(client, server.url).call(make_request(), b"{}", 5.0)
    assert (response.status, response.body, response.rest) == (404, b"no", None)
    assert (response.cold_start, response.billed_s) == (True, 1.51)


FAILED_AT_ONCE: dict[str, tuple[bytes, type[AttemptError], str]] = {
    "the handler raised": (
        complete(ErrorCode="Unhandled", ErrorDetails='{"errorType": "ValueError"}'),
        ModelFailedError, "ValueError"),
    "the handler raised, and says nothing": (
        complete(ErrorCode="Unhandled"), ModelFailedError, "Unhandled"),
    "the handler ran too long": (
        complete(ErrorCode="Sandbox.Timedout"), TimeLimitError, "time limit"),
    "the handler ran too long, in words": (
        complete(ErrorCode="X", ErrorDetails="1 Task timed out after 3.00 seconds"),
        TimeLimitError, "time limit"),
    "the platform broke off": (
        frame(b"secret", {":message-type": text("exception"), ":exception-type": text("X")}),
        UpstreamBrokenError, "broke the stream off"),
    "a stream without a head": (
        chunk(b"data: 1\n\n") + complete(), ModelFailedError, "not an HTTP response"),
    "a head that is none": (
        chunk(b"[]" + bytes(8)) + complete(), ModelFailedError, "not an HTTP response"),
    "no frames": (b"<html> and what follows", UpstreamBrokenError, "damaged"),
    "an end that is none": (event("InvokeComplete", b"[]"), UpstreamBrokenError, "damaged"),
    "nothing": (b"", ResponseLostError, "ended before"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILED_AT_ONCE.values(), ids=FAILED_AT_ONCE)
async def test_failures_before_the_answer_has_begun(
    client: UpstreamClient, case: tuple[bytes, type[AttemptError], str]
) -> None:
    data, error, told = case
    script = [read_request(), send(HEAD + (sized(data) if data else b"") + END), close()]
    async with scripted_server(script) as server:
        with pytest.raises(error, match=told) as caught:
            await caller(client, server.url).call(make_request(), b"{}", 5.0)
    assert type(caught.value) is error
    assert "secret" not in str(caught.value)


BEGUN = HEAD + sized(chunk(head() + b"one"))
FAILED_LATER: dict[str, tuple[list[Step], type[AttemptError], str]] = {
    "the handler raised": (
        [send(sized(complete(ErrorCode="Unhandled")) + END)], ModelFailedError, "Unhandled"),
    "the connection broke": ([close()], ResponseLostError, "broke|closed|ended"),
    "the stream ended too soon": ([send(END)], ResponseLostError, "ended before"),
    "too much": ([send(sized(chunk(b"x" * 200)))], AnswerTooLargeError, "over 200 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILED_LATER.values(), ids=FAILED_LATER)
async def test_failures_within_the_answer(
    client: UpstreamClient, case: tuple[list[Step], type[AttemptError], str]
) -> None:
    steps, error, told = case
    seen = asyncio.Event()
    script = [read_request(), send(BEGUN), wait_for(seen), *steps]
    async with scripted_server(script) as server:
        response = await caller(client, server.url, 200).call(make_request(), b"{}", 5.0)
        assert response.body == b"one"
        seen.set()
        with pytest.raises(error, match=told):
            await rest_of(response)
        await response.close()


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + sized(chunk(b'{"statusCode":'))])
async def test_a_head_that_does_not_come_in_time(client: UpstreamClient, sent: bytes) -> None:
    async with scripted_server([read_request(), send(sent), until_peer_closes()]) as server:
        with pytest.raises(UpstreamTimeoutError):
            await caller(client, server.url).call(make_request(), b"{}", 0.1)


async def test_a_client_that_leaves_ends_the_invocation(client: UpstreamClient) -> None:
    async with scripted_server([read_request(), send(BEGUN), until_peer_closes()]) as server:
        response = await caller(client, server.url).call(make_request(), b"{}", 5.0)
        await response.close()
        async with asyncio.timeout(5):
            await server.connections[0].closed_by_peer.wait()
