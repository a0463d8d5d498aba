import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.domain.ports import BackendResponse
from router.domain.tokens import Tokens
from router.gateway.protocols.anthropic import ANTHROPIC
from router.gateway.protocols.oip import OIP
from router.gateway.protocols.openai import OPENAI
from router.gateway.usage import END_BYTES, Passing, Watched, tokens_of

CHAT = {
    "id": "c", "choices": [{"message": {"content": 'say "usage": {"prompt_tokens": 1} twice'}}],
    "usage": {
        "prompt_tokens": 12, "completion_tokens": 345, "total_tokens": 357,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
    "system_fingerprint": "fp",
}  # fmt: skip
RESPONSES: Any = {"output": [], "usage": {
    "input_tokens": 7, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 2}}, "user": None, "metadata": {}}  # fmt: skip
EVENTS = (
    b'data: {"choices": [{"delta": {"content": "a"}}], "usage": null}\n\n' * 200
    + b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 200}}\n\n'
    + b"data: [DONE]\n\n"
)
MESSAGES = (
    b'event: message_start\ndata: {"type": "message_start", "message": {"usage":'
    b' {"input_tokens": 25, "output_tokens": 1}}}\n\n'
    + b'event: content_block_delta\ndata: {"delta": {"text": "Hello"}}\n\n' * 300
    + b'event: message_delta\ndata: {"delta": {}, "usage": {"output_tokens": 300}}\n\n'
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (json.dumps(CHAT).encode(), Tokens(12, 345)),
        (json.dumps(CHAT, indent=2).encode(), Tokens(12, 345)),
        (json.dumps(CHAT, separators=(",", ":")).encode(), Tokens(12, 345)),
        (json.dumps(RESPONSES).encode(), Tokens(7, 9)),
        (b'{"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}', Tokens(8, 0)),
        (EVENTS, Tokens(5, 200)),
        (MESSAGES, Tokens(25, 300)),
        (b'{"input_tokens": 14}', None),
        (json.dumps({"text": '{"usage": {"prompt_tokens": 99}}'}).encode(), None),
        (b'{"usage": null}', None),
        (b'{"usage": {}}', None),
        (b'{"usage": {"prompt_tokens": -3, "completion_tokens": "many"}}', None),
        (b'{"usage": {"prompt_tokens": 1' + b"0" * 40 + b"}}", Tokens(10**11, 0)),
        (b"\x1f\x8b\x08 compressed", None),
        (b'"usage"' * 600, None),
        (b"", None),
    ],
    ids=[
        "chat", "indented", "compact", "responses", "embeddings", "a stream", "Anthropic's stream",
        "a count is no usage", "what a model says of usage", "none", "an empty one",
        "no numbers", "a number without end", "compressed", "a name alone", "nothing",
    ],
)  # fmt: skip
def test_tokens_are_found_where_they_stand(body: bytes, expected: Tokens | None) -> None:
    assert tokens_of(body) == expected
    for size in (1, 7, END_BYTES, 100_000):
        passing = Passing()
        for begin in range(0, len(body), size):
            passing.add(body[begin : begin + size])
        assert passing.tokens == expected


def test_what_is_kept_of_a_long_answer_is_bounded() -> None:
    passing = Passing()
    for _ in range(1000):
        passing.add(b"x" * 10_000)
    assert len(passing._begin) + len(passing._end) <= END_BYTES + 1024


async def test_only_good_answers_of_language_models_are_watched() -> None:
    closed = []

    async def parts() -> AsyncIterator[bytes]:
        try:
            for begin in range(0, len(EVENTS), 100):
                yield EVENTS[begin : begin + 100]
        finally:
            closed.append(True)

    def answer(status: int = 200) -> BackendResponse:
        return BackendResponse(status, [], b"", parts())

    for protocol in (OPENAI, ANTHROPIC):
        response = answer()
        watched = Watched.of(protocol, response)
        assert watched is not None
        assert response.rest is not None
        assert b"".join([part async for part in response.rest]) == EVENTS
        assert watched.tokens == Tokens(5, 200)
    assert Watched.of(OPENAI, answer(status=500)) is None
    assert Watched.of(OIP, answer()) is None
    broken = answer()
    Watched.of(OPENAI, broken)
    assert broken.rest is not None
    await anext(broken.rest)
    closed.clear()
    await broken.close()
    assert closed == [True]
