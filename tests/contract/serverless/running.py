"""A function as the gateway builds it from settings, with its credentials' loops running."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from router.assembly.runtime import assemble, new_parts
from router.backends.serverless.function import Function
from router.background import Background
from router.domain.decision import Verdict
from router.domain.errors import UpstreamRejectedError
from router.domain.ports import BackendResponse
from router.settings.loader import load_text
from router.settings.sources import read_bounded
from tests.fakes.builders import make_request

WAIT_S = 20.0
MODEL = "echo"


@asynccontextmanager
async def function_of(serverless: dict[str, Any], folder: Path) -> AsyncIterator[Function]:
    """The function of a model with these `serverless` settings; paths start at `folder`."""
    model = {"name": MODEL, "slo": {"latency_ms": 1000}, "serverless": serverless}
    loaded = load_text(
        yaml.safe_dump({"models": [model]}),
        environment=dict(os.environ),
        base_dir=folder,
        read_file=read_bounded,
    )
    parts, background = new_parts(), Background()
    runtime = assemble(loaded, parts)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(parts.upstream.close)
        stack.push_async_callback(background.stop_all)
        for number, credential in enumerate(runtime.credentials.values()):
            background.start(f"credential {number}", credential.run)
            async with asyncio.timeout(WAIT_S):
                await credential.was_tried.wait()
        function = runtime.models[MODEL].serverless
        assert function is not None
        yield function


async def call(
    function: Function, body: bytes = b"", *, timeout_s: float = WAIT_S, **facts: Any
) -> BackendResponse:
    """One call through a lease, as the director makes it; the whole body is collected."""
    facts = {"payload_bytes": len(body), "path": f"/v2/models/{MODEL}/infer", **facts}
    request = make_request(**facts)
    lease = function.try_reserve(request, 0.0)
    assert lease is not None
    verdict, response = Verdict.FAILED, None
    try:
        response = await lease.send(request, body, timeout_s)
        parts = [response.body]
        if response.rest is not None:
            parts += [part async for part in response.rest]
        response.body, response.rest = b"".join(parts), None
        verdict = Verdict.OK
    except UpstreamRejectedError:
        verdict = Verdict.REJECTED
        raise
    finally:
        lease.release(verdict, 0.0, response)
    return response
