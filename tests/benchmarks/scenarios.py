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


_PATHS = {
    Shape.INFER: f"/v2/models/{MODEL}/infer",
    Shape.TENSOR: f"/v2/models/{MODEL}/infer",
    Shape.OPENAI: "/v1/chat/completions",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One column of work. `body_bytes` is exact."""

    name: str
    title: str
    shape: Shape
    body_bytes: int
    connections: int

    @property
    def path(self) -> str:
        """Where the requests go."""
        return _PATHS[self.shape]

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
    Scenario("infer-32", "300 B OIP infer, 32 connections", Shape.INFER, 300, 32),
    Scenario("infer-1000", "300 B OIP infer, 1,000 connections", Shape.INFER, 300, 1000),
    Scenario("openai-32", "300 B OpenAI chat, 32 connections", Shape.OPENAI, 300, 32),
    Scenario("256k-32", "256 KiB tensor, 32 connections", Shape.TENSOR, 256 * KIB, 32),
    Scenario("4m-32", "4 MiB tensor, 32 connections", Shape.TENSOR, 4 * MIB, 32),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def _infer(size: int) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.25, 0.5, 0.75, 1.0]}
    return _padded({"id": "", "inputs": [tensor]}, "id", size)


def _chat(size: int) -> bytes:
    message = {"role": "user", "content": "Say hello."}
    return _padded({"model": MODEL, "user": "", "messages": [message]}, "user", size)


def _padded(document: dict[str, object], key: str, size: int) -> bytes:
    """The document as JSON of exactly `size` bytes, filled up in one of its texts."""
    missing = size - len(json.dumps(document).encode())
    return json.dumps({**document, key: "b" * missing}).encode()


def _tensor(size: int) -> bytes:
    pattern = bytes(range(256))
    return (pattern * (size // len(pattern) + 1))[:size]


_BODIES = {Shape.INFER: _infer, Shape.TENSOR: _tensor, Shape.OPENAI: _chat}
