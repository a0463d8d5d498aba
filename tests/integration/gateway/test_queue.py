"""Requests that wait for a replica: how many, whose turn it is, and what the others are told."""

import asyncio
import hashlib
import json
import resource
import sys
from collections import Counter
from typing import Any

import aiohttp
import pytest
import yaml

from tests.fakes.upstreams import Answer, Gate, Received, hangs_up, ok
from tests.integration.harness import INFER, Harness


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


async def _ended(gateway, tasks, count) -> None:
    await gateway.until(lambda: sum(task.done() for task in tasks) == count)


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
            await _ended(gateway, flood, number + 1)
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
        question = {"model": "m", "payload_bytes": 10, "headers": {"x-class": "low"}}
        told = (await gateway.ask("POST", "/v1/explain", question)).json()["trace"]
        shed = await tasks.pop("l2")
        refused = await ask("low", "l3")
        replica.gate.opened.set()
        served = await asyncio.gather(first, high, *tasks.values())
    assert (shed.status, refused.status) == (503, 503)
    assert {reply.status for reply in served} == {200}
    assert replica.served == ["first", "h1", "n1", "l1"]
    assert ([step["subject"] for step in told if step["stage"] == "priority"] == ["low"]) is (
        by == "rule"
    )


async def test_a_negative_priority_is_refused(tmp_path):
    async with Harness(tmp_path, warm=[ok()], model={"read_parameters": True}) as gateway:
        reply = await gateway.infer(b'{"parameters": {"priority": -1}}')
    assert reply.status == 400
    assert "priority" in reply.json()["error"]


class TestLimits:
    CLIENTS, SLOTS, PLACES = 1000, 4, 100

    @pytest.fixture
    async def crowd(self):
        """Asks a gateway with all clients at once."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def ask(url) -> tuple[int, str | None, str | None]:
                async with session.post(url + INFER, data=b"{}") as reply:
                    await reply.read()
                    told = reply.headers.get("x-router-error")
                    return reply.status, told, reply.headers.get("retry-after")

            def everybody(url) -> list[asyncio.Task[Any]]:
                return [asyncio.create_task(ask(url)) for _ in range(self.CLIENTS)]

            yield everybody
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    @pytest.mark.parametrize("fast_path", [True, False])
    async def test_they_are_exact_whoever_comes_at_once(self, tmp_path, crowd, fast_path):
        gate = Gate()
        pool = {
            "concurrency": self.SLOTS,
            "queue": {"max_requests": self.PLACES},
            "service_time_ms": 100,
        }
        server = {"fast_path": fast_path}
        async with Harness(tmp_path, warm=[gate], pool=pool, server=server) as gateway:
            tasks = crowd(gateway.url)
            held = self.SLOTS + self.PLACES
            async with asyncio.timeout(30):
                while sum(task.done() for task in tasks) < self.CLIENTS - held:
                    await asyncio.sleep(0.01)
                while gate.waiting < self.SLOTS:  # who has a slot may still wait for a connection
                    await asyncio.sleep(0.01)
            assert (gate.waiting, len(gateway.pool.queue)) == (self.SLOTS, self.PLACES)
            gate.opened.set()
            answers = Counter(await asyncio.gather(*tasks))
            assert (gateway.pool.in_flight, len(gateway.pool.queue)) == (0, 0)
        # 100 wait, and 4 at once are served in 100 ms: the last of them is through in 2.5 s.
        refused = (503, "queue_full", "3")
        assert answers == {(200, None, None): held, refused: self.CLIENTS - held}

    async def test_without_a_replica_they_are_told_so(self, tmp_path):
        pool = {"queue": {"max_requests": 0}, "startup": "7s"}
        async with Harness(tmp_path, warm=[ok()], pool=pool) as gateway:
            gateway.warm[0].is_ready = False
            await gateway.until(lambda: gateway.pool.ready == 0)
            reply = await gateway.infer()
        assert reply.status == 503
        assert reply.headers["x-router-error"] == "no_endpoint"
        assert reply.headers["retry-after"] == "7"


async def test_a_crowd_wakes_a_pool_that_sleeps_once(tmp_path):
    """Every request waits for the one replica that the first of them asked for."""
    (tmp_path / "replica.py").write_text(REPLICA)
    command = [sys.executable, str(tmp_path / "replica.py"), "{port}"]
    pool = {"kind": "process", "command": command, "startup": "1s"}
    config = {
        "models": [{"name": "m", "slo": {"latency_ms": 5000}, "pool": pool}],
        "controller": {"interval": "60s"},  # each further step is a wake-up
    }
    async with Harness(tmp_path, config=config) as gateway:
        controller: Any = gateway.gateway._controller
        stepping, woken = controller.stepping, 0

        def counted() -> Any:
            nonlocal woken
            woken += 1
            return stepping()

        controller.stepping = counted
        replies = await asyncio.gather(*(gateway.infer() for _ in range(90)))
    assert {reply.status for reply in replies} == {200}
    assert woken == 1
    assert len({reply.headers["x-router-endpoint"] for reply in replies}) == 1


REPLICA = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Replica(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Replica).serve_forever()
"""


