"""The demo's traffic: real inputs in real patterns. Each scene yields what it did as it goes.

Decides what is sent and when; showing it is `screen`'s job.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import aiohttp
import numpy as np
import yaml

from workers.demo.calls import Arrays, Call, infer
from workers.demo.inputs import (
    LARGE_SIDE,
    magika_answer,
    magika_input,
    minilm_embedding,
    minilm_input,
    similarity,
    textdet_input,
    textdet_regions,
)
from workers.demo.wordpiece import load_wordpiece

_SENTENCES = (
    "The parcel has not arrived yet.",
    "My package is still missing.",
    "How do I reset my password?",
)


@dataclass(frozen=True, slots=True)
class Step:
    """A finished call and what its answer means to a person."""

    call: Call
    meaning: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A pattern of traffic: its title, what to look for, and its steps."""

    title: str
    expectation: str
    play: Callable[[], AsyncIterator[Step]]


class Inputs:
    """What the scenes send: files of a repository and of the models, sentences, drawn words."""

    def __init__(self, repository: Path, models: Path) -> None:
        self._labels = yaml.safe_load((models / "magika/1/model.yaml").read_text())["labels"]
        self._tokens = load_wordpiece(models / "minilm/1/tokenizer.json")
        kinds = ("*.py", "*.md", "Makefile", "config/*.yaml", "pyproject.toml", "router/*.py")
        found = [path for kind in kinds for path in repository.glob(kind)]
        # Where the folder has none of these, the models have some, and so has this program.
        found += [*models.glob("*/1/*.json"), *models.glob("*/1/*.yaml"), Path(__file__)]
        files = sorted(set(found))
        self._files: Iterator[Path] = cycle(path for path in files if path.stat().st_size > 64)

    def file(self) -> tuple[Path, Arrays]:
        """The next file and its features."""
        path = next(self._files)
        return path, magika_input(path.read_bytes())

    def file_type(self, outputs: Arrays) -> str:
        """What the model takes a file for."""
        return str(magika_answer(outputs, self._labels))

    def sentence(self, text: str) -> Arrays:
        """The tokens of a sentence."""
        return minilm_input(text, self._tokens)


class Traffic:
    """Plays scenes against one gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str, inputs: Inputs) -> None:
        self._infer = partial(infer, session, url)
        self._inputs = inputs

    def scenes(self, steady_s: float) -> list[Scene]:
        """All scenes, in order; the steady one lasts `steady_s` seconds."""
        return [
            Scene("sporadic", "a function answers; the first call is cold", self._sporadic),
            Scene(
                "steady",
                "a replica is started once it pays, and takes over",
                lambda: self._open_loop(rps=60, seconds=steady_s),
            ),
            Scene(
                "burst",
                "what the replicas cannot take in time spills over to the function",
                lambda: self._open_loop(rps=600, seconds=0.5),
            ),
            Scene(
                "large", "pictures over the function's limit are held for a replica", self._large
            ),
        ]

    async def _sporadic(self) -> AsyncIterator[Step]:
        for _ in range(4):
            yield await self._classify_file()
            await asyncio.sleep(0.7)
        first, *others = [await self._embed(text) for text in _SENTENCES]
        yield Step(first[0], f"{_SENTENCES[0]!r} understood")
        for (call, embedding), text in zip(others, _SENTENCES[1:], strict=True):
            close = similarity(first[1], embedding) if embedding.size and first[1].size else 0.0
            yield Step(call, f"{text!r} is {close:.0%} like the first")

    async def _open_loop(self, rps: float, seconds: float) -> AsyncIterator[Step]:
        """Arrivals as a Poisson process, whether or not earlier ones have been answered."""
        rng = np.random.default_rng(7)
        loop = asyncio.get_running_loop()
        running: set[asyncio.Task[Step]] = set()
        due = started = loop.time()
        while due < started + seconds or running:
            if due < started + seconds:
                due += float(rng.exponential(1 / rps))
                running.add(asyncio.create_task(self._classify_file()))
                await asyncio.sleep(max(0.0, due - loop.time()))
            else:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task.done()]:
                running.discard(task)
                yield task.result()

    async def _large(self) -> AsyncIterator[Step]:
        words = ["HYBRID", "ROUTER", "2026"]
        small = await self._infer("textdet", textdet_input(words))
        yield _found(small, "small picture")
        pictures = [self._infer("textdet", textdet_input(words, LARGE_SIDE)) for _ in range(3)]
        for answer in asyncio.as_completed(pictures):
            yield _found(await answer, "large picture")

    async def _classify_file(self) -> Step:
        path, features = self._inputs.file()
        call = await self._infer("magika", features)
        told = self._inputs.file_type(call.outputs) if call.outputs else call.error
        return Step(call, f"{path.name}: {told}")

    async def _embed(
        self, text: str
    ) -> tuple[Call, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
        call = await self._infer("minilm", self._inputs.sentence(text))
        if not call.outputs:
            return call, np.zeros(0, np.float32)
        return call, minilm_embedding(call.outputs)


def _found(call: Call, what: str) -> Step:
    told = f"{len(textdet_regions(call.outputs))} words found" if call.outputs else call.error
    return Step(call, f"{what}: {told}")
