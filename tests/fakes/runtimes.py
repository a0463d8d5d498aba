"""Runtimes assembled from configuration texts, as the gateway does it, with nothing started."""

import asyncio
from pathlib import Path
from random import Random
from textwrap import dedent
from typing import Any

from router.assembly.runtime import Parts, assemble
from router.backends.pool.confinement import Cores
from router.runtime import ModelRuntime, Runtime
from router.signals.memory import SignalBook
from router.upstream.client import UpstreamClient
from tests.fakes.builders import FakeClock
from tests.unit.settings.loading import load_config

BOTH = """
models:
  - name: m
    slo: {latency_ms: 250}
    serverless: {kind: local}
    pool: {kind: static, urls: ["http://127.0.0.1:1"], concurrency: 4}
"""


def make_parts(clock: FakeClock) -> Parts:
    return Parts(
        upstream=UpstreamClient(clock=clock),
        book=SignalBook(),
        sockets=Path("/nonexistent"),
        clock=clock,
        wall_clock=lambda: 1.7e9,
        sleep=asyncio.sleep,
        rng=Random(1),
        cores=Cores(()),
    )


def make_runtime(
    text: str = BOTH,
    clock: FakeClock | None = None,
    files: dict[str, Any] | None = None,
    previous: Runtime | None = None,
) -> Runtime:
    parts = make_parts(clock or FakeClock())
    return assemble(load_config(dedent(text), files=files), parts, previous)


def make_model(text: str = BOTH, clock: FakeClock | None = None) -> ModelRuntime:
    return make_runtime(text, clock).models["m"]
