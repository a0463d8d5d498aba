"""What a client may send by mistake or on purpose: a clear 4xx in OIP shape, and nothing hangs."""

import asyncio
import json
import re
from typing import Any

import pytest

from tests.fakes.upstreams import ok
from tests.integration.harness import INFER, Harness


@pytest.fixture
async def gateway(tmp_path):
    server = {"max_body": "1MiB", "body_timeout": "200ms"}
    async with Harness(tmp_path, warm=[ok()], server=server) as gateway:
        yield gateway
        assert gateway.gateway._data.bodies.held_bytes == 0
        assert gateway.in_flight == 0
        # Whatever was sent before, the gateway still serves.
        assert (await gateway.infer()).status == 200


def http(line, *headers, body=b"") -> Any:
    return "\r\n".join([f"{line} HTTP/1.1", "host: x", *headers, "", ""]).encode() + body


def parsed(answer: bytes):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), answer
    assert b"\r\nx-request-id: " in head
    return int(head.split()[1]), head.decode().lower(), json.loads(body)


def assert_told(answer: bytes, status: int, *words: str):
    found, head, document = parsed(answer)
    assert found == status, document
    assert list(document) == ["error"], "OIP clients look for this key"
    assert isinstance(document["error"], str)
    for word in words:
        assert word in document["error"]
    for leak in ("Traceback", "aiohttp", "/work", ".py", "Python", "127.0.0.1"):
        assert leak not in answer.decode()
    assert "application/json" in head


