"""A function whose circuit is open has failed, for everybody who would wait for it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.url_platform import serving
from tests.integration.harness import Harness

FREE = {"usd_per_request": 0, "usd_per_gb_s": 0}
SLO = {"latency_ms": 300}


class Throttled:
    """A platform that asks for a long pause, after the first `good` calls."""

    def __init__(self, good: int = 0) -> None:
        self.good = good
        self.calls = 0

    async def handle(self, request: web.Request) -> web.Response:
        await request.read()
        self.calls += 1
        if self.calls <= self.good:
            return web.json_response({"outputs": []})
        return web.Response(status=429, headers={"retry-after": "20"})


async def well(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response({"model_name": "spare", "outputs": []})


def function(url: str, **settings: Any) -> dict[str, Any]:
    return {"kind": "http_function", "url": url, "price": FREE, **settings}


@pytest.mark.parametrize("max_concurrency", [1, 20], ids=["in its queue", "in flight"])
async def test_nobody_waits_in_line_beside_a_place_that_is_well(
    max_concurrency: int, tmp_path: Path
) -> None:
    throttled = Throttled(good=1)
    async with serving(throttled.handle) as bad, serving(well) as good:
        spare = {"name": "spare", "slo": SLO, "serverless": function(good)}
        model = {
            "slo": SLO,
            "serverless": function(bad, max_concurrency=max_concurrency),
        }
        async with Harness(tmp_path, model=model) as gateway:
            config = gateway.changed(fallback=["spare"])
            config["models"].append(spare)
            await gateway.write(config)
            assert (await gateway.ask("POST", "/v1/reload")).status == 200
            assert (await gateway.infer()).headers.get("x-router-model") is None
            began = time.monotonic()
            replies = await asyncio.gather(*(gateway.infer() for _ in range(12)))
            took_s = time.monotonic() - began
    assert {reply.status for reply in replies} == {200}
    assert {reply.headers["x-router-model"] for reply in replies} == {"spare"}
    assert took_s < 5.0, "far below the longest wait of 30 s"


async def test_alone_it_is_told_at_once_when_to_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The pause is longer than the objective allows, and no deadline asks to be held."""
    throttled = Throttled()
    async with serving(throttled.handle) as bad:
        model = {"slo": SLO, "serverless": function(bad, max_concurrency=1)}
        async with Harness(tmp_path, model=model) as gateway:
            began = time.monotonic()
            replies = await asyncio.gather(*(gateway.infer() for _ in range(12)))
            took_s = time.monotonic() - began
    assert {reply.status for reply in replies} == {503}
    assert all(15 <= int(reply.headers["retry-after"]) <= 21 for reply in replies)
    assert took_s < 5.0, "far below the longest wait of 30 s"
    assert throttled.calls == 1
    assert "function m-fn: its circuit opens, no calls for 20.0 s: the platform" in caplog.text
