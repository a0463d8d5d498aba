"""A gateway with some of everything that the page shows, and clients that use it."""

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.upstreams import Answer, Behaviour, Received, Upstream, hangs_up, ok, running
from tests.integration.harness import Harness

TENANTS = ("checkout", "search", "batch")
_CHAT = b'{"model": "chat", "messages": [{"role": "user", "content": "How are you?"}]}'


def keys() -> list[dict[str, Any]]:
    """A key of each tenant; that of `batch` has a limit."""
    return [
        {
            "name": f"{tenant}-key", "tenant": tenant,
            "sha256": hashlib.sha256(tenant.encode()).hexdigest(),
            **({"rate_per_s": 0.1, "burst": 3} if tenant == "batch" else {}),
        }
        for tenant in TENANTS
    ]  # fmt: skip


def _tensor(name: str, values: list[float]) -> dict[str, Any]:
    return {"name": name, "shape": [1, len(values)], "datatype": "FP32", "data": values}


def question(mean: float) -> bytes:
    """A request of `fraud` whose numbers are around that."""
    values = [round(random.gauss(mean, 1.0), 3) for _ in range(3)]
    return json.dumps({"inputs": [_tensor("amount", values)]}).encode()


async def _classifies(received: Received) -> Answer:
    mean = sum(json.loads(received.body)["inputs"][0]["data"]) / 3
    body = json.dumps({"model_name": "fraud", "outputs": [_tensor("p", [mean, 1 - mean])]})
    return Answer(body=body.encode())


async def _chats(_: Received) -> Answer:
    tokens = random.randint(20, 400)
    usage = {"prompt_tokens": 31, "completion_tokens": tokens, "total_tokens": 31 + tokens}
    return Answer(body=json.dumps({"choices": [], "usage": usage}).encode())


class Staged(Harness):
    """Model `m` as ever; `fraud` is watched, has a canary and a shadow; `chat` counts tokens."""

    def __init__(self, folder: Path, others: dict[str, Upstream], **settings: Any) -> None:
        (folder / "keys.yaml").write_text(yaml.safe_dump(keys()))
        config = {
            "auth": {"api_keys_file": "keys.yaml"},
            "budgets": [
                {"tenant": "search", "usd_per_day": 0.08, "usd_per_month": 1},
                {"tenant": "checkout", "usd_per_day": 0.02},
            ],
            "jobs": {"directory": "jobs", "attempts": 1},
            "rules": [
                {"name": "try-next", "match": {"model": "fraud"}, "route": "auto",
                 "canary": {"model": "fraud-next", "share": 20}},
                {"name": "compare", "match": {"model": "chat"}, "route": "auto",
                 "shadow": {"model": "chat-next"}},
            ],
            **settings.pop("config", {}),
        }  # fmt: skip
        super().__init__(folder, config=config, **settings)
        self.others = others

    def _make_config(self) -> dict[str, Any]:
        made = super()._make_config()
        made["models"] += [self._model(name, upstream) for name, upstream in self.others.items()]
        return made

    def _model(self, name: str, upstream: Upstream) -> dict[str, Any]:
        quality = {"sample": 100, "task": "classification", "baseline": {"first": 100}}
        return {
            "name": name, "slo": {"latency_ms": 500},
            "pool": {
                "kind": "static", "urls": [upstream.url], "concurrency": 4,
                "price_per_replica_hour": 1.2, "health": {"interval": "50ms", "timeout": "2s"},
            },
            **({"quality": quality} if name == "fraud" else {}),
        }  # fmt: skip


@asynccontextmanager
async def staged(folder: Path, **settings: Any) -> AsyncIterator[Staged]:
    """The gateway, with replicas of all models."""
    behaviours: dict[str, Behaviour] = {
        "fraud": _classifies, "fraud-next": _classifies, "chat": _chats, "chat-next": ok(),
        "broken": hangs_up(),
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        others = {}
        for name, behaviour in behaviours.items():
            others[name] = await stack.enter_async_context(running(Upstream(behaviour)))
        pool = {"price_per_replica_hour": 0.4}
        gateway = Staged(
            folder, others, warm=[ok(), ok()], function=ok(), pool=pool, **settings
        )  # fmt: skip
        yield await stack.enter_async_context(gateway)


async def send(gateway: Staged, rounds: int = 20, mean: float = 0.5) -> None:
    """Some of everything: three tenants, both places, refusals, tokens, labels, a job that dies."""
    for number in range(rounds):
        tenant = {"authorization": f"Bearer {TENANTS[number % 3]}"}
        where = {"x_router_backend": "serverless"} if number % 3 == 0 else {}
        paying = {"authorization": f"Bearer {TENANTS[number % 2]}"}
        await asyncio.gather(
            *(gateway.infer(b"{}", **tenant, **where) for _ in range(1 + number % 3)),
            gateway.infer(_CHAT, "/v1/chat/completions", **paying),
            _judged(gateway, f"q-{random.getrandbits(64):x}", mean, paying),
        )
    dead = {"prefer": "respond-async", "authorization": f"Bearer {TENANTS[0]}"}
    await gateway.infer(b"{}", "/v2/models/broken/infer", **dead)


async def _judged(gateway: Staged, request_id: str, mean: float, headers: dict[str, str]) -> None:
    await gateway.infer(
        question(mean), "/v2/models/fraud/infer", x_request_id=request_id, **headers
    )
    told = {"request_id": request_id, "correct": random.random() < 0.9}
    await gateway.infer(json.dumps(told).encode(), "/v1/feedback", **headers)