POST = f"POST {INFER}"
REFUSED = {
    "unknown model": (http("POST /v2/models/x/infer", "content-length: 0"), 404, "'x'"),
    "unknown path": (http("GET /v3"), 404, "not part of the API"),
    "empty body": (http(POST, "content-length: 0"), 400, "no body"),
    "no length at all": (http(POST), 400, "no body"),
    "unsupported media": (
        http(POST, "content-type: text/html", "content-length: 2", body=b"{}"), 415, "text/html"),
    "unsupported encoding": (
        http(POST, "content-encoding: br", "content-length: 2", body=b"{}"), 415, "br"),
    "a deadline that is none": (
        http(POST, "x-router-deadline-ms: soon", "content-length: 2", body=b"{}"), 400, "soon"),
    "a hint that is none": (
        http(POST, "x-router-backend: gpu", "content-length: 2", body=b"{}"), 400, "gpu"),
    "a path that is no text": (http("GET /v2/models/%ff"), 400, "UTF-8"),
    "a path with a line break": (http("GET /v2/models/%0d%0ax"), 400, "control"),
    "a declared length of 1 GB": (http(POST, "content-length: 1000000000"), 413, "1000000000"),
    "one byte too long": (http(POST, "content-length: 1048577"), 413, "1048576"),
    "both lengths": (
        http(POST, "content-length: 2", "transfer-encoding: chunked", body=b"0\r\n\r\n"), 400),
    "two lengths that differ": (
        http(POST, "content-length: 2", "content-length: 3", body=b"{} "), 400),
    "two lengths that agree": (http(POST, "content-length: 2", "content-length: 2"), 400),
    "a list of lengths": (http(POST, "content-length: 2, 2"), 400),
    "a negative length": (http(POST, "content-length: -1"), 400),
    "a signed length": (http(POST, "content-length: +2"), 400),
    "an absurd length": (http(POST, "content-length: " + "9" * 40), 400),
    "an unknown transfer encoding": (http(POST, "transfer-encoding: gzip"), 400),
    "chunked twice": (http(POST, "transfer-encoding: chunked, chunked"), 400),
    "a space before the colon": (http(POST, "content-length : 2", body=b"{}"), 400),
    "a folded header": (http(POST, "x-a: 1", " 2", "content-length: 2", body=b"{}"), 400),
    "a null in a header": (http(POST, "x-a: \0", "content-length: 2", body=b"{}"), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "one header of 10,000 bytes": (http(POST, "x-a: " + "a" * 10_000, "content-length: 0"), 431),
    "a target of 10,000 bytes": (http("GET /v2/" + "a" * 10_000), 431),
    "many headers of 10,000 bytes together": (
        http(POST, *[f"x-{n}: {'a' * 100}" for n in range(100)], "content-length: 2", body=b"{}"),
        431, "head"),
    "a thousand headers": (http(POST, *[f"x-{n}: a" for n in range(1000)]), 431),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
async def test_refused(gateway, case):
    sent, status, *words = case
    assert_told(await gateway.raw(sent), status, *words)
    assert gateway.warm[0].received == []


TOO_MUCH = {
    "a large head": (http(POST, "x-a: " + "a" * 10_000), 431, "8192", "server.max_header"),
    "a long URL": (http("GET /v2/" + "a" * 10_000), 431, "URL", "8192", "server.max_header"),
    "many headers": (http(POST, *[f"x-{n}: a" for n in range(200)]), 431, "201", "128"),
    "a method of nobody's": (http("FROB /v2"), 501, "method"),
    "a method in another case": (http("get /v2"), 501, "method"),
    "a method of others": (http("PROPFIND /v2"), 405, "PROPFIND", "GET, HEAD"),
}


@pytest.mark.parametrize("case", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_what_is_refused_before_it_is_a_request_is_told_why_and_logged(gateway, case):
    sent, status, *words = case
    answer = await gateway.raw(sent)
    assert answer.startswith(b"HTTP/1.1 ")
    assert_told(answer, status, *words)
    found = re.search(rb"\r\nx-request-id: (\S+)\r\n", answer)
    assert found is not None
    assert (await gateway.logged(found[1].decode()))["status"] == status


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", INFER, "POST"),
        ("DELETE", "/v2/models/m", "GET, HEAD"),
        ("PUT", "/v2/health/live", "GET, HEAD"),
        ("GET", "/v1/models/m:predict", "POST"),
        ("GET", "/v1/chat/completions", "POST"),
    ],
)
async def test_the_wrong_method_is_told_the_right_one(gateway, method, path, allow):
    reply = await gateway.request(method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allow)


BAD_CHUNKS = {
    "a size that is none": b"zz\r\n{}\r\n0\r\n\r\n",
    "a negative size": b"-2\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than its size": b"1\r\n{}\r\n0\r\n\r\n",
    "an absurd size": b"f" * 40 + b"\r\n{}",
}


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_bad_chunks(gateway, chunks):
    assert_told(await gateway.raw(http(POST, "transfer-encoding: chunked"), chunks), 400)
    assert gateway.warm[0].received == []


async def test_bad_chunks_after_good_ones(gateway):
    reader, writer = await gateway.connect()
    writer.write(http(POST, "transfer-encoding: chunked") + b"2\r\n{}\r\n")
    await gateway.until(lambda: gateway.in_flight == 1)
    writer.write(b"zz\r\n")
    answer = await reader.read()
    writer.transport.abort()
    assert_told(answer, 400, "framing")


async def test_a_declared_gigabyte_is_refused_without_reading_it(gateway):
    reader, writer = await gateway.connect()
    writer.write(http(POST, "content-length: 1000000000", body=b"x" * 100_000))
    assert b" 413 " in await reader.readline(), "not 408, as when the body had been waited for"
    writer.transport.abort()


async def test_a_chunked_body_is_cut_off_at_the_limit(gateway):
    reader, writer = await gateway.connect()
    writer.write(http(POST, "transfer-encoding: chunked"))
    for _ in range(17):
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    assert b" 413 " in await reader.readline()
    writer.transport.abort()


async def test_a_body_that_does_not_come_is_waited_for_no_longer_than_configured(gateway):
    answer = await gateway.raw(http(POST, "content-length: 10", body=b"{}"))
    assert_told(answer, 408, "did not arrive")
    assert "connection: close" in parsed(answer)[1]


async def test_a_body_may_not_drip_for_ever(gateway):
    reader, writer = await gateway.connect()
    writer.write(http(POST, "content-length: 1000"))

    async def drip() -> None:
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(10):
        status = await reader.readline()
    dripping.cancel()
    writer.transport.abort()
    assert b" 408 " in status


async def test_a_client_that_leaves_while_sending_its_body_leaves_nothing(gateway):
    _, writer = await gateway.connect()
    writer.write(http(POST, "x-request-id: left", "content-length: 10", body=b"{}"))
    await gateway.until(lambda: gateway.in_flight == 1)
    writer.transport.abort()
    await gateway.until(lambda: gateway.in_flight == 0)
    line = await gateway.logged("left")
    assert (line["status"], line["outcome"]) == (499, "client_closed")
    assert gateway.warm[0].received == []


async def test_pipelined_requests_are_answered_in_order(gateway):
    one = http("GET /v2/health/live")
    two = http(POST, "content-length: 2", body=b"{}")
    reader, writer = await gateway.connect()
    writer.write(one + two + one)
    bodies = []
    for _ in range(3):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        bodies.append(await reader.readexactly(length))
    writer.transport.abort()
    assert bodies == [b'{"live":true}', b'{"outputs": []}', b'{"live":true}']


async def test_what_the_client_names_is_cut_in_errors(gateway):
    reply = await gateway.request("POST", f"/v2/models/{'x' * 5000}/infer", b"{}")
    assert reply.status == 404
    assert len(reply.body) < 400


async def test_request_ids_cannot_break_the_head(gateway):
    answer = await gateway.raw(http(POST, "x-request-id: a b\tc", "content-length: 2", body=b"{}"))
    assert b"x-request-id: test-" in answer.lower()


class TestMemory:
    async def test_bodies_are_held_only_within_the_budget(self, tmp_path):
        server = {"max_body": "64KiB", "max_buffered": "64KiB"}
        async with Harness(tmp_path, warm=[ok()], server=server) as gateway:
            _, writer = await gateway.connect()
            writer.write(http(POST, "content-length: 40001", body=b"x" * 40_000))
            bodies = gateway.gateway._data.bodies
            await gateway.until(lambda: bodies.held_bytes == 40_000)
            refused = await gateway.infer(b"x" * 30_000)
            assert refused.status == 503
            assert refused.headers["retry-after"] == "1"
            assert "body bytes" in refused.json()["error"]
            writer.transport.abort()
            await gateway.until(lambda: bodies.held_bytes == 0)
            assert (await gateway.infer(b"x" * 30_000)).status == 200

    async def test_the_function_limit_is_known_from_the_head(self, tmp_path):
        limits = {"limits": {"max_payload": "10KiB"}}
        async with Harness(tmp_path, function=ok(), serverless=limits) as gateway:
            answer = await gateway.raw(http(POST, "content-length: 20000"))
            assert_told(answer, 413, "10240")


async def test_the_clients_own_deadline_ends_a_slow_body(tmp_path):
    async with Harness(tmp_path, warm=[ok()], server={"body_timeout": "60s"}) as patient:
        answer = await patient.raw(
            http(POST, "content-length: 10", "x-router-deadline-ms: 50", body=b"{}")
        )
    assert_told(answer, 504, "deadline")
