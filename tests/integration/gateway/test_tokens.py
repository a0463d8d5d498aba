"""Tokens and gigabyte-seconds of tenants, whichever way a request takes."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.upstreams import Answer, Received, ok
from tests.integration.harness import Harness

CHAT = b'{"model": "m", "messages": []}'
STREAM = b'{"model": "m", "messages": [], "stream": true}'
USAGE = b'"usage": {"prompt_tokens": 11, "completion_tokens": 4}'


async def chats(received: Received) -> Answer:
    """A language model's answers, whole or in a stream."""
    if b"stream" not in received.body:
        return Answer(body=b'{"choices": [], ' + USAGE + b"}")

    async def events() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b'data: {"choices": [%d], "usage": null}\n\n' % number
        yield b'data: {"choices": [], ' + USAGE + b"}\n\n"
        yield b"data: [DONE]\n\n"

    return Answer(headers=(("content-type", "text/event-stream"),), chunks=events)


def keys(folder: Path) -> dict[str, Any]:
    found = [{"name": "k", "tenant": "t", "sha256": hashlib.sha256(b"k").hexdigest()}]
    (folder / "keys.yaml").write_text(yaml.safe_dump(found))
    return {"auth": {"api_keys_file": "keys.yaml"}}


def counted(gateway: Harness, family: str) -> dict[tuple[str, ...], float]:
    return dict(gateway.gateway._metrics.snapshot().values[family])


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("where", "body"), [("pool", CHAT), ("pool", STREAM), ("serverless", CHAT)],
    ids=["whole", "stream", "function"],
)  # fmt: skip
async def test_tokens_are_logged_and_counted(tmp_path, fast, where, body):
    async with Harness(
        tmp_path, warm=[chats], function=chats, config=keys(tmp_path), server={"fast_path": fast}
    ) as gateway:
        for number in range(3):
            reply = await gateway.infer(
                body, "/v1/chat/completions", authorization="Bearer k", x_request_id=f"r-{number}",
                x_router_backend=where,
            )  # fmt: skip
            assert reply.decision[0] == where
            line = await gateway.logged(f"r-{number}")
            assert (line["input_tokens"], line["output_tokens"]) == (11, 4)
        tokens = counted(gateway, "router_tenant_tokens_total")
        assert tokens == {("t", "input"): 33, ("t", "output"): 12}


async def test_models_that_know_no_tokens_have_none(tmp_path):
    answer = json.dumps({"usage": {"prompt_tokens": 3}}).encode()
    async with Harness(tmp_path, warm=[ok(answer)]) as gateway:
        for number in range(2):
            await gateway.infer(x_request_id=f"r-{number}")
            line = await gateway.logged(f"r-{number}")
            assert (line["input_tokens"], line["output_tokens"], line["gb_s"]) == (None, None, None)
        assert counted(gateway, "router_tenant_tokens_total") == {}


async def test_a_call_takes_memory_for_the_time_that_is_billed(tmp_path):
    serverless = {"memory_mb": 2048}
    async with Harness(
        tmp_path, function=ok(), serverless=serverless, config=keys(tmp_path)
    ) as gateway:
        for number in range(2):
            await gateway.infer(authorization="Bearer k", x_request_id=f"r-{number}")
            line = await gateway.logged(f"r-{number}")
            assert line["gb_s"] == pytest.approx(2 * 0.010)  # as its report says
        assert counted(gateway, "router_tenant_gigabyte_seconds_total") == {
            ("t",): pytest.approx(0.04)
        }
