"""Gateways with one Redis add up what they know of a model's quality, and pass labels on."""

import asyncio
import json
from contextlib import asynccontextmanager
from random import Random

import numpy as np

from router.domain.request import AnswerForm
from router.gateway.admin.watching import WatchedQuality
from router.gateway.protocols.base import BodyQuestion, Question
from router.gateway.protocols.feedback import FEEDBACK
from router.quality.drift import DriftParams
from router.quality.predictions import Reading, Task
from router.quality.quality import Quality
from router.quality.samples import Origin, QualityParams, Sample
from router.quality.tensors import Answer
from router.runtime import RuntimeRef
from router.signals.notes import Notes
from router.signals.redis import SharedStateConfig
from tests.fakes.runtimes import make_runtime
from tests.fakes.valkey import ValkeyProcess

PARAMS = QualityParams(
    reading=Reading(Task.CLASSIFICATION), first=100, drift=DriftParams(samples=50)
)


class Peer:
    """One gateway's quality, exchanged when it is told to."""

    def __init__(self, url: str, name: str, others: list[str]) -> None:
        self.quality = Quality(Random(1), lambda: 1000.0)
        self.notes = Notes(SharedStateConfig(url, "test", name, operation_timeout_s=5.0), "quality")
        self.ref = RuntimeRef(make_runtime())
        self.watched = WatchedQuality(self.quality, self.ref, self.notes, lambda: others)
        self.watched.take_up({"m": PARAMS})
        self.name = name

    async def samples(self, values) -> None:
        for number, value in enumerate(values):
            tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [float(value)]}
            answer = {"outputs": [{**tensor, "shape": [1, 2], "data": [0.9, 0.1], "name": "y"}]}
            self.quality.offer(
                Sample(
                    Origin("m", "1"), f"{self.name}-{number}", AnswerForm.TENSORS, {},
                    json.dumps({"inputs": [tensor]}).encode(),
                    Answer(200, {}, json.dumps(answer).encode()), 1000.0,
                )
            )  # fmt: skip
            if number % 32 == 31:  # no more may wait than there is room for
                await self.quality.ask(lambda _: None)
        await self.quality.ask(lambda _: None)
        await asyncio.sleep(0)

    async def exchange(self) -> None:
        await self.watched._exchange_once(self.notes)

    def label(self, *ids: str):
        question = Question("POST", ["v1", "feedback"], self.ref.current, None, 0.0)
        object.__setattr__(self.ref.current, "quality", self.quality)
        target = FEEDBACK.resolve(question)
        assert isinstance(target, BodyQuestion)
        lines = [json.dumps({"request_id": each, "label": 0}).encode() for each in ids]
        return target.answer(b"\n".join(lines)).content

    async def version(self):
        (model,) = (await self.watched.shown(None))["models"]
        (version,) = model["versions"]
        return version


@asynccontextmanager
async def peers(url: str, *names: str):
    made = [Peer(url, name, [other for other in names if other != name]) for name in names]
    try:
        yield made
    finally:
        for peer in made:
            await peer.notes.close()
            await peer.quality.close()


async def test_three_gateways_together_are_one(valkey_server: ValkeyProcess) -> None:
    rng = np.random.default_rng(1)
    async with peers(valkey_server.url, "a", "b", "c") as gateways:
        for gateway in gateways:
            await gateway.samples(rng.normal(size=100))
            await gateway.exchange()
        baselines = [(await gateway.version())["baseline"] for gateway in gateways]
        assert baselines[0] == baselines[1] == baselines[2]
        for gateway in gateways:
            await gateway.samples(rng.normal(size=50))
            gateway.label(f"{gateway.name}-0", f"{gateway.name}-1")
            await gateway.quality.ask(lambda _: None)
        for _ in range(2):
            for gateway in gateways:
                await gateway.exchange()
        shown = [await gateway.version() for gateway in gateways]
        assert {version["samples"] for version in shown} == {450}
        assert {version["window_gateways"] for version in shown} == {3}
        assert {version["accuracy"]["accuracy"]["labels"] for version in shown} == {6}
        assert shown[0]["features"] == shown[1]["features"] == shown[2]["features"]


async def test_a_label_finds_the_gateway_that_gave_the_answer(valkey_server: ValkeyProcess) -> None:
    async with peers(valkey_server.url, "a", "b") as (a, b):
        await a.samples([1.0, 2.0])
        said = b.label("a-0", "nowhere")
        assert (said["forwarded"], said["unknown"], said["counted"]) == (2, 0, 0)
        await b.exchange()
        await a.exchange()
        await a.exchange()  # what was heard before is not counted again
        assert a.quality.labels["m", "counted"] == 1
        assert len(a.quality.pending) == 1


async def test_poison_in_redis_is_not_believed(valkey_server: ValkeyProcess) -> None:
    async with peers(valkey_server.url, "a", "b") as (a, _):
        await a.samples(np.arange(150))
        with valkey_server.client() as client:
            client.set("test:quality:b", b"\x78\x9c" + b"z" * 1000)
            client.set("test:quality:labels:b", b'[[1, null, "{"], [2, 3, 4]]')
            client.set("test:quality-settled:m 1", b"{}")
        await a.exchange()
        assert (await a.version())["baseline"]["samples"] == 100
        assert (await a.watched.shown(None))["gateways"] == 1


async def test_without_redis_nothing_waits_for_it() -> None:
    async with peers("redis://127.0.0.1:1", "a") as (a,):
        await a.samples([1.0])
        await a.exchange()
        await a.exchange()
        assert (await a.version())["samples"] == 1
        a.notes.close = a.notes._redis.aclose
