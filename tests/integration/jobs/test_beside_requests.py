"""Jobs beside requests: who goes first, and what is told of jobs that wait."""

import asyncio
import time
from typing import Any

from tests.fakes.upstreams import Answer, Gate, Received, ok
from tests.integration.harness import INFER, Harness
from tests.integration.jobs.test_later import ended

LATER = {"prefer": "respond-async"}
JOBS = {"jobs": {"directory": "jobs", "lease": "1s", "concurrency": 64}}
SLOTS, CLIENTS = 60, 42


class Model:
    """Works on each request for a while; holds all of them back until it is let go."""

    def __init__(self) -> None:
        self.held = 0
        self.let_go = asyncio.Event()

    async def __call__(self, _: Received) -> Answer:
        self.held += 1
        await self.let_go.wait()
        await asyncio.sleep(0.02)
        return Answer()


async def requests_until(gateway: Harness, done: asyncio.Event, statuses: list[int]) -> None:
    """A client that asks again as soon as it is answered."""
    while not done.is_set():
        statuses.append((await gateway.infer(b"{}")).status)


async def all_ended(gateway: Harness, count: int) -> None:
    async with asyncio.timeout(60):
        while True:
            listed = await gateway.request("GET", "/v1/jobs?status=done&limit=1000")
            if len(listed.json()["data"]) == count:
                return
            await asyncio.sleep(0.1)


async def test_no_request_waits_for_a_job_in_a_pool_of_which_seventy_percent_are_used(tmp_path):
    model = Model()
    async with Harness(tmp_path, warm=[model], pool={"concurrency": SLOTS}, config=JOBS) as gateway:
        done, statuses = asyncio.Event(), list[int]()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(requests_until(gateway, done, statuses))
            await gateway.until(lambda: model.held == CLIENTS)
            posts = [gateway.request("POST", INFER, b"{}", LATER) for _ in range(50)]
            assert {one.status for one in await asyncio.gather(*posts)} == {202}
            jobs = gateway.gateway._jobs
            assert jobs is not None
            # Whoever looks after jobs has seen how many requests there may be at once.
            await gateway.until(lambda: jobs.runner.bench("m").caution.peak >= CLIENTS)
            model.let_go.set()
            before = len(statuses)
            await all_ended(gateway, 50)
            done.set()
        assert set(statuses) == {200}
        assert len(statuses) > before + CLIENTS  # they went on all the time
        assert gateway.pool.delayed_by_jobs == 0
        gateway.pool.delayed_by_jobs = 3
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert 'router_requests_delayed_by_jobs_total{model="m"} 3.0' in metrics


async def test_a_job_does_not_begin_while_a_request_waits(tmp_path):
    gate = Gate()
    async with Harness(tmp_path, warm=[gate], pool={"concurrency": 1}, config=JOBS) as gateway:
        requests = [asyncio.create_task(gateway.infer(b"request")) for _ in range(3)]
        await gateway.until(lambda: gate.waiting == 1 and len(gateway.pool.queue) == 2)
        taken = await gateway.request("POST", INFER, b"job", LATER)
        gate.opened.set()
        await asyncio.gather(*requests)
        await ended(gateway, taken.headers["location"])
        assert [one.body for one in gateway.warm[0].received] == [b"request"] * 3 + [b"job"]


async def waits(gateway: Harness, window_s: float) -> tuple[str, dict[str, Any]]:
    """A job that nobody has a slot for, and its document once something is expected of it."""
    headers = {**LATER, "x-router-deadline-ms": str(int(window_s * 1e3))}
    taken = await gateway.request("POST", INFER, b"job", headers)
    assert taken.status == 202, taken.body
    while True:
        document = (await gateway.request("GET", taken.headers["location"])).json()
        if "expected_at" in document:
            return taken.headers["location"], document
        await asyncio.sleep(0.01)


async def test_a_job_that_waits_tells_when_it_will_be_done_and_for_how_much(tmp_path):
    gate = Gate()
    async with Harness(
        tmp_path, warm=[gate], function=ok(), pool={"concurrency": 1}, config=JOBS
    ) as gateway:  # fmt: skip
        request = asyncio.create_task(gateway.infer(b"request"))
        await gateway.until(lambda: gate.waiting == 1)
        there, document = await waits(gateway, 600.0)
        assert time.time() <= document["expected_at"] <= document["due_at"] + 1
        assert document["expected_cost_usd"] >= 0.0
        model = gateway.gateway._runtime.current.models["m"]
        await gateway.until(lambda: model.sizing.deferral.work > 0)
        status = (await gateway.ask("GET", "/v1/status")).json()
        assert status["models"][0]["jobs"]["work_replica_s"] > 0
        question = {"model": "m", "payload_bytes": 2}
        explained = (await gateway.ask("POST", "/v1/explain", question)).json()
        assert explained["trace"][-1]["stage"] == "jobs"
        gate.opened.set()
        await request
        document = await ended(gateway, there)
        assert "expected_at" not in document
        assert document["cost_usd"] >= 0.0


async def test_a_job_that_can_wait_no_longer_goes_to_the_function(tmp_path):
    gate = Gate()
    async with Harness(
        tmp_path, warm=[gate], function=ok(b"from the function"), pool={"concurrency": 1},
        config=JOBS,
    ) as gateway:  # fmt: skip
        request = asyncio.create_task(gateway.infer(b"request"))
        await gateway.until(lambda: gate.waiting == 1)
        there, _ = await waits(gateway, 3.0)
        document = await ended(gateway, there)
        assert (document["status"], document["cost_usd"] > 0) == ("done", True)
        assert (await gateway.request("GET", document["there"])).body == b"from the function"
        gate.opened.set()
        await request
