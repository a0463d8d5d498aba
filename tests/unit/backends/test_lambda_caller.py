"""The Invoke API as a scripted server gives it: what each answer means to the director."""

import json
import time
from base64 import b64encode
from typing import Any

import pytest

from router.backends.serverless.access import Access, FixedHeaders
from router.backends.serverless.aws_lambda import LambdaCaller, LambdaTarget
from router.backends.serverless.bodies import Endpoint
from router.domain.errors import (
    AnswerTooLargeError,
    CallRefusedError,
    ConnectFailedError,
    EncodedTooLargeError,
    FunctionUnfitError,
    ModelFailedError,
    PlatformRefusedError,
    ResponseLostError,
    TimeLimitError,
    UpstreamBrokenError,
    UpstreamRejectedError,
    UpstreamTimeoutError,
)
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient
from tests.fakes.builders import make_request
from tests.fakes.scripted_server import (
    close,
    read_request,
    scripted_server,
    send,
    until_peer_closes,
)

ANSWER = json.dumps({"statusCode": 200, "headers": {"x-m": "1"}, "body": "ok"}).encode()


def http(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def report(text: str) -> str:
    return "x-amz-log-result: " + b64encode(text.encode()).decode()


@pytest.fixture
async def client():
    client = UpstreamClient(clock=time.monotonic)
    yield client
    await client.close()


def caller(client, url, access: Access = FixedHeaders(), **changes):  # noqa: B008  frozen
    facts = {"max_payload_bytes": 4096, "max_response_bytes": 4096, "qualifier": ""}
    target = LambdaTarget(Endpoint(parse_address(url)), "my:fn", **{**facts, **changes})
    return LambdaCaller(target, client, access)


async def call(client, answer, timeout_s=5.0, body=b"{}", **changes) -> Any:
    async with scripted_server([read_request(), send(answer)]) as server:
        found = await caller(client, server.url, **changes).call(make_request(), body, timeout_s)
        return found, server.connections[0].requests[0]


async def test_the_call_is_an_invoke_with_the_event_as_its_body(client):
    response, sent = await call(client, http(200, ANSWER), qualifier="live", body=b'{"a": 1}')
    head, _, event = sent.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /2015-03-31/functions/my%3afn/invocations?qualifier=live http/1.1"
    assert {"x-amz-invocation-type: requestresponse", "x-amz-log-type: tail"} <= set(lines)
    assert json.loads(event)["body"] == '{"a": 1}'
    assert (response.status, list(response.headers), response.body) == (200, [("x-m", "1")], b"ok")


@pytest.mark.parametrize(
    ("log", "cold", "billed_s", "init_s"),
    [
        ("REPORT RequestId: 1 Duration: 9.1 ms Billed Duration: 10 ms Memory", False, 0.01, None),
        (
            "REPORT RequestId: 1 Billed Duration: 1510 ms Init Duration: 1500.5 ms",
            True,
            1.51,
            1.5005,
        ),
        (
            "I print Billed Duration: 9 ms\nREPORT RequestId: 1 Billed Duration: 20 ms",
            False,
            0.02,
            None,
        ),
        ("nothing of the kind", None, None, None),
    ],
    ids=["warm", "cold", "a function that prints such words", "no report"],
)
async def test_the_log_tells_cost_and_cold_start(client, log, cold, billed_s, init_s):
    response, _ = await call(client, http(200, ANSWER, report(log)))
    assert (response.cold_start, response.billed_s, response.init_s) == (cold, billed_s, init_s)


async def test_a_log_that_is_no_base64_is_ignored(client):
    response, _ = await call(client, http(200, ANSWER, "x-amz-log-result: ???"))
    assert response.billed_s is None


def failed(kind: str) -> bytes:
    payload = json.dumps({"errorType": kind, "errorMessage": "secret trace"}).encode()
    return http(200, payload, "x-amz-function-error: Unhandled")


def answered(status: int) -> bytes:
    return http(200, json.dumps({"statusCode": status, "body": "secret"}).encode())


ERRORS = {
    "too large for the platform": (http(413, b"{}"), EncodedTooLargeError, "too large"),
    "throttled": (
        http(429, b'{"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"}'),
        UpstreamRejectedError,
        "throttles the function .Reserved",
    ),
    "throttled without a document": (http(429, b"x"), UpstreamRejectedError, "status 429"),
    "platform not available": (http(503, b""), UpstreamRejectedError, "not available"),
    "platform failure": (
        http(500, b"secret", "x-amzn-errortype: ServiceException:http"),
        UpstreamBrokenError,
        r"\(ServiceException\)",
    ),
    "no such function": (http(404, b"secret"), CallRefusedError, "status 404"),
    "not allowed": (http(403, b"secret"), PlatformRefusedError, "status 403"),
    "bad gateway": (http(502, b""), UpstreamBrokenError, "status 502"),
    "the handler raised": (failed("ValueError"), ModelFailedError, r"failed \(ValueError\)"),
    "the handler ran too long": (failed("Sandbox.Timedout"), TimeLimitError, "time limit"),
    "the handler's module does not load": (
        failed("Runtime.ImportModuleError"),
        FunctionUnfitError,
        r"\(Runtime.ImportModuleError\)",
    ),
    "the platform finds the answer too large": (
        failed("Function.ResponseSizeTooLarge"),
        AnswerTooLargeError,
        "over the platform's limit",
    ),
    "a call that the platform never takes": (
        http(400, b"secret", "x-amzn-errortype: InvalidParameterValueException"),
        CallRefusedError,
        r"\(InvalidParameterValueException\)",
    ),
    "the handler's error is no document": (
        http(200, b"[]", "x-amz-function-error: Unhandled"),
        ModelFailedError,
        "no error type",
    ),
    "an answer that is none": (http(200, b'"x"'), ModelFailedError, "not an HTTP response"),
    "an answer that is too long": (http(200, b"x" * 5000), AnswerTooLargeError, "over 4096"),
    "a stream that is too long": (
        b"HTTP/1.1 200 X\r\n\r\n" + b"x" * 400_000,
        AnswerTooLargeError,
        "over 4096",
    ),
    "an answer that is cut": (
        b"HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\nx",
        ResponseLostError,
        "broke|closed|ended",
    ),
}


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS)
async def test_errors(client, case):
    answer, error, told = case
    script = [read_request(), send(answer), close()]
    async with scripted_server(script) as server:
        with pytest.raises(error, match=told) as caught:
            await caller(client, server.url).call(make_request(), b"{}", 5.0)
    assert type(caught.value) is error
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("soon", None), ("-1", None), ("9999999", None), ("1.5", None)],
    ids=["seconds", "a word", "negative", "absurd", "not whole"],
)
async def test_the_platform_says_when_to_come_back(client, header, seconds):
    with pytest.raises(UpstreamRejectedError) as caught:
        await call(client, http(429, b"{}", f"retry-after: {header}"))
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500, 502, 503, 504])
async def test_the_models_own_answers_are_passed_on(client, status):
    response, _ = await call(client, answered(status))
    assert response.status == status


