"""The work that every system gets: which request, how large, over how many connections."""

import json
from dataclasses import dataclass
from enum import StrEnum

MODEL = "bench"
KIB, MIB = 1024, 1024 * 1024
_LENGTHS = 64


class Shape(StrEnum):
    """What kind of request it is; not every system takes every kind."""

    INFER = "infer"
    TENSOR = "tensor"
    OPENAI = "openai"
    STREAM = "stream"


class Use(StrEnum):
    """What of the gateway a request uses besides being forwarded; other systems just forward it."""

    PLAIN = "plain"
    DEADLINE = "deadline"
    KEY = "key"
    CANARY = "canary"
    SHADOW = "shadow"
    HEDGE = "hedge"
    QUALITY = "quality"
    FUNCTION = "function"
    LAMBDA = "lambda"


KEY = "benchmark-key"
"""The API key of requests that have one."""

_LINES = {
    Use.DEADLINE: ("x-router-deadline-ms: 1000",),
    Use.KEY: (f"authorization: Bearer {KEY}",),
}
_OWN_MODEL = {Use.CANARY, Use.SHADOW, Use.HEDGE, Use.QUALITY, Use.FUNCTION, Use.LAMBDA}
_CHAT_SHAPES = {Shape.OPENAI, Shape.STREAM}


def model_of(use: Use) -> str:
    """The configured model whose settings make requests use that."""
    return f"{MODEL}-{use}" if use in _OWN_MODEL else MODEL


@dataclass(frozen=True, slots=True)
class Scenario:
    """One column of work. `body_bytes` is exact.

    `is_cold`: all clients come at once to a system that has just started, and the first second
    counts. `events`: so many server-sent events are one answer, and what is counted.
    """

    name: str
    title: str
    shape: Shape
    body_bytes: int
    connections: int
    use: Use = Use.PLAIN
    is_cold: bool = False
    events: int = 0

    @property
    def is_basic(self) -> bool:
        """Whether it is measured with every system, rather than with the closest rivals."""
        return self.use is Use.PLAIN and not self.is_cold and not self.events

    @property
    def path(self) -> str:
        """Where the requests go."""
        if self.shape in _CHAT_SHAPES:
            return "/v1/chat/completions"
        return f"/v2/models/{model_of(self.use)}/infer"

    @property
    def lines(self) -> tuple[str, ...]:
        """More lines of each head; the upstream is asked for events by one of them."""
        wanted = (f"x-events: {self.events}",) if self.events else ()
        return (*_LINES.get(self.use, ()), *wanted)

    @property
    def content_type(self) -> str:
        """Of the body; raw tensors are binary."""
        return "application/octet-stream" if self.shape is Shape.TENSOR else "application/json"

    @property
    def body(self) -> bytes:
        """One of that size; the same bytes each time."""
        return _BODIES[self.shape](self.body_bytes)

    @property
    def bodies(self) -> list[bytes]:
        """What is posted in turn: small bodies have many lengths, that size on average."""
        if self.body_bytes > KIB:
            return [self.body]
        half = _LENGTHS // 2
        sizes = range(self.body_bytes - half, self.body_bytes + half)
        return [_BODIES[self.shape](size) for size in sizes]


SCENARIOS = (
    Scenario("infer-1", "300 B OIP infer, 1 connection", Shape.INFER, 300, 1),
    Scenario("infer-4", "300 B OIP infer, 4 connections", Shape.INFER, 300, 4),
    Scenario("infer-32", "300 B OIP infer, 32 connections", Shape.INFER, 300, 32),
    Scenario("infer-1000", "300 B OIP infer, 1,000 connections", Shape.INFER, 300, 1000),
    Scenario("openai-32", "300 B OpenAI chat, 32 connections", Shape.OPENAI, 300, 32),
    Scenario(
        "deadline-32", "300 B with x-router-deadline-ms, 32 connections",
        Shape.INFER, 300, 32, Use.DEADLINE,
    ),
    Scenario(
        "key-32", "300 B with a key that has a rate, 32 connections",
        Shape.INFER, 300, 32, Use.KEY,
    ),
    Scenario(
        "canary-32", "300 B under a canary rule (50 %), 32 connections",
        Shape.INFER, 300, 32, Use.CANARY,
    ),
    Scenario(
        "shadow-32", "300 B with a shadow (10 %; a copy counts as a request), 32 connections",
        Shape.INFER, 300, 32, Use.SHADOW,
    ),
    Scenario(
        "hedge-32", "300 B to a model that hedges, 32 connections", Shape.INFER, 300, 32, Use.HEDGE
    ),
    Scenario(
        "quality-32", "300 B to a model whose quality is watched (5 %), 32 connections",
        Shape.INFER, 300, 32, Use.QUALITY,
    ),
    Scenario(
        "function-32", "300 B to a function by URL, 32 connections",
        Shape.INFER, 300, 32, Use.FUNCTION,
    ),
    Scenario(
        "lambda-32", "300 B to AWS Lambda, signed and enveloped, 32 connections",
        Shape.INFER, 300, 32, Use.LAMBDA,
    ),
    Scenario(
        "cold-1000", "300 B, 1,000 clients at once from a cold start",
        Shape.INFER, 300, 1000, is_cold=True,
    ),
    Scenario(
        "sse-128", "SSE answer of 100 events, 128 connections (per event; times of whole answers)",
        Shape.STREAM, 300, 128, events=100,
    ),
    Scenario("256k-32", "256 KiB tensor, 32 connections", Shape.TENSOR, 256 * KIB, 32),
    Scenario("4m-32", "4 MiB tensor, 32 connections", Shape.TENSOR, 4 * MIB, 32),
)  # fmt: skip
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def _infer(size: int) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.25, 0.5, 0.75, 1.0]}
    return _padded({"id": "", "inputs": [tensor]}, "id", size)


def _chat(size: int) -> bytes:
    message = {"role": "user", "content": "Say hello."}
    return _padded({"model": MODEL, "user": "", "messages": [message]}, "user", size)


def _streamed_chat(size: int) -> bytes:
    message = {"role": "user", "content": "Say hello."}
    document = {"model": MODEL, "stream": True, "user": "", "messages": [message]}
    return _padded(document, "user", size)


def _padded(document: dict[str, object], key: str, size: int) -> bytes:
    """The document as JSON of exactly `size` bytes, filled up in one of its texts."""
    missing = size - len(json.dumps(document).encode())
    return json.dumps({**document, key: "b" * missing}).encode()


def _tensor(size: int) -> bytes:
    pattern = bytes(range(256))
    return (pattern * (size // len(pattern) + 1))[:size]


_BODIES = {
    Shape.INFER: _infer,
    Shape.TENSOR: _tensor,
    Shape.OPENAI: _chat,
    Shape.STREAM: _streamed_chat,
}
