"""A call by URL: what is passed on, and what only the gateway may say."""

import time
from collections.abc import AsyncIterator

import pytest

from router.backends.serverless.access import FixedHeaders
from router.backends.serverless.bodies import Endpoint
from router.backends.serverless.http_function import HttpFunctionCaller, HttpTarget
from router.domain.errors import AnswerTooLargeError
from router.domain.ports import BackendResponse
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient
from tests.fakes.builders import make_request
from tests.fakes.scripted_server import read_request, scripted_server, send

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(clock=time.monotonic)
    yield client
    await client.close()


async def sent_for(
    client: UpstreamClient, answer: bytes = OK, access: FixedHeaders | None = None, **facts: object
) -> tuple[BackendResponse, list[str]]:
    """The answer, and the lines of the head that was sent."""
    async with scripted_server([read_request(), send(answer)]) as server:
        target = HttpTarget(
            name="m",
            endpoint=Endpoint(parse_address(server.url)),
            prefix="/function/m",
            host="m.example",
            max_payload_bytes=1 << 20,
            max_response_bytes=1 << 20,
            cold_start_header="x-cold-start",
            instance_header="x-instance",
        )
        caller = HttpFunctionCaller(target, client, access or FixedHeaders())
        response = await caller.call(make_request(**facts), b"{}", 5.0)
        head = server.connections[0].requests[0].partition(b"\r\n\r\n")[0]
    return response, head.decode().split("\r\n")


async def test_the_requests_own_path_and_query_follow_the_urls(client: UpstreamClient) -> None:
    _, lines = await sent_for(client, path="/v2/models/a%2Fb/infer", query="x=1&y")
    assert lines[0] == "POST /function/m/v2/models/a%2Fb/infer?x=1&y HTTP/1.1"
    assert [line for line in lines if line.lower().startswith("host:")] == ["host: m.example"]
    assert "x-request-id: r-1" in lines
    assert "content-type: application/json" in lines


@pytest.mark.parametrize(
    "header",
    [
        "x-amz-security-token", "x-functions-key", "x-serverless-authorization", "x-goog-iap",
        "knative-serving-tag", "authorization",
    ],
)  # fmt: skip
async def test_a_client_cannot_give_orders_or_credentials_to_the_platform(
    client: UpstreamClient, header: str
) -> None:
    """Authorization is the client's own unless the gateway adds one."""
    access = FixedHeaders({"Authorization": "Bearer ours"})
    _, lines = await sent_for(client, access=access, headers={header: "theirs", "x-own": "kept"})
    assert not [line for line in lines if "theirs" in line]
    assert "Authorization: Bearer ours" in lines
    assert "x-own: kept" in lines


async def test_the_clients_authorization_goes_on_where_ours_is_another_header(
    client: UpstreamClient,
) -> None:
    access = FixedHeaders({"x-key": "ours"})
    _, lines = await sent_for(client, access=access, headers={"authorization": "theirs"})
    assert {"authorization: theirs", "x-key: ours"} <= set(lines)


@pytest.mark.parametrize(
    ("headers", "cold", "init_s", "environment"),
    [
        ("x-cold-start: true\r\nx-init-ms: 812.5\r\n", True, 0.8125, None),
        ("x-cold-start: True\r\n", True, None, None),
        ("x-cold-start: false\r\nx-init-ms: 812.5\r\n", False, None, None),
        ("x-cold-start: maybe\r\n", None, None, None),
        ("x-cold-start: true\r\nx-init-ms: nan\r\n", True, None, None),
        ("x-instance: 7f\r\n", None, None, "7f"),
        ("", None, None, None),
    ],
    ids=["cold", "any case", "warm", "neither", "no number", "an id", "nothing"],
)
async def test_what_an_answer_tells_of_its_start(
    client: UpstreamClient,
    headers: str,
    cold: bool | None,
    init_s: float | None,
    environment: str | None,
) -> None:
    answer = f"HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\n{{}}".encode()
    response, _ = await sent_for(client, answer)
    assert (response.cold_start, response.init_s) == (cold, init_s)
    assert response.environment_id == environment


async def test_a_stream_over_the_limit_is_cut(client: UpstreamClient) -> None:
    """Nothing announced its length: it ends with an error when it has become too long."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 48
    async with scripted_server([read_request(), send(answer)]) as server:
        target = HttpTarget(
            "m", Endpoint(parse_address(server.url)), "", "", 1 << 20, 2 << 20, "", ""
        )
        caller = HttpFunctionCaller(target, client, FixedHeaders())
        response = await caller.call(make_request(), b"{}", 5.0)
        assert response.rest is not None
        with pytest.raises(AnswerTooLargeError, match="over 2097152 bytes"):
            _ = [part async for part in response.rest]
        await response.close()