async def test_an_event_that_is_too_large_is_not_sent(client):
    async with scripted_server([read_request(), send(http(200, ANSWER))]) as server:
        with pytest.raises(EncodedTooLargeError, match="4096"):
            await caller(client, server.url).call(make_request(), b"x" * 5000, 5.0)
        assert server.connections == []


async def test_a_large_event_is_encoded_off_the_loop_and_arrives_whole(client):
    body = b'{"a": "' + b"x" * 200_000 + b'"}'
    _, sent = await call(client, http(200, ANSWER), body=body, max_payload_bytes=1 << 20)
    assert json.loads(sent.partition(b"\r\n\r\n")[2])["body"].encode() == body


async def test_a_platform_that_does_not_answer_times_out(client):
    async with scripted_server([until_peer_closes()]) as server:
        with pytest.raises(UpstreamTimeoutError):
            await caller(client, server.url).call(make_request(), b"{}", 0.3)


async def test_a_platform_that_is_not_there(client):
    with pytest.raises(ConnectFailedError):
        await caller(client, "http://127.0.0.1:1").call(make_request(), b"{}", 1.0)


async def test_what_authenticates_the_call_goes_with_it(client):
    async with scripted_server([read_request(), send(http(200, ANSWER))]) as server:
        access = FixedHeaders({"x-proof": "of-identity"})
        await caller(client, server.url, access).call(make_request(), b"{}", 5.0)
        assert b"x-proof: of-identity" in server.connections[0].requests[0].lower()


async def test_a_handler_that_raised_tells_what_it_cost(client):
    log = report("REPORT RequestId: 1 Billed Duration: 1510 ms Init Duration: 1500.5 ms")
    with pytest.raises(ModelFailedError) as caught:
        await call(client, http(200, b"{}", "x-amz-function-error: Unhandled", log))
    assert (caught.value.billed_s, caught.value.init_s) == (1.51, 1.5005)
