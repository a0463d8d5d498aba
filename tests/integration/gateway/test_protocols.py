"""KServe v1 and OpenAI shapes, and streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import tritonclient.http.aio as triton_aio

from tests.fakes.upstreams import Answer, Gate, Upstream, ok, running
from tests.integration.harness import Harness

CHAT = json.dumps({"model": "m", "messages": [], "stream": False}).encode()
STREAM = json.dumps({"model": "m", "messages": [], "stream": True}).encode()


class TestKServeV1:
    async def test_predict_passes_through(self, tmp_path):
        async with Harness(tmp_path, warm=[ok(b'{"predictions": [1]}')]) as gateway:
            reply = await gateway.infer(b'{"instances": [1]}', "/v1/models/m:predict")
            (received,) = gateway.warm[0].received
        assert (reply.status, reply.json()) == (200, {"predictions": [1]})
        assert (received.target, received.body) == ("/v1/models/m:predict", b'{"instances": [1]}')

    async def test_lists_and_readiness_are_the_gateways(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            listed = (await gateway.request("GET", "/v1/models")).json()
            one = (await gateway.request("GET", "/v1/models/m")).json()
            unknown = await gateway.request("GET", "/v1/models/x")
        assert (listed["models"], listed["data"][0]["id"]) == (["m"], "m")
        assert (one["name"], one["ready"]) == ("m", True)
        assert (unknown.status, type(unknown.json()["error"])) == (404, str)


class TestOpenAI:
    @pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
    async def test_the_model_is_found_in_the_body_which_passes_untouched(self, tmp_path, path):
        body = b'{"input": "x",  "model":"m"}'
        async with Harness(tmp_path, warm=[ok(b'{"id": "1"}')]) as gateway:
            reply = await gateway.infer(body, f"/v1/{path}", authorization="Bearer theirs")
            (received,) = gateway.warm[0].received
        assert (reply.status, reply.json()) == (200, {"id": "1"})
        assert received.body == body
        assert received.headers["authorization"] == "Bearer theirs"

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            (b'{"model": "x"}', 404, "model_not_found"),
            (b"{}", 400, "invalid_request"),
            (b"{", 400, "invalid_request"),
            (b"", 400, "invalid_request"),
        ],
        ids=["unknown model", "no model", "broken JSON", "no body"],
    )
    async def test_errors_have_openais_shape(self, tmp_path, body, status, code):
        async with Harness(tmp_path, warm=[ok()]) as gateway:
            reply = await gateway.infer(body, "/v1/chat/completions")
        error = reply.json()["error"]
        assert (reply.status, error["code"]) == (status, code)
        assert set(error) == {"message", "type", "param", "code"}

    async def test_a_stream_goes_where_streams_can(self, tmp_path):
        async with Harness(tmp_path, warm=[ok()], function=ok()) as gateway:
            plain = await gateway.infer(CHAT, "/v1/chat/completions", x_router_backend="serverless")
            stream = await gateway.infer(
                STREAM, "/v1/chat/completions", x_router_backend="serverless"
            )
        assert plain.decision == ("serverless", "hint")
        assert stream.decision == ("pool", "limit_stream")


class TestServerSentEvents:
    async def test_every_event_passes_at_once(self, tmp_path):
        asked: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def chunks() -> AsyncIterator[bytes]:
            while (event := await asked.get()) is not None:
                yield event

        async def behave(_) -> Any:
            return Answer(200, headers=(("content-type", "text/event-stream"),), chunks=chunks)

        async with Harness(tmp_path, warm=[behave]) as gateway:
            reader, writer = await gateway.connect()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(STREAM)}"
            writer.write(head.encode() + b"\r\n\r\n" + STREAM)
            async with asyncio.timeout(5):
                answered = await reader.readuntil(b"\r\n\r\n")
                assert b"text/event-stream" in answered.lower()
                for number in range(3):
                    # The next one is only made once this one has arrived.
                    asked.put_nowait(f"data: {number}\n\n".encode())
                    assert await reader.readuntil(b"\n\n") != b""
                assert gateway.pool.in_flight == 1
                asked.put_nowait(None)
                await reader.readuntil(b"0\r\n\r\n")
            await gateway.until(lambda: gateway.pool.in_flight == 0)

    async def test_a_large_answer_is_streamed_at_the_clients_pace(self, tmp_path):
        sent = 0
        total = 400

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal sent
            for sent in range(1, total + 1):  # noqa: B007  seen by the test
                yield b"x" * 100_000

        async def behave(_) -> Any:
            return Answer(200, headers=(), chunks=chunks)

        async with Harness(tmp_path, warm=[behave]) as gateway:
            reader, writer = await gateway.connect()
            writer.write(
                b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
            )
            await reader.readuntil(b"\r\n\r\n")
            before = -1
            while before != sent:  # until it stands still: nobody reads
                before = sent
                await asyncio.sleep(0.1)
            assert sent < total, "40 MB do not fit anywhere on the way"
            received = 0
            async with asyncio.timeout(10):
                while received < total * 100_000:
                    received += len(await reader.read(1 << 20))
            assert sent == total


async def test_a_queue_of_one_tenant_does_not_hold_another_model(tmp_path):
    """A cold or slow model may fill its own queue only."""
    gate = Gate()
    async with Harness(tmp_path, warm=[gate, ok()]) as gateway:
        slow, quick = (upstream.url for upstream in gateway.warm)
        config = gateway.changed(pool={"urls": [slow], "concurrency": 1})
        other = gateway.changed(pool={"urls": [quick]})["models"][0]
        config["models"].append({**other, "name": "n"})
        await gateway.write(config)
        await gateway.ask("POST", "/v1/reload")
        models = gateway.gateway._runtime.current.models
        pools = [models[name].pool for name in ("m", "n")]
        await gateway.until(lambda: all(pool is not None and pool.ready == 1 for pool in pools))
        held = [asyncio.create_task(gateway.infer()) for _ in range(5)]
        await gateway.until(lambda: len(gateway.pool.queue) == 4)
        assert (await gateway.infer(path="/v2/models/n/infer")).status == 200
        gate.opened.set()
        assert {(await task).status for task in held} == {200}


@pytest.mark.parametrize(
    "path", ["/", "/v2", "/v2/health/ready", "/v1/models", "/v2/models/m", "/v2/models/m/config"]
)
async def test_a_head_request_gets_the_head_of_what_a_get_would(tmp_path, path):
    async with Harness(tmp_path, warm=[ok(b'{"name": "m"}')]) as gateway:
        full = await gateway.request("GET", path)
        head = await gateway.request("HEAD", path)
        received = [each.method for each in gateway.warm[0].received]
    assert (head.status, head.body) == (full.status, b"") == (200, b"")
    assert head.headers["content-length"] == str(len(full.body))
    assert set(received) <= {"GET"}


async def test_the_root_tells_kserves_client_that_the_server_lives(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        assert (await gateway.request("GET", "/")).json()["status"] == "alive"


async def test_openais_clients_get_their_shape_for_an_unknown_model(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reply = await gateway.request("GET", "/v1/models/x", headers={"x-stainless-lang": "python"})
    assert (reply.status, reply.json()["error"]["code"]) == (404, "model_not_found")


def form(*fields: str) -> bytes:
    parts = [f"--b\r\nContent-Disposition: form-data; {field}\r\n" for field in fields]
    return "".join(parts).encode() + b"--b--\r\n"


FILE = 'name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nname="model"\r\n'


async def test_a_form_names_its_model_and_goes_on_with_the_name_that_the_server_knows(tmp_path):
    body = form(FILE, 'name="model"\r\n\r\nm')
    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with Harness(tmp_path, warm=[ok()], model={"served_as": "other"}) as gateway:
        reply = await gateway.request("POST", "/v1/audio/transcriptions", body, headers)
        elsewhere = await gateway.request("POST", "/v2/models/m/infer", body, headers)
        (received,) = gateway.warm[0].received
    assert (reply.status, elsewhere.status) == (200, 415)
    assert received.body == form(FILE, 'name="model"\r\n\r\nother')
    assert received.headers["content-type"] == headers["content-type"]


@pytest.mark.parametrize(
    "body",
    [
        form(FILE),
        form('name="model"\r\n\r\nm', 'name="model"\r\n\r\nn'),
        form('name="Model"\r\n\r\nm'),
        form('name="model"; filename="x"\r\n\r\nm'),
        form('name="model"\r\nContent-Transfer-Encoding: base64\r\n\r\nbQ=='),
        form('name="model"\r\n\r\nm')[:-6],
        form('name="model"\r\n\r\nm') + b"more",
        form(FILE + "\n--b\r\n", 'name="model"\r\n\r\nm'),
        form(
            'name="x"\nContent-Disposition: form-data; name="model"\r\n\r\nm',
            'name="model"\r\n\r\nn',
        ),
        b"x" + form('name="model"\r\n\r\nm'),
    ],
    ids=[
        "none",
        "two",
        "a case",
        "a file",
        "a coding",
        "no end",
        "after",
        "a line feed",
        "in a head",
        "before",
    ],
)
async def test_a_form_that_can_be_read_in_two_ways_is_refused(tmp_path, body):
    headers = {"content-type": "multipart/form-data; boundary=b"}
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        reply = await gateway.request("POST", "/v1/images/edits", body, headers)
        assert gateway.warm[0].received == []
    assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_request")


async def test_tritonclient_reaches_a_model_whose_name_has_a_slash_and_a_colon(tmp_path):
    other = {"name": "org/llama3:8b", "slo": {"latency_ms": 5000}}
    pool = {"kind": "static", "health": {"interval": "50ms", "timeout": "2s"}}
    metadata = Upstream(ok(b'{"name": "it"}'))
    async with (
        running(metadata),
        Harness(tmp_path, warm=[ok()]) as gateway,
    ):
        models = [*gateway.config["models"], {**other, "pool": {**pool, "urls": [metadata.url]}}]
        await gateway.write({**gateway.config, "models": models})
        async with gateway.client.post(gateway.admin + "/v1/reload") as reloaded:
            assert reloaded.status == 200
        async with triton_aio.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
            while not await client.is_model_ready("org/llama3:8b"):
                await asyncio.sleep(0.01)
            told = await client.get_model_metadata("org/llama3:8b")
    assert told == {"name": "it"}
    assert [each.target for each in metadata.received] == ["/v2/models/org%2Fllama3%3A8b"]


async def test_statistics_of_all_models_are_what_the_gateway_has_counted(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        for _ in range(3):
            await gateway.infer()
        gateway.warm[0].behave = ok(b'{"error": "no"}', status=400)
        await gateway.infer()
        host = gateway.url.removeprefix("http://")
        async with triton_aio.InferenceServerClient(host) as client:
            (told,) = (await client.get_inference_statistics())["model_stats"]
        received = [each.target for each in gateway.warm[0].received]
    assert (told["name"], told["inference_count"], told["execution_count"]) == ("m", 3, 4)
    times = told["inference_stats"]
    assert {name: each["count"] for name, each in times.items()} == {
        "success": 3, "fail": 1, "queue": 0, "compute_infer": 4,
    }  # fmt: skip
    assert 0 < times["compute_infer"]["ns"] <= times["success"]["ns"]
    assert set(received) == {"/v2/models/m/infer"}


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
@pytest.mark.parametrize("score", ["/v1/custom/score", "/score", "/v2/rerank"])
async def test_a_configured_path_is_for_the_models_that_have_it(tmp_path, score, fast_path):
    form_type = {"content-type": "multipart/form-data; boundary=b"}
    model: Any = {"openai_paths": [score], "served_as": "theirs"}
    server = {"fast_path": fast_path}
    async with Harness(tmp_path, warm=[ok()], model=model, server=server) as gateway:
        other = {**gateway.config["models"][0], "name": "n", "openai_paths": []}
        await gateway.write({**gateway.config, "models": [*gateway.config["models"], other]})
        await gateway.ask("POST", "/v1/reload")
        for _ in range(2):
            assert (await gateway.infer(b'{"model": "m"}', score)).status == 200
            without = await gateway.infer(b'{"model": "n"}', score)
            assert (without.status, without.json()["error"]["code"]) == (404, "not_found")
        sent = await gateway.request("POST", score, form('name="model"\r\n\r\nm'), form_type)
        unknown = await gateway.infer(b'{"model": "m"}', score + "/x")
        wrong = await gateway.request("GET", score)
        received = [(each.target, each.body) for each in gateway.warm[0].received]
    assert (sent.status, unknown.status, wrong.status) == (200, 404, 405)
    assert received == [(score, b'{"model": "theirs"}')] * 2 + [
        (score, form('name="model"\r\n\r\ntheirs'))
    ]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_messages_pass_and_their_errors_have_anthropics_shape(tmp_path, path):
    async with Harness(tmp_path, warm=[ok(b'{"type": "message"}')]) as gateway:
        passed = await gateway.infer(b'{"model": "m", "messages": []}', path)
        unknown = await gateway.infer(b'{"model": "x", "messages": []}', path)
        broken = await gateway.infer(b"[]", path)
        (received,) = gateway.warm[0].received
    assert (passed.status, passed.json()) == (200, {"type": "message"})
    assert received.target == path
    assert (unknown.status, broken.status) == (404, 400)
    for reply, kind in ((unknown, "not_found_error"), (broken, "invalid_request_error")):
        assert reply.json()["type"] == "error"
        assert reply.json()["error"]["type"] == kind
