"""Whatever goes wrong at a platform: the pool takes over, and alone the client gets a true error.

Each row is one failure with the platform's own words for it. It is seen three times: in the reason
of the decision that follows, in the metric of the attempt, and in the client's answer.
"""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.credentials import Credentials

from router.policy.feasibility import EVENT_OVERHEAD_BYTES
from tests.fakes.certificates import make_certificate, server_context
from tests.fakes.event_streams import chunk
from tests.fakes.scripted_server import close, read_request, scripted_server
from tests.fakes.upstreams import ok
from tests.fakes.url_platform import (
    MetadataServer,
    UrlPlatform,
    key_guard,
    running,
    serving,
    signature_guard,
    token_guard,
)
from tests.integration.harness import Harness

FREE = {"usd_per_request": 0, "usd_per_gb_s": 0}
FAST = {"timeout": "100ms", "cold_start_ms": 0, "service_time_ms": 10}
SECRETS = ("the-secret-key", "wr0ng-key", "t0ken-value", "echoes a secret")


@dataclass(frozen=True)
class Failure:
    """A platform that fails, and what must follow from it."""

    start: Callable[[Path], AbstractAsyncContextManager[dict[str, Any]]]
    result: str
    reason: str
    status: int


def by_url(*answers: Callable[[], web.Response], **settings: Any) -> Any:
    """A function behind a URL that gives these answers, the last one again and again."""

    @asynccontextmanager
    async def start(_folder: Path) -> AsyncIterator[dict[str, Any]]:
        platform = UrlPlatform()
        platform.answers = [make() for make in answers for _ in range(3)]
        async with running(platform):
            yield {"kind": "http_function", "url": platform.url, "price": FREE, **settings}

    return start


