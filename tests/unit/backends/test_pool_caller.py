import time
from typing import Any

import pytest

from router.backends.pool.caller import PoolCaller
from router.domain.errors import (
    ConnectFailedError,
    UpstreamBrokenError,
    UpstreamRejectedError,
)
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient
from tests.fakes.builders import make_request
from tests.fakes.scripted_server import read_request, scripted_server, send


@pytest.fixture
async def client():
    client = UpstreamClient(clock=time.monotonic)
    yield client
    await client.close()


def http(status: int, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def sent_for(client, body=b"", **facts) -> Any:
    """The request line, the headers and the body that a replica gets."""
    async with scripted_server([read_request(), send(http(200))]) as server:
        request = make_request(payload_bytes=len(body), **facts)
        await PoolCaller(client, 1.0).send(parse_address(server.url), request, body, 5.0)
        head, _, got = server.connections[0].requests[0].partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = dict(text.lower().split(": ", 1) for text in lines)
    assert got == body
    return line, headers


async def test_path_query_and_headers_go_as_they_came(client):
    line, headers = await sent_for(
        client, b"{}", path="/v2/models/m%20x/infer", query="a=%20",
        headers={"x-custom": "1", "content-type": "application/json"},
    )  # fmt: skip
    assert line == "POST /v2/models/m%20x/infer?a=%20 HTTP/1.1"
    assert (headers["x-custom"], headers["content-length"]) == ("1", "2")


async def test_the_request_id_is_the_gateways(client):
    _, headers = await sent_for(client, headers={"x-request-id": "theirs"}, request_id="ours")
    assert headers["x-request-id"] == "ours"


@pytest.mark.parametrize(
    ("body", "facts", "expected"),
    [
        (b"{}", {"is_text": True}, "application/json"),
        (b"\x1f", {"is_text": False}, "application/json"),
        (
            b"{}\0",
            {"headers": {"inference-header-content-length": "2"}},
            "application/octet-stream",
        ),
        (b"{}", {"headers": {"content-type": "application/x-mine"}}, "application/x-mine"),
        (b"", {"method": "GET"}, None),
    ],
    ids=[
        "json is named",
        "also compressed",
        "binary is named",
        "the client's own is kept",
        "no body, no type",
    ],
)
async def test_a_missing_content_type_is_filled_in(client, body, facts, expected):
    _, headers = await sent_for(client, body, **facts)
    assert headers.get("content-type") == expected


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (503, UpstreamRejectedError),
        (429, UpstreamRejectedError),
        (502, UpstreamBrokenError),
        (504, UpstreamBrokenError),
    ],
)
async def test_a_replica_that_cannot_is_an_error(client, status, error):
    async with scripted_server([read_request(), send(http(status, b"secret"))]) as server:
        with pytest.raises(error) as caught:
            await PoolCaller(client, 1.0).send(
                parse_address(server.url), make_request(), b"{}", 5.0
            )
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400, 404, 500, 501])
async def test_the_models_own_answers_are_passed_on(client, status):
    async with scripted_server([read_request(), send(http(status, b"x"))]) as server:
        response = await PoolCaller(client, 1.0).send(
            parse_address(server.url), make_request(), b"{}", 5.0
        )
    assert (response.status, response.body) == (status, b"x")


async def test_a_replica_that_is_gone_was_sent_nothing(client):
    with pytest.raises(ConnectFailedError):
        await PoolCaller(client, 1.0).send(
            parse_address("http://127.0.0.1:1"), make_request(), b"{}", 5.0
        )
