"""Requests in the Open Inference Protocol, as many as wanted, and what became of each."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import aiohttp
import numpy as np


@dataclass(frozen=True)
class Outcome:
    """One answer."""

    status: int
    backend: str | None
    reason: str | None
    endpoint: str | None
    attempts: str | None
    cold: str | None
    body: bytes


def floats(
    name: str, values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
) -> dict[str, object]:
    tensor = {
        "name": name,
        "shape": list(values.shape),
        "datatype": "FP32",
        "data": values.ravel().tolist(),
    }
    return {"inputs": [tensor]}


MLP = floats("x", np.linspace(-1, 1, 8, dtype=np.float32)[np.newaxis])


def slow(milliseconds: float) -> dict[str, object]:
    """A request that keeps a core busy for about so long."""
    return floats("x", np.array([milliseconds], np.float32))


async def infer(
    session: aiohttp.ClientSession,
    url: str,
    model: str,
    request: dict[str, object] | bytes,
    headers: dict[str, str] | None = None,
) -> Outcome:
    payload = json.dumps(request).encode() if isinstance(request, dict) else request
    path = f"/v2/models/{model}/infer"
    async with session.post(url + path, headers=_typed(headers), data=BytesIO(payload)) as response:
        content = await response.read()
        found = response.headers
        return Outcome(
            response.status,
            found.get("x-router-backend"),
            found.get("x-router-reason"),
            found.get("x-router-endpoint"),
            found.get("x-router-attempts"),
            found.get("x-router-cold-start"),
            content,
        )


async def steady(
    session: aiohttp.ClientSession,
    url: str,
    model: str,
    request: dict[str, object],
    rps: float,
    seconds: float,
) -> list[Outcome]:
    """An open loop of so many requests per second."""
    tasks = []
    for _ in range(int(rps * seconds)):
        tasks.append(asyncio.create_task(infer(session, url, model, request)))
        await asyncio.sleep(1 / rps)
    return await asyncio.gather(*tasks)


def count(outcomes: Sequence[Outcome]) -> Counter[tuple[int, str | None, str | None]]:
    return Counter((found.status, found.backend, found.reason) for found in outcomes)


def _typed(headers: dict[str, str] | None) -> dict[str, str]:
    return {"content-type": "application/json", **(headers or {})}