def by_invoke(
    status: int, document: dict[str, Any], settings: dict[str, Any] | None = None, **headers: str
) -> Any:
    """Lambda's Invoke API giving this answer; `x_amz_a` is header `x-amz-a`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    @asynccontextmanager
    async def start(_folder: Path) -> AsyncIterator[dict[str, Any]]:
        async def handle(_request: web.Request) -> web.Response:
            return web.json_response(document, status=status, headers=named)

        async with serving(handle) as url:
            yield {
                "kind": "aws_lambda",
                "function": "f",
                "region": "eu-central-1",
                "endpoint_url": url,
                **(settings or {}),
            }

    return start


def by_stream(*frames: bytes, **settings: Any) -> Any:
    """Lambda streaming these frames."""

    @asynccontextmanager
    async def start(_folder: Path) -> AsyncIterator[dict[str, Any]]:
        async def handle(request: web.Request) -> web.Response:
            await request.read()
            kind = "application/vnd.amazon.eventstream"
            return web.Response(body=b"".join(frames), content_type=kind)

        async with serving(handle) as url:
            yield {
                "kind": "aws_lambda",
                "function": "f",
                "region": "eu-central-1",
                "endpoint_url": url,
                "invoke_mode": "response_stream",
                **settings,
            }

    return start


def answer(status: int, body: bytes = b"", **options: Any) -> Callable[[], web.Response]:
    return lambda: web.Response(status=status, body=body, **options)


@asynccontextmanager
async def wrong_aws_key(_folder: Path) -> AsyncIterator[dict[str, Any]]:
    platform = UrlPlatform(guard=signature_guard({"AKIDOTHER": Credentials("AKIDOTHER", "x")}))
    async with running(platform):
        yield {
            "kind": "aws_lambda",
            "function": "f",
            "region": "eu-central-1",
            "endpoint_url": platform.url,
        }


@asynccontextmanager
async def wrong_function_key(folder: Path) -> AsyncIterator[dict[str, Any]]:
    await asyncio.to_thread((folder / "key").write_text, "wr0ng-key")
    async with running(UrlPlatform(guard=key_guard("the-key"))) as platform:
        yield {"kind": "azure_function", "url": platform.url, "key_file": "key"}


@asynccontextmanager
async def refused_identity(_folder: Path) -> AsyncIterator[dict[str, Any]]:
    async def identities(_request: web.Request) -> web.Response:
        return web.json_response({"access_token": "t0ken-value", "expires_in": 3600})

    platform = UrlPlatform(guard=key_guard("whatever it is"))
    async with serving(identities) as url, running(platform):
        identity = {"resource": "api://models", "url": url, "secret": "wr0ng-key"}
        yield {"kind": "azure_function", "url": platform.url, "identity": identity}


@asynccontextmanager
async def missing_function_key(_folder: Path) -> AsyncIterator[dict[str, Any]]:
    async with running(UrlPlatform(guard=key_guard("the-key"))) as platform:
        yield {"kind": "azure_function", "url": platform.url, "key_file": "no-such-file"}


@asynccontextmanager
async def expired_token(_folder: Path) -> AsyncIterator[dict[str, Any]]:
    issuer = MetadataServer(lifetime_s=-60)
    platform = UrlPlatform(guard=token_guard(issuer))
    async with serving(issuer.handle) as metadata, running(platform):
        yield {"kind": "google_function", "url": platform.url, "metadata_url": metadata}


@asynccontextmanager
async def foreign_token(_folder: Path) -> AsyncIterator[dict[str, Any]]:
    issuer, other = MetadataServer(), MetadataServer(secret=b"another issuer")
    platform = UrlPlatform(guard=token_guard(other))
    async with serving(issuer.handle) as metadata, running(platform):
        yield {"kind": "google_function", "url": platform.url, "metadata_url": metadata}


@asynccontextmanager
async def no_metadata_server(_folder: Path) -> AsyncIterator[dict[str, Any]]:
    async with running(UrlPlatform()) as platform:
        yield {
            "kind": "google_function",
            "url": platform.url,
            "metadata_url": "http://127.0.0.1:1",
        }


@asynccontextmanager
async def unknown_name(_folder: Path) -> AsyncIterator[dict[str, Any]]:
    yield {"kind": "http_function", "url": "http://no-such-host.invalid", "price": FREE}


@asynccontextmanager
async def untrusted_certificate(folder: Path) -> AsyncIterator[dict[str, Any]]:
    files = await asyncio.to_thread(make_certificate, folder, "server")
    async with running(UrlPlatform(), server_context(*files)) as platform:
        yield {"kind": "http_function", "url": platform.url, "price": FREE}


@asynccontextmanager
async def slow_start(_folder: Path) -> AsyncIterator[dict[str, Any]]:
    platform = UrlPlatform(gate=asyncio.Event())
    async with running(platform):
        yield {"kind": "http_function", "url": platform.url, "price": FREE, **FAST}


@asynccontextmanager
async def dying_start(_folder: Path) -> AsyncIterator[dict[str, Any]]:
    async with scripted_server([read_request(), close()]) as server:
        yield {"kind": "http_function", "url": server.url, "price": FREE}


LONG = b"x" * 5000
GOOGLES_500 = b"<title>500 Server Error</title></head><body text=#000000 bgcolor=#ffffff>"
THROTTLED = {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "message": "Rate"}
FAILURES = {
    "Lambda throttles": Failure(
        by_invoke(
            429, THROTTLED, x_amzn_ErrorType="TooManyRequestsException", Retry_After="2"
        ), "rejected", "spillover", 503),
    "Lambda's init fails": Failure(
        by_invoke(200, {"errorType": "Runtime.ExitError"}, x_amz_function_error="Unhandled"),
        "broken", "fallback", 502),
    "Lambda's time limit": Failure(
        by_invoke(200, {"errorType": "Sandbox.Timedout"}, x_amz_function_error="Unhandled"),
        "time_limit", "fallback", 504),
    "Lambda's older time limit": Failure(
        by_invoke(200, {"errorMessage": "1 Task timed out after 3.00 seconds"},
                  x_amz_function_error="Unhandled"),
        "time_limit", "fallback", 504),
    "Lambda is updating the function": Failure(
        by_invoke(409, {}, x_amzn_ErrorType="ResourceConflictException:http://x"),
        "rejected", "spillover", 503),
    "Lambda is out of addresses": Failure(
        by_invoke(502, {"__type": "SubnetIPAddressLimitReachedException"}),
        "rejected", "spillover", 503),
    "Lambda itself fails": Failure(
        by_invoke(500, {}, x_amzn_ErrorType="ServiceException"), "broken", "fallback", 502),
    "Lambda finds the request too large": Failure(
        by_invoke(413, {}, x_amzn_ErrorType="RequestTooLargeException"),
        "encoded_too_large", "limit_payload", 413),
    "Lambda throttles a streamed invocation": Failure(
        by_invoke(429, THROTTLED, {"invoke_mode": "response_stream"}, Retry_After="2"),
        "rejected", "spillover", 503),
    "Lambda's stream is cut": Failure(
        by_stream(chunk(b'{"statusCode": 200')), "response_lost", "fallback", 502),
    "an answer of Lambda's over the limit": Failure(
        by_invoke(200, {"body": "x" * 5000}, {"limits": {"max_response": "4KiB"}}),
        "answer_too_large", "fallback", 502),
    "a streamed answer of Lambda's over the limit": Failure(
        by_stream(
            chunk(b'{"statusCode": 200}' + bytes(8)), chunk(LONG), limits={"max_response": "4KiB"}
        ), "answer_too_large", "fallback", 502),
    "an unknown Lambda function": Failure(
        by_invoke(404, {}, x_amzn_ErrorType="ResourceNotFoundException"),
        "access_refused", "fallback", 502),
    "Lambda finds the credentials expired": Failure(
        by_invoke(403, {"message": "echoes a secret"}, x_amzn_ErrorType="ExpiredTokenException"),
        "access_refused", "fallback", 502),
    "a wrong AWS key": Failure(wrong_aws_key, "access_refused", "fallback", 502),
    "a wrong function key": Failure(wrong_function_key, "access_refused", "fallback", 502),
    "a refused managed identity": Failure(
        refused_identity, "access_refused", "fallback", 502),
    "no function key": Failure(missing_function_key, "access_refused", "fallback", 502),
    "an expired token": Failure(expired_token, "access_refused", "fallback", 502),
    "a token of somebody else": Failure(foreign_token, "access_refused", "fallback", 502),
    "no metadata server": Failure(no_metadata_server, "access_refused", "fallback", 502),
    "a wrong static header": Failure(
        by_url(answer(403), headers={"authorization": "Bearer t0ken-value"}),
        "access_refused", "fallback", 502),
    "the platform throttles": Failure(
        by_url(answer(429, headers={"retry-after": "3"})), "rejected", "spillover", 503),
    "the platform is full": Failure(by_url(answer(503)), "rejected", "spillover", 503),
    "nothing behind the ingress": Failure(
        by_url(answer(502, b"<html>")), "broken", "fallback", 502),
    "the platform's time limit": Failure(by_url(answer(504)), "time_limit", "fallback", 504),
    "the platform's own 500": Failure(
        by_url(answer(500, GOOGLES_500)), "broken", "fallback", 502),
    "an unknown route": Failure(
        by_url(answer(404, b"404 page not found")), "access_refused", "fallback", 502),
    "a login page": Failure(
        by_url(answer(302, headers={"location": "https://login"})),
        "access_refused", "fallback", 502),
    "the platform finds the request too large": Failure(
        by_url(answer(413, b"<html>")), "encoded_too_large", "limit_payload", 413),
    "an answer over the limit": Failure(
        by_url(answer(200, LONG), limits={"max_response": "4KiB"}),
        "answer_too_large", "fallback", 502),
    "a name that does not resolve": Failure(unknown_name, "connect_failed", "fallback", 502),
    "a certificate nobody vouches for": Failure(
        untrusted_certificate, "connect_failed", "fallback", 502),
    "an environment that does not start": Failure(slow_start, "timeout", "fallback", 504),
    "an environment that dies": Failure(dying_start, "response_lost", "fallback", 502),
}  # fmt: skip


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")


async def metrics(gateway: Harness) -> str:
    return (await gateway.ask("GET", "/metrics")).body.decode()


def attempted(result: str) -> str:
    return f'router_attempts_total{{backend="serverless",model="m",result="{result}"}} 1.0'


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_the_pool_takes_over(
    failure: Failure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "router")
    async with (
        failure.start(tmp_path) as serverless,
        Harness(tmp_path, warm=[ok()], model={"serverless": serverless}) as gateway,
    ):
        reply = await gateway.infer(x_router_backend="serverless", x_request_id="r")
        line = await gateway.logged("r")
        shown = await metrics(gateway)
        config = (await gateway.ask("GET", "/v1/config")).body.decode()
    assert (reply.status, reply.decision) == (200, ("pool", failure.reason))
    assert (line["attempts"], line["outcome"]) == (2, "ok")
    assert attempted(failure.result) in shown
    told = [config, shown, caplog.text, json.dumps(line), str(reply.headers)]
    assert [secret for secret in SECRETS for text in told if secret in text] == []


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_without_a_pool_the_client_gets_a_true_error(
    failure: Failure, tmp_path: Path
) -> None:
    async with (
        failure.start(tmp_path) as serverless,
        Harness(tmp_path, model={"serverless": serverless, "attempts": 1}) as gateway,
    ):
        reply = await gateway.infer()
        shown = await metrics(gateway)
    assert reply.status == failure.status
    assert set(reply.json()) == {"error"}
    assert [secret for secret in SECRETS if secret in reply.body.decode()] == []
    assert attempted(failure.result) in shown
    assert ("retry-after" in reply.headers) is (failure.status == 503)


KINDS: dict[str, dict[str, Any]] = {
    "http_function": {"price": FREE, "headers": {"x-proof": "1"}},
    "google_function": {},
    "azure_function": {"route_prefix": ""},
}


@pytest.mark.parametrize(
    ("extra", "decision", "alone"),
    [
        (-1, ("serverless", "hint"), 200),
        (0, ("serverless", "hint"), 200),
        (1, ("pool", "limit_payload"), 413),
    ],
    ids=["one byte below", "at the limit", "one byte over"],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_payload_limit_is_exact(
    kind: str, extra: int, decision: tuple[str, str], alone: int, tmp_path: Path
) -> None:
    """Decided from the head: what is over the limit is never sent."""
    settings = KINDS[kind]
    issuer = MetadataServer()
    platform = UrlPlatform(answers=[web.json_response({"outputs": []}) for _ in range(2)])
    body = b"x" * (4096 + extra)
    binary = {"content_type": "application/octet-stream", "x_router_backend": "serverless"}
    async with serving(issuer.handle) as metadata, running(platform):
        serverless = {"kind": kind, "url": platform.url, **settings}
        serverless["limits"] = {"max_payload": "4KiB"}
        if kind == "google_function":
            serverless["metadata_url"] = metadata
        async with Harness(tmp_path, warm=[ok()], model={"serverless": serverless}) as gateway:
            reply = await gateway.infer(body, **binary)
        assert (reply.status, reply.decision) == (200, decision)
        async with Harness(tmp_path, model={"serverless": serverless}) as gateway:
            assert (await gateway.infer(body, **binary)).status == alone
    assert len(platform.calls) == (2 if alone == 200 else 0)


@pytest.mark.parametrize("extra", [-1, 0, 1], ids=["one byte below", "at the limit", "over"])
async def test_a_function_urls_limit_counts_what_it_will_be_encoded_to(
    extra: int, tmp_path: Path
) -> None:
    """AWS makes the event there: its size is foretold from the head, and never sent if over."""
    body = b"\xff" * 3000
    encoded = 4000 + EVENT_OVERHEAD_BYTES
    platform = UrlPlatform(answers=[web.json_response({"outputs": []})])
    async with running(platform):
        serverless = {
            "kind": "aws_lambda",
            "function": "f",
            "region": "eu-central-1",
            "function_url": platform.url,
            "limits": {"max_payload": encoded - extra},
        }
        async with Harness(tmp_path, model={"serverless": serverless}) as gateway:
            reply = await gateway.infer(body, inference_header_content_length="9")
    assert (reply.status, len(platform.calls)) == ((200, 1) if extra <= 0 else (413, 0))


@pytest.mark.parametrize("invoke_mode", ["buffered", "response_stream"])
@pytest.mark.parametrize("extra", [-1, 0, 1], ids=["one byte below", "at the limit", "over"])
async def test_the_event_limit_is_exact(extra: int, invoke_mode: str, tmp_path: Path) -> None:
    """Lambda counts the event: its size is known once it has been encoded."""
    events: list[bytes] = []

    async def handle(request: web.Request) -> web.Response:
        events.append(await request.read())
        return web.json_response({"statusCode": 200, "headers": {}, "body": "{}"})

    async with serving(handle) as url:
        serverless = {
            "kind": "aws_lambda",
            "function": "f",
            "region": "eu-central-1",
            "endpoint_url": url,
            "invoke_mode": invoke_mode,
        }
        async with Harness(tmp_path, model={"serverless": serverless}) as gateway:
            body = base64.b64decode("AAAA") * 3000
            assert (await gateway.infer(body, x_request_id="r")).status == 200
            limits = {"limits": {"max_payload": len(events[0]) - extra}}
            await gateway.write(gateway.changed(serverless=limits))
            await gateway.ask("POST", "/v1/reload")
            reply = await gateway.infer(body, x_request_id="r")
    assert (reply.status, len(events)) == ((200, 2) if extra <= 0 else (413, 1))
