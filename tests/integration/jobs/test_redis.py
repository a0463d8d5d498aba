"""Jobs of gateways that share a Redis, which is killed while they work."""

import asyncio
from pathlib import Path

import pytest

from router.domain.errors import NotDurableError
from router.jobs.records import State
from router.jobs.redis_store import RedisStore
from tests.fakes.upstreams import Answer, Gate, Received
from tests.fakes.valkey import ValkeyProcess
from tests.integration.harness import INFER, Harness

LATER = {"prefer": "respond-async"}


async def echoes(received: Received) -> Answer:
    return Answer(body=received.body)


async def test_jobs_outlive_a_killed_redis_and_each_has_its_answer_once(tmp_path: Path):
    server = ValkeyProcess(tmp_path / "valkey", appendonly="yes", appendfsync="always")
    server.start()
    gate = Gate(echoes)
    jobs = {"directory": "jobs", "redis_url": server.url, "lease": "1s"}
    try:
        async with Harness(tmp_path, warm=[gate], config={"jobs": jobs}) as gateway:
            taken = [await gateway.request("POST", INFER, b"%d" % n, LATER) for n in range(12)]
            assert [one.status for one in taken] == [202] * 12
            await gateway.until(lambda: gate.waiting == 4)
            server.kill()
            gate.opened.set()  # what is answered now cannot be written down
            jobs_here = gateway.gateway._jobs
            assert jobs_here is not None
            runner = jobs_here.runner
            await gateway.until(lambda: not runner.in_flight)
            refused = await gateway.request("POST", INFER, b"late", LATER)
            assert (refused.status, refused.headers["x-router-error"]) == (503, "not_durable")
            await asyncio.to_thread(server.start)
            await gateway.until(lambda: runner.ended[State.DONE] == 12)
            for number, one in enumerate(taken):
                result = f"{one.headers['location']}/result"
                assert (await gateway.request("GET", result)).body == b"%d" % number
    finally:
        server.stop()


async def test_a_redis_that_keeps_nothing_takes_no_jobs(tmp_path: Path):
    server = ValkeyProcess(tmp_path / "valkey")
    server.start()
    jobs = {"directory": "jobs", "redis_url": server.url}
    try:
        async with Harness(tmp_path, warm=[echoes], config={"jobs": jobs}) as gateway:
            refused = await gateway.request("POST", INFER, b"{}", LATER)
            assert (refused.status, refused.headers["x-router-error"]) == (503, "not_durable")
            assert "appendonly yes" in refused.json()["error"]
    finally:
        server.stop()


async def test_a_redis_that_was_started_again_unseen_ends_the_workers_names(tmp_path: Path):
    server = ValkeyProcess(tmp_path / "valkey", appendonly="yes", appendfsync="always")
    server.start()
    store = RedisStore(server.url, "test")
    try:
        await store.beat("w", 60.0, 0.0)
        await store.beat("w", 60.0, 0.0)
        server.kill()
        await asyncio.to_thread(server.start)  # meanwhile the loop sees the connection close
        with pytest.raises(NotDurableError, match="started again"):
            await store.beat("w", 60.0, 0.0)
        await store.beat("w-2", 60.0, 0.0)
    finally:
        await store.close()
        server.stop()
