"""Two hundred keys and a thousand models: each key reaches its own, and memory is bounded."""

import asyncio
import hashlib
from random import Random
from typing import Any

import yaml

from tests.fakes.upstreams import Upstream, ok, running
from tests.integration.harness import Harness

KEYS, MODELS, ASKED = 200, 1000, 3000
PARTS = 20
"""A key is for the models of one part in so many, by a pattern."""


def models(url: str) -> list[dict[str, Any]]:
    pool = {"kind": "static", "urls": [url], "concurrency": 64, "health": {"interval": "5s"}}
    return [
        {"name": f"part{number % PARTS}-{number}", "slo": {"latency_ms": 5000}, "pool": pool}
        for number in range(MODELS)
    ]


async def test_each_key_reaches_its_own_models_and_what_is_remembered_is_bounded(tmp_path):
    keys = [
        {
            "name": f"k{number}", "sha256": hashlib.sha256(b"key-%d" % number).hexdigest(),
            "tenant": f"t{number}", "models": [f"part{number % PARTS}-*"],
        }
        for number in range(KEYS)
    ]  # fmt: skip
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump(keys))
    draw = Random(7)
    async with running(Upstream(ok())) as upstream:
        config = {"auth": {"api_keys_file": "keys.yaml"}, "models": models(upstream.url)}
        async with Harness(tmp_path, config=config) as gateway:
            runtime: Any = gateway.gateway._runtime.current
            fast_path: Any = gateway.gateway._data.fast_path
            async with asyncio.timeout(60):
                while not all(model.pool.ready for model in runtime.models.values()):
                    await asyncio.sleep(0.1)

            async def client(number: int) -> list[tuple[bool, int]]:
                answers = []
                for _ in range(ASKED // 20):
                    key, model = draw.randrange(KEYS), draw.randrange(MODELS)
                    reply = await gateway.infer(
                        path=f"/v2/models/part{model % PARTS}-{model}/infer",
                        x_api_key=f"key-{key}", x_request_id=f"{number}",
                    )  # fmt: skip
                    answers.append((key % PARTS == model % PARTS, reply.status))
                    # The same key again, for a model that is its own: most are asked for once only.
                    own = model - model % PARTS + key % PARTS
                    reply = await gateway.infer(
                        path=f"/v2/models/part{own % PARTS}-{own}/infer", x_api_key=f"key-{key}"
                    )
                    answers.append((True, reply.status))
                return answers

            found = [
                pair for each in await asyncio.gather(*map(client, range(20))) for pair in each
            ]
            known = len(fast_path._known._heads)
            served = len(upstream.received)
    assert {status for may, status in found if may} == {200}
    assert {status for may, status in found if not may} == {403}
    assert served == sum(may for may, _ in found), "what is refused reaches nobody"
    assert 0 < known <= 2048
