"""A caller whose inputs fail must not take the function from everybody.

Each row is what a platform makes of a model that fails on some inputs. Beside twice as many of
those, all others are answered at once: each request is one call, and the circuit stays closed.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.event_streams import chunk, complete
from tests.fakes.upstreams import ok
from tests.fakes.url_platform import serving
from tests.integration.harness import Harness, Reply

BAD = b"bad input"
ROUNDS = 30
URL = {"kind": "http_function", "price": {"usd_per_request": 0, "usd_per_gb_s": 0}}
INVOKE = {"kind": "aws_lambda", "function": "f", "region": "eu-central-1"}
STREAM = {**INVOKE, "invoke_mode": "response_stream"}
EVENTS = "application/vnd.amazon.eventstream"
RAISED = {"x-amz-function-error": "Unhandled"}


def by_url(status: int, text: str, kind: str = "text/plain") -> Callable[[], web.Response]:
    return lambda: web.Response(status=status, text=text, content_type=kind)


def by_invoke(document: Any, **headers: str) -> Callable[[], web.Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: web.json_response(document, headers=named)


def by_stream(*frames: bytes) -> Callable[[], web.Response]:
    return lambda: web.Response(body=b"".join(frames), content_type=EVENTS)


FAILING: dict[str, tuple[dict[str, Any], Callable[[], web.Response], int]] = {
    "an error as our protocols word it": (
        URL, by_url(500, '{"error": "no"}', "application/json"), 500),
    "Flask's 500": (URL, by_url(500, "<!doctype html><title>500 Internal", "text/html"), 500),
    "gunicorn's 500": (URL, by_url(500, "<html><head><title>Internal", "text/html"), 500),
    "FastAPI's 500": (URL, by_url(500, "Internal Server Error"), 500),
    "FastAPI's 404": (URL, by_url(404, '{"detail":"Not Found"}', "application/json"), 404),
    "its own 503": (URL, by_url(503, '{"detail":"no"}', "application/json"), 503),
    "an empty 500": (URL, by_url(500, ""), 500),
    "a handler that raises": (
        INVOKE, by_invoke({"errorType": "ValueError"}, x_amz_function_error="Unhandled"), 500),
    "a handler that raises in a stream": (
        STREAM, by_stream(complete(ErrorCode="Unhandled", ErrorDetails="a secret")), 500),
    "a handler that answers nothing": (INVOKE, by_invoke(None), 500),
    "a handler's own 503": (INVOKE, by_invoke({"statusCode": 503, "body": "no"}), 503),
    "a handler that takes too long": (
        INVOKE,
        by_invoke({"errorType": "Sandbox.Timedout"}, x_amz_function_error="Unhandled"), 504),
    "an answer that is too large": (
        INVOKE,
        by_invoke({"errorType": "Function.ResponseSizeTooLarge"}, x_amz_function_error="Unhandled"),
        502),
    "a stream that becomes too large": (
        {**STREAM, "limits": {"max_response": "1KiB"}},
        by_stream(chunk(b'{"statusCode": 200}' + bytes(8)), chunk(b"x" * 2000)), 502),
}  # fmt: skip


class Function:
    """Answers good inputs, and bad ones as told; counts both."""

    def __init__(self, settings: dict[str, Any], fail: Callable[[], web.Response]) -> None:
        self._settings = settings
        self._fail = fail
        self.calls = {True: 0, False: 0}

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        is_bad = BAD in body or b"YmFkIGlucHV0" in body
        self.calls[is_bad] += 1
        if is_bad:
            return self._fail()
        answer: dict[str, Any] = {"outputs": []}
        if self._settings["kind"] == "http_function":
            return web.json_response(answer)
        whole = {"statusCode": 200, "body": json.dumps(answer)}
        if "invoke_mode" not in self._settings:
            return web.json_response(whole)
        frames = chunk(json.dumps(whole).encode()) + complete()
        return web.Response(body=frames, content_type=EVENTS)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")


@pytest.mark.parametrize("row", FAILING.values(), ids=FAILING)
async def test_others_do_not_notice(
    row: tuple[dict[str, Any], Callable[[], web.Response], int], tmp_path: Path
) -> None:
    settings, fail, status = row
    function = Function(settings, fail)
    async with serving(function.handle) as url:
        where = {"url": url} if settings["kind"] == "http_function" else {"endpoint_url": url}
        model = {"serverless": {**settings, **where}}
        async with Harness(tmp_path, model=model) as gateway:
            replies: list[Reply] = []
            for _ in range(ROUNDS):
                replies += await asyncio.gather(
                    gateway.infer(BAD), gateway.infer(b"{}"), gateway.infer(BAD)
                )
            shown = (await gateway.ask("GET", "/metrics")).body.decode()
    good = replies[1::3]
    bad = [reply for number, reply in enumerate(replies) if number % 3 != 1]
    assert {reply.status for reply in good} == {200}
    assert {reply.headers["x-router-attempts"] for reply in replies} == {"1"}
    assert {reply.status for reply in bad} == {status}
    assert function.calls == {True: 2 * ROUNDS, False: ROUNDS}
    assert 'router_breaker_open{backend="serverless",model="m"} 0.0' in shown


@pytest.mark.parametrize(
    ("path", "shape"),
    [("/v2/models/m/infer", str), ("/v1/embeddings", dict)],
    ids=["OIP", "OpenAI"],
)
async def test_the_model_that_raised_is_worded_as_the_client_speaks(
    path: str, shape: type, tmp_path: Path
) -> None:
    """And nothing of what the handler said of itself is told; a pool would fail likewise."""

    async def handle(_request: web.Request) -> web.Response:
        document = {"errorType": "ValueError", "errorMessage": "a secret"}
        return web.json_response(document, headers=RAISED)

    async with serving(handle) as url:
        model = {"serverless": {**INVOKE, "endpoint_url": url}}
        async with Harness(tmp_path, warm=[ok()], model=model) as gateway:
            body = json.dumps({"model": "m", "input": "x"}).encode()
            reply = await gateway.infer(body, path, x_router_backend="serverless")
    error = reply.json()["error"]
    assert (reply.status, reply.decision[0]) == (500, "serverless")
    assert isinstance(error, shape)
    assert "the function failed (ValueError)" in str(error)
    assert "secret" not in reply.body.decode()
