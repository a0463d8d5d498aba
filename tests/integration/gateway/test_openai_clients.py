"""The clients of OpenAI and Anthropic, unchanged, in front of a server that answers as theirs."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes.upstreams import Answer, Received
from tests.integration.harness import Harness

SPOKEN = bytes(range(256)) * 2000
NAME = "org/llama3:8b"
USER: Any = [{"role": "user", "content": "x"}]
WORDS = ("he", "llo")
RESPONSE = {
    "id": "r", "object": "response", "created_at": 1, "model": NAME, "status": "completed",
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    "output": [{
        "type": "message", "id": "m", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "hello", "annotations": []}],
    }],
}  # fmt: skip
MESSAGE = {
    "id": "m", "type": "message", "role": "assistant", "model": NAME,
    "content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn",
    "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
}  # fmt: skip
DOCUMENTS: dict[str, Any] = {
    "/v1/chat/completions": {
        "id": "c", "object": "chat.completion", "created": 1, "model": NAME,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "hello"},
        }],
    },
    "/v1/embeddings": {
        "object": "list", "model": NAME, "usage": {"prompt_tokens": 1, "total_tokens": 1},
        "data": [{"object": "embedding", "index": 0, "embedding": "AACAPwAAAEA="}],
    },
    "/v1/responses": RESPONSE,
    "/v1/moderations": {"id": "m", "model": NAME, "results": []},
    "/v1/audio/transcriptions": {"text": "hello"},
    "/v1/images/edits": {"created": 1, "data": [{"b64_json": "AAAA"}]},
    "/v1/messages": MESSAGE,
    "/v1/messages/count_tokens": {"input_tokens": 3},
    "/score": {"score": 1},
}  # fmt: skip


def events(path: str) -> list[dict[str, Any]]:
    """A streamed answer of that path."""
    if path == "/v1/chat/completions":
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": NAME}
        return [{**chunk, "choices": [{"index": 0, "delta": {"content": word}}]} for word in WORDS]
    text = {"type": "text_delta"}
    return [
        {"type": "message_start", "message": {**MESSAGE, "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {**text, "text": word}}
            for word in WORDS
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_stop"},
    ]


def streamed(path: str) -> Answer:
    async def chunks() -> AsyncIterator[bytes]:
        for event in events(path):
            name = f"event: {event['type']}\n" if "type" in event else ""
            yield f"{name}data: {json.dumps(event)}\n\n".encode()
        yield b"data: [DONE]\n\n" if path == "/v1/chat/completions" else b""

    return Answer(headers=(("content-type", "text/event-stream"),), chunks=chunks)


async def server(received: Received) -> Answer:
    """As vLLM and its like answer."""
    if received.target == "/v1/audio/speech":
        return Answer(body=SPOKEN, headers=(("content-type", "audio/mpeg"),))
    if b'"stream":true' in received.body:
        return streamed(received.target)
    return Answer(body=json.dumps(DOCUMENTS[received.target]).encode())


@pytest.fixture(params=[True, False], ids=["fast", "ordinary"])
async def gateway(request, tmp_path):
    model = {"name": NAME, "openai_paths": ["/score"]}
    settings = {"fast_path": request.param}
    async with Harness(tmp_path, warm=[server], server=settings) as gateway:
        config = gateway.changed(**model)
        await gateway.write(config)
        await gateway.ask("POST", "/v1/reload")
        pool = gateway.gateway._runtime.current.models[NAME].pool
        assert pool is not None
        await gateway.until(lambda: pool.ready == 1)
        yield gateway


@pytest.fixture
async def client(gateway):
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key="theirs", max_retries=0
    ) as client:
        yield client


async def test_what_openais_client_asks(client):
    chats = [await client.chat.completions.create(model=NAME, messages=USER) for _ in range(2)]
    assert {chat.choices[0].message.content for chat in chats} == {"hello"}
    unset = {"stream": None}
    chat = await client.chat.completions.create(model=NAME, messages=USER, extra_body=unset)
    assert chat.choices[0].message.content == "hello"
    stream = await client.chat.completions.create(model=NAME, messages=USER, stream=True)
    assert [chunk.choices[0].delta.content async for chunk in stream] == list(WORDS)
    vectors = await client.embeddings.create(model=NAME, input="x")
    assert vectors.data[0].embedding == [1.0, 2.0]
    assert (await client.responses.create(model=NAME, input="x")).output_text == "hello"
    assert (await client.moderations.create(model=NAME, input="x")).id == "m"
    assert [each.id async for each in client.models.list()] == [NAME]
    assert (await client.models.retrieve(NAME)).id == NAME
    assert await client.post("../score", cast_to=object, body={"model": NAME}) == {"score": 1}


async def test_what_openais_client_sends_as_a_form_and_gets_as_bytes(client):
    text = await client.audio.transcriptions.create(model=NAME, file=("a.wav", b"RIFF" * 90_000))
    assert text.text == "hello"
    edited = await client.images.edit(model=NAME, prompt="x", image=("a.png", b"\x89PNG" * 9))
    assert edited.data[0].b64_json == "AAAA"
    spoken = await client.audio.speech.create(model=NAME, voice="x", input="x")
    assert spoken.content == SPOKEN


async def test_openais_client_knows_each_error_for_what_it_is(client, gateway):
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="nobody", messages=USER)
    with pytest.raises(openai.NotFoundError) as retrieved:
        await client.models.retrieve("nobody")
    assert unknown.value.code == retrieved.value.code == "model_not_found"

    async def busy(_: Received) -> Answer:
        told = (("retry-after-ms", "20"), ("x-should-retry", "false"))
        return Answer(429, b'{"error": {"message": "slow", "type": "t", "code": "tpm"}}', told)

    gateway.warm[0].behave = busy
    with pytest.raises(openai.RateLimitError) as limited:
        await client.chat.completions.create(model=NAME, messages=USER)
    assert limited.value.code == "tpm"
    assert limited.value.response.headers["x-should-retry"] == "false"


async def test_what_anthropics_client_asks(gateway):
    asked: Any = {"model": NAME, "max_tokens": 5, "messages": USER}
    async with anthropic.AsyncAnthropic(
        base_url=gateway.url, api_key="theirs", max_retries=0
    ) as client:
        answers = [await client.messages.create(**asked) for _ in range(2)]
        assert {answer.content[0].text for answer in answers} == {"hello"}
        async with client.messages.stream(**asked) as stream:
            assert [word async for word in stream.text_stream] == list(WORDS)
        counted = await client.messages.count_tokens(model=NAME, messages=USER)
        assert counted.input_tokens == 3
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await client.messages.create(**{**asked, "model": "nobody"})
    assert unknown.value.type == "not_found_error"
