"""Bodies and headers arrive as they were sent, in both directions, on both backends."""

import gzip
import json
import os
import zlib
from typing import Any

import pytest

from tests.fakes.upstreams import Answer, ok
from tests.integration.harness import INFER, Harness

JSON = b'{ "inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1.0]}] }\n'
BINARY = b'{"inputs": []}' + bytes(range(256)) * 3
RAW = {"content-type": "application/octet-stream", "inference-header-content-length": "0"}
BODIES = {
    "json with odd spacing": (JSON, {}),
    "binary tensors": (BINARY, {"inference-header-content-length": "14"}),
    "gzip": (gzip.compress(JSON), {"content-encoding": "gzip"}),
    "deflate": (zlib.compress(JSON), {"content-encoding": "deflate"}),
    "not UTF-8": (b"\xff\xfe\x00", RAW),
    "large": (os.urandom(400_000), RAW),
}


@pytest.mark.parametrize("backend", ["pool", "serverless"])
@pytest.mark.parametrize("case", BODIES.values(), ids=BODIES)
async def test_a_body_passes_byte_for_byte_both_ways(tmp_path, case, backend):
    body, headers = case

    async def echo(received) -> Any:
        kept = [(name, received.headers[name]) for name in headers if name in received.headers]
        return Answer(200, received.body, tuple(kept))

    async with Harness(tmp_path, warm=[echo], function=echo) as gateway:
        reply = await gateway.request("POST", INFER, body, {"x-router-backend": backend, **headers})
        upstream = gateway.warm[0] if backend == "pool" else gateway.function
    assert reply.status == 200
    assert reply.headers["x-router-backend"] == backend
    assert upstream.received[0].body == body
    assert reply.body == body
    for name, value in headers.items():
        assert reply.headers[name] == value


