"""Requests that wait for a replica: how many, whose turn it is, and what the others are told."""

import asyncio
import hashlib
import json
from collections import Counter
from typing import Any

import pytest
import yaml

from tests.fakes.upstreams import Answer, Gate, Received, ok
from tests.integration.harness import Harness


class OneByOne:
    """Lets one request after another go, in the order in which they came; remembers their ids."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.gate = Gate()

    async def __call__(self, received: Received) -> Answer:
        self.served.append(received.headers["x-request-id"])
        return await self.gate(received)


async def queued(gateway, count) -> None:
    await gateway.until(lambda: len(gateway.pool.queue) == count)


def keys(folder, **weights) -> Any:
    entries = [
        {
            "name": name,
            "tenant": name,
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
            "weight": weight,
        }
        for name, weight in weights.items()
    ]
    (folder / "keys.yaml").write_text(yaml.safe_dump(entries))
    return {"auth": {"api_keys_file": "keys.yaml"}}


async def test_one_tenants_flood_takes_neither_all_places_nor_all_turns(tmp_path):
    replica = OneByOne()
    pool = {"concurrency": 1, "queue": {"max_requests": 6}}
    config = keys(tmp_path, flood=1, quiet=1)
    async with Harness(tmp_path, warm=[replica], pool=pool, config=config) as gateway:
        first = asyncio.create_task(gateway.infer(x_api_key="flood", x_request_id="f-first"))
        await gateway.until(lambda: replica.gate.waiting == 1)
        flood = [
            asyncio.create_task(gateway.infer(x_api_key="flood", x_request_id=f"f{n}"))
            for n in range(6)
        ]
        await queued(gateway, 6)
        quiet = []
        for number in range(3):
            quiet.append(
                asyncio.create_task(gateway.infer(x_api_key="quiet", x_request_id=f"q{number}"))
            )
            await gateway.until(lambda n=number: sum(task.done() for task in flood) == n + 1)
        replica.gate.opened.set()
        replies = await asyncio.gather(*quiet, first, *flood)
    assert Counter(reply.status for reply in replies) == {200: 7, 503: 3}
    assert [reply.status for reply in replies[:4]] == [200] * 4
    assert sorted(name[0] for name in replica.served[1:3]) == ["f", "q"], "they take turns"
    shed = next(reply for reply in replies if reply.status == 503)
    assert "place went to another" in shed.json()["error"]


@pytest.mark.parametrize("by", ["rule", "parameter"])
async def test_the_highest_class_is_served_first_and_the_lowest_shed_first(tmp_path, by):
    replica = OneByOne()
    pool = {"concurrency": 1, "queue": {"max_requests": 3}}
    rules = [
        {
            "name": name,
            "match": {"header": {"x-class": name}},
            "route": "auto",
            "priority": name,
        }
        for name in ("high", "low")
    ]
    model = {"read_parameters": by == "parameter"}
    config = {"rules": rules if by == "rule" else []}
    numbers = {"high": 1, "normal": 0, "low": 3}
    async with Harness(tmp_path, warm=[replica], pool=pool, model=model, config=config) as gateway:

        async def ask(name, request_id) -> Any:
            body = json.dumps({"parameters": {"priority": numbers[name]}}).encode()
            return await gateway.infer(body, x_class=name, x_request_id=request_id)

        first = asyncio.create_task(ask("low", "first"))
        await gateway.until(lambda: replica.gate.waiting == 1)
        tasks = {}
        for waiting, (name, request_id) in enumerate(
            [("low", "l1"), ("normal", "n1"), ("low", "l2")], 1
        ):
            tasks[request_id] = asyncio.create_task(ask(name, request_id))
            await queued(gateway, waiting)
        high = asyncio.create_task(ask("high", "h1"))
        shed = await tasks.pop("l2")
        refused = await ask("low", "l3")
        replica.gate.opened.set()
        served = await asyncio.gather(first, high, *tasks.values())
    assert (shed.status, refused.status) == (503, 503)
    assert {reply.status for reply in served} == {200}
    assert replica.served == ["first", "h1", "n1", "l1"]


async def test_a_negative_priority_is_refused(tmp_path):
    async with Harness(tmp_path, warm=[ok()], model={"read_parameters": True}) as gateway:
        reply = await gateway.infer(b'{"parameters": {"priority": -1}}')
    assert reply.status == 400
    assert "priority" in reply.json()["error"]
