"""Streams from functions through the gateway: what is written arrives before the end is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.event_streams import chunk, complete, head
from tests.fakes.url_platform import serving
from tests.integration.harness import Harness

CHAT = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
FREE = {"usd_per_request": 0, "usd_per_gb_s": 0}
EVENTS = [f"data: {number}\n\n".encode() for number in range(3)]
REPORT = "REPORT RequestId: 1 Billed Duration: 2000 ms Init Duration: 1500 ms"


class Writer:
    """A function that writes an event, and the rest once it is told that the first has arrived."""

    def __init__(self, *, as_event_stream: bool) -> None:
        self.go_on = asyncio.Event()
        self.end = complete(REPORT)
        self._as_event_stream = as_event_stream

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        kind = "application/vnd.amazon.eventstream" if self._as_event_stream else EVENT_STREAM
        answer = web.StreamResponse(headers={"content-type": kind})
        await answer.prepare(request)
        if self._as_event_stream:
            await answer.write(chunk(head(content_type=EVENT_STREAM)))
        await answer.write(self._framed(EVENTS[0]))
        await self.go_on.wait()
        for event in EVENTS[1:]:
            await answer.write(self._framed(event))
        if self._as_event_stream:
            await answer.write(self.end)
        await answer.write_eof()
        return answer

    def _framed(self, event: bytes) -> bytes:
        return chunk(event) if self._as_event_stream else event


EVENT_STREAM = "text/event-stream"
LAMBDA = {"kind": "aws_lambda", "function": "f", "region": "eu-central-1", "auth": "none"}
KINDS: dict[str, dict[str, Any]] = {
    "Lambda's Invoke API": {**LAMBDA, "invoke_mode": "response_stream", "endpoint_url": "URL"},
    "a Function URL": {**LAMBDA, "invoke_mode": "response_stream", "function_url": "URL"},
    "Cloud Run and Knative": {"kind": "http_function", "url": "URL", "price": FREE},
}


@asynccontextmanager
async def gateway_to(
    writer: Writer, settings: dict[str, Any], folder: Path
) -> AsyncIterator[Harness]:
    async with serving(writer.handle) as url:
        serverless = {key: url if value == "URL" else value for key, value in settings.items()}
        async with Harness(folder, model={"serverless": serverless}) as gateway:
            yield gateway


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
async def test_events_arrive_as_they_are_written(settings: dict[str, Any], tmp_path: Path) -> None:
    writer = Writer(as_event_stream="endpoint_url" in settings)
    async with (
        gateway_to(writer, settings, tmp_path) as gateway,
        gateway.client.post(
            f"{gateway.url}/v1/chat/completions", data=CHAT, headers={"x-request-id": "r"}
        ) as answer,
    ):
        assert (answer.status, answer.headers["content-type"]) == (200, EVENT_STREAM)
        assert await answer.content.readexactly(len(EVENTS[0])) == EVENTS[0]
        writer.go_on.set()
        assert await answer.content.read() == b"".join(EVENTS[1:])
        line = await gateway.logged("r")
    assert (line["outcome"], line["backend"]) == ("ok", "serverless")


async def test_what_a_stream_cost_and_that_it_was_cold_is_known_at_its_end(tmp_path: Path) -> None:
    writer = Writer(as_event_stream=True)
    writer.go_on.set()
    price = {"usd_per_request": 0.5, "usd_per_gb_s": 1.0}
    settings = {**KINDS["Lambda's Invoke API"], "price": price, "memory_mb": 1024}
    async with gateway_to(writer, settings, tmp_path) as gateway:
        reply = await gateway.infer(CHAT, "/v1/chat/completions", x_request_id="r")
        line = await gateway.logged("r")
        function = (await gateway.status())["serverless"]
        shown = (await gateway.ask("GET", "/metrics")).body.decode()
    assert reply.body == b"".join(EVENTS)
    assert line["cost_usd"] == pytest.approx(2.5)
    assert line["cold_start"] is True
    assert (function["calls"], function["cold_calls"], function["init_p50_ms"]) == (1, 1, 1500.0)
    assert 'router_cold_starts_total{model="m"} 1.0' in shown


async def test_a_function_that_fails_amid_its_stream_breaks_the_connection(tmp_path: Path) -> None:
    """The client must not take what came for the whole."""
    writer = Writer(as_event_stream=True)
    writer.end = complete(ErrorCode="Unhandled", ErrorDetails="secret")
    async with gateway_to(writer, KINDS["Lambda's Invoke API"], tmp_path) as gateway:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(CHAT)}\r\n"
        reader, peer = await gateway.connect()
        peer.write(head.encode() + b"x-request-id: r\r\n\r\n" + CHAT)
        async with asyncio.timeout(10):
            await reader.readuntil(EVENTS[0])
            writer.go_on.set()
            try:
                end = await reader.read()
            except ConnectionResetError:
                end = b""
        line = await gateway.logged("r")
    assert line["outcome"] == "upstream_failed"
    assert not end.endswith(b"0\r\n\r\n"), "it looks complete"
    assert b"secret" not in end


async def test_a_buffered_function_gets_no_streams(tmp_path: Path) -> None:
    settings = {**LAMBDA, "endpoint_url": "URL"}
    async with gateway_to(Writer(as_event_stream=True), settings, tmp_path) as gateway:
        reply = await gateway.infer(CHAT, "/v1/chat/completions")
    assert reply.status == 503
    assert "serverless: stream" in reply.body.decode()