async def test_a_chunked_body_arrives_whole(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        answer = await gateway.raw(head, b"3\r\n{  \r\n", b"1\r\n}\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert gateway.warm[0].received[0].body == b"{  }"


async def test_a_client_that_expects_to_be_asked_is_asked(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reader, writer = await gateway.connect()
        writer.write(
            f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"
            "expect: 100-continue\r\n\r\n".encode()
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()


@pytest.mark.parametrize(
    "path", ["/v2/models/m", "/v2/models/m/config", "/v2/models/m/versions/1/stats"]
)
async def test_questions_about_a_model_go_to_a_backend_and_are_no_load(tmp_path, path):
    async with Harness(tmp_path, warm=[ok(b'{"name": "m"}')]) as gateway:
        reply = await gateway.request("GET", path)
        assert (reply.status, reply.json()) == (200, {"name": "m"})
        assert gateway.warm[0].received[0].method == "GET"
        assert gateway.gateway._parts.book.totals()["m"].arrivals == 0


class TestResponseHeaders:
    async def test_they_say_where_it_ran_and_why(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
            reply = await gateway.infer(x_request_id="mine-1")
            line = await gateway.logged("mine-1")
        headers = reply.headers
        assert headers["x-request-id"] == "mine-1"
        assert reply.decision == ("pool", "warm_capacity")
        assert headers["x-router-attempts"] == "1"
        assert headers["x-router-endpoint"].startswith("m-")
        assert "127.0.0.1" not in str(headers.items())
        names = [part.partition(";dur=")[0] for part in headers["server-timing"].split(", ")]
        assert names == ["router", "upstream"]
        assert "x-router-cold-start" not in headers, "a replica has no cold start to tell of"
        assert (line["backend"], line["reason"]) == reply.decision
        assert (line["status"], line["outcome"], line["attempts"]) == (200, "ok", 1)

    @pytest.mark.parametrize(("is_cold", "told"), [(True, "true"), (False, "false")])
    async def test_a_function_tells_of_cold_starts(self, tmp_path, is_cold, told):
        async with Harness(tmp_path, function=ok()) as gateway:
            gateway.function.is_cold = is_cold
            reply = await gateway.infer()
            status = await gateway.status()
        assert reply.headers["x-router-cold-start"] == told
        assert status["serverless"]["cold_calls"] == int(is_cold)

    async def test_a_request_without_an_id_gets_one_that_upstreams_see(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            replies = [await gateway.infer() for _ in range(2)]
            ids = [reply.headers["x-request-id"] for reply in replies]
            seen = [received.headers["x-request-id"] for received in gateway.warm[0].received]
        assert ids == seen
        assert len(set(ids)) == 2

    async def test_upstream_headers_pass_and_those_of_the_hop_do_not(self, tmp_path):
        upstream = ok(b"{}", x_model="7", keep_alive="timeout=5", server_timing="model;dur=1")
        async with Harness(tmp_path, warm=[upstream]) as gateway:
            reply = await gateway.infer()
        assert reply.headers["x-model"] == "7"
        assert "keep-alive" not in reply.headers
        assert len(reply.headers.getall("server-timing")) == 1

    @pytest.mark.parametrize("fast_path", [True, False], ids=["fast path", "ordinary path"])
    async def test_what_an_upstream_says_in_our_place_is_dropped(self, tmp_path, fast_path):
        """It may be a gateway of the same kind."""
        upstream = ok(b"{}", x_router_backend="elsewhere", x_router_cold_start="true")
        async with Harness(tmp_path, warm=[upstream], server={"fast_path": fast_path}) as gateway:
            for _ in range(2):  # the second one finds an open connection
                reply = await gateway.infer()
                assert reply.headers.getall("x-router-backend") == ["pool"]
                assert "x-router-cold-start" not in reply.headers

    async def test_repeated_upstream_headers_stay_repeated(self, tmp_path):
        async def two(_) -> Any:
            return Answer(200, b"{}", (("set-cookie", "a=1"), ("set-cookie", "b=2")))

        async with Harness(tmp_path, warm=[two]) as gateway:
            reply = await gateway.infer()
        assert reply.headers.getall("set-cookie") == ["a=1", "b=2"]

    async def test_what_the_gateway_understands_does_not_travel_on(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            await gateway.infer(x_router_deadline_ms="5000", x_router_backend="pool", x_mine="1")
            seen = gateway.warm[0].received[0].headers
        assert {name for name in seen if name.startswith("x-router")} == set()
        assert seen["x-mine"] == "1"


@pytest.mark.parametrize("status", [200, 400, 404, 500])
async def test_the_models_own_answer_is_passed_on(tmp_path, status):
    """Malformed JSON among others: the worker knows best what is wrong with it."""
    told = json.dumps({"error": "no such input"}).encode()
    async with Harness(tmp_path, warm=[ok(told, status)], function=ok()) as gateway:
        reply = await gateway.infer(b"{broken")
    assert (reply.status, reply.body) == (status, told)
    assert reply.headers["x-router-attempts"] == "1"


BUSY = b'{"error": {"message": "slow down", "code": "rate_limit"}}'


def busy(*headers: tuple[str, str]):
    async def behave(received):
        return Answer(429, BUSY, headers)

    return behave


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_replicas_429_reaches_the_client_in_its_own_words(tmp_path, fast_path):
    told = (("retry-after-ms", "700"), ("x-should-retry", "false"), ("x-ratelimit-limit", "5"))
    async with Harness(tmp_path, warm=[busy(*told)], server={"fast_path": fast_path}) as gateway:
        replies = [await gateway.infer() for _ in range(2)]
    for reply in replies:
        assert (reply.status, reply.body) == (429, BUSY)
        assert [reply.headers.get(name) for name, _ in told] == [value for _, value in told]
        assert reply.headers["x-router-error"] == "upstream_busy"


@pytest.mark.parametrize("body", [b"", b"x" * 100_000], ids=["nothing", "too much"])
async def test_a_429_without_words_is_worded_in_the_clients_protocol(tmp_path, body):
    async def behave(received):
        return Answer(429, body, (("retry-after", "7"), ("content-type", "text/html")))

    async with Harness(tmp_path, warm=[behave]) as gateway:
        plain = await gateway.infer()
        chat = await gateway.infer(b'{"model": "m"}', "/v1/chat/completions")
    assert "busy" in plain.json()["error"]
    assert "busy" in chat.json()["error"]["message"]
    for reply in (plain, chat):
        assert (reply.status, reply.headers.getall("retry-after")) == (429, ["7"])
        assert reply.headers.getall("content-type") == ["application/json"]


async def test_a_429_of_one_place_is_not_told_where_another_serves(tmp_path):
    async with Harness(tmp_path, warm=[busy(), ok(b"{}")]) as gateway:
        replies = [await gateway.infer() for _ in range(4)]
    assert [reply.status for reply in replies] == [200] * 4