class FourAtOnce:
    """A server that works on four requests at once, 20 ms on each; all others wait in it."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(4)
        self.inside = self.most_inside = 0

    async def __call__(self, _: Received) -> Answer:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            async with self._slots:
                await asyncio.sleep(0.02)
        finally:
            self.inside -= 1
        return Answer()


@pytest.mark.alone
@pytest.mark.parametrize("fast_path", [True, False])
async def test_the_concurrency_of_an_unknown_server_is_learned(tmp_path, fast_path):
    server_ = FourAtOnce()
    pool = {"adaptive": {"min": 1, "max": 64}}
    server = {"fast_path": fast_path}
    async with Harness(tmp_path, warm=[server_], pool=pool, server=server) as gateway:

        async def client() -> None:
            for _ in range(14):
                assert (await gateway.infer()).status == 200

        await asyncio.gather(*(client() for _ in range(24)))
        (endpoint,) = (await gateway.status())["endpoints"]
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
    assert 3 <= endpoint["capacity"] <= 8
    assert endpoint["capacity_is_learned"]
    assert f'router_pool_slots{{model="m"}} {endpoint["capacity"]}.0' in metrics
    assert server_.most_inside <= 10, "two dozen clients wanted in"


async def test_learning_can_be_switched_on_and_off(tmp_path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        for adaptive, capacity in (({"min": 2, "max": 9}, 2), (None, 4)):
            config = gateway.changed(pool={"adaptive": adaptive})
            if adaptive is None:
                del config["models"][0]["pool"]["adaptive"]
            await gateway.write(config)
            assert (await gateway.ask("POST", "/v1/reload")).status == 200
            await gateway.until(lambda: gateway.pool.ready == 1)
            assert [e.capacity for e in gateway.pool.endpoints.values()] == [capacity]


@pytest.mark.parametrize("refusal", [ok(status=503), hangs_up()], ids=["busy", "hangs up"])
async def test_who_failed_at_one_replica_waits_for_the_other(tmp_path, refusal):
    """One that refuses everything always has a free slot: nobody is sent back to it for that."""
    gate = Gate()
    async with Harness(tmp_path, warm=[refusal, gate], pool={"concurrency": 1}) as gateway:
        busy = asyncio.create_task(gateway.infer())
        await gateway.until(lambda: gate.waiting == 1)
        waits = asyncio.create_task(gateway.infer())
        await queued(gateway, 1)
        assert not waits.done()
        gate.opened.set()
        replies = await asyncio.gather(busy, waits)
    assert [reply.status for reply in replies] == [200, 200]
    assert replies[1].headers["x-router-attempts"] == "2"


async def test_a_long_upload_that_waits_does_not_fill_the_queue_with_what_has_not_come(tmp_path):
    """It announces as many bytes as the queue may hold, and keeps a window of them."""
    gate, size = Gate(), 64 << 20
    pool = {"concurrency": 2, "queue": {"max_bytes": "64MiB"}}
    async with Harness(tmp_path, warm=[gate], pool=pool) as gateway:
        busy = [asyncio.create_task(gateway.infer()) for _ in range(2)]
        await gateway.until(lambda: gate.waiting == 2)
        _, writer = await gateway.connect()
        head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size
        writer.write(head + bytes(1 << 20))
        await gateway.until(lambda: len(gateway.pool.queue) == 1)
        small = asyncio.create_task(gateway.infer())
        await gateway.until(lambda: len(gateway.pool.queue) == 2 or small.done())
        assert not small.done(), "it waits like any other"
        writer.transport.abort()
        gate.opened.set()
        assert {reply.status for reply in await asyncio.gather(*busy, small)} == {200}
