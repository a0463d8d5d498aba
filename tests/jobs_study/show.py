"""A batch through OpenAI's own client, while the gateway and its Redis are killed over and over."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import openai
import psutil

from router.backends.child_process import free_port
from tests.fakes.upstreams import Answer, Received, Upstream, running
from tests.fakes.valkey import ValkeyProcess
from tests.integration.end_to_end.gateway import GatewayProcess

CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_BAD_EVERY = 100
_AT_ONCE = 16
_POLL_S = 0.05
_WITHIN_S = 1800.0


@dataclass
class Shown:
    """What came of it; `wrong` has what should not be, in words."""

    lines: int
    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    gateway_mb: float = 0.0
    wrong: list[str] = field(default_factory=list)


async def counts(received: Received) -> Answer:
    """The model: what it answers follows from what it is asked, and from nothing else."""
    asked = json.loads(received.body)
    answer = {"model": asked["model"], "square": asked["n"] ** 2, "float": asked["n"] / 7}
    return Answer(body=json.dumps(answer).encode(), headers=(("content-type", "application/json"),))


def body_of(number: int) -> dict[str, Any]:
    """What line `number` asks."""
    return {"model": "m", "messages": [{"role": "user", "content": "x" * 200}], "n": number}


def is_bad(number: int) -> bool:
    """Whether line `number` is no valid request."""
    return number % _BAD_EVERY == 0


def line_of(number: int) -> bytes:
    """Line `number` of the file."""
    if is_bad(number):
        return b"{no JSON"
    asked = {"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body_of(number)}
    return json.dumps(asked).encode()


async def show(folder: Path, lines: int, kills: int, fsync: str = "always") -> Shown:
    """Run such a batch; the gateway and Redis are killed (-9) so many times each."""
    shown = Shown(lines)
    redis = ValkeyProcess(folder / "redis", appendonly="yes", appendfsync=fsync)
    redis.start()
    try:
        async with running(Upstream(counts)) as upstream:
            gateway = GatewayProcess(folder / "gateway", _config(upstream.url, redis.url))
            await asyncio.to_thread(gateway.start)
            try:
                await _through(gateway, redis, kills, shown)
            finally:
                await asyncio.to_thread(gateway.ensure_gone)
    finally:
        redis.stop()
    return shown


def _config(upstream: str, redis: str) -> dict[str, Any]:
    pool = {"kind": "static", "urls": [upstream], "concurrency": 16, "health": {"interval": "50ms"}}
    return {
        "server": {"listen": f"127.0.0.1:{free_port()}"},
        "jobs": {"directory": "jobs", "redis_url": redis, "lease": "1s", "concurrency": 64},
        "models": [{"name": "m", "slo": {"latency_ms": 5000}, "pool": pool}],
    }


async def _through(gateway: GatewayProcess, redis: ValkeyProcess, kills: int, shown: Shown) -> None:
    content = b"\n".join(map(line_of, range(1, shown.lines + 1)))
    async with _client(gateway) as client:
        began = time.monotonic()
        file = await client.files.create(file=("in.jsonl", content), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        )
        batch = await _ended(client, batch.id, gateway, redis, kills, shown)
        shown.seconds = time.monotonic() - began
        assert gateway.process is not None
        shown.gateway_mb = psutil.Process(gateway.process.pid).memory_info().rss / 1e6
        if batch.status != "completed":
            shown.wrong.append(f"the batch is {batch.status}: {batch.errors}")
            return
        output = (await client.files.content(batch.output_file_id)).content.splitlines()
        errors = (await client.files.content(batch.error_file_id)).content.splitlines()
    shown.wrong += _wrong_errors(errors, shown.lines)
    shown.wrong += await _wrong_output(output, shown.lines, gateway.url)


@asynccontextmanager
async def _client(gateway: GatewayProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="any", base_url=f"{gateway.url}/v1") as client:
        yield client


async def _ended(
    client: openai.AsyncOpenAI, batch_id: str, gateway: GatewayProcess, redis: ValkeyProcess,
    kills: int, shown: Shown,
) -> Any:  # fmt: skip
    """The batch when it has ended; the kills are spread over its lines, in the middle of acks."""
    victims = ["gateway", "redis"] * kills
    async with asyncio.timeout(_WITHIN_S):
        while True:
            try:
                batch = await client.batches.retrieve(batch_id)
            except (openai.APIConnectionError, openai.InternalServerError):
                await asyncio.sleep(_POLL_S)
                continue
            if batch.status in {"completed", "failed", "expired", "cancelled"}:
                return batch
            done = batch.request_counts.completed if batch.request_counts is not None else 0
            killed = shown.kills.total()
            if killed < len(victims) and done > shown.lines * (killed + 1) / (len(victims) + 2):
                await _kill(victims[killed], gateway, redis)
                shown.kills[victims[killed]] += 1
            await asyncio.sleep(_POLL_S)


async def _kill(victim: str, gateway: GatewayProcess, redis: ValkeyProcess) -> None:
    if victim == "redis":
        redis.kill()
        await asyncio.to_thread(redis.start)
        return
    await asyncio.to_thread(gateway.ensure_gone)  # by SIGKILL
    await asyncio.to_thread(gateway.start)


def _wrong_errors(found: Sequence[bytes], lines: int) -> list[str]:
    numbers = [json.loads(line)["error"]["line"] for line in found]
    wanted = [number for number in range(1, lines + 1) if is_bad(number)]
    return [] if numbers == wanted else [f"errors are of lines {numbers[:20]}..."]


async def _wrong_output(found: Sequence[bytes], lines: int, url: str) -> list[str]:
    """Lines that are missing, stand twice or elsewhere, or differ from what a call is answered."""
    wanted = [number for number in range(1, lines + 1) if not is_bad(number)]
    answers = [json.loads(line) for line in found]
    ids = [answer["custom_id"] for answer in answers]
    if ids != [f"c{number}" for number in wanted]:
        often = [name for name, times in Counter(ids).items() if times > 1]
        return [f"{len(ids)} lines for {len(wanted)}; more than once: {often[:20]}"]
    free = asyncio.Semaphore(_AT_ONCE)
    async with aiohttp.ClientSession() as session:

        async def differs(number: int, answer: Any) -> bool:
            async with free, session.post(url + CHAT, json=body_of(number)) as direct:
                said = {"status_code": direct.status, "body": await direct.json()}
            return {name: answer["response"][name] for name in said} != said

        checks = [differs(*pair) for pair in zip(wanted, answers, strict=True)]
        different = await asyncio.gather(*checks)
    return [f"line {n} is another answer" for n, one in zip(wanted, different, strict=True) if one]
