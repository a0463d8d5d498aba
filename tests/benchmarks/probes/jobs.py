"""Jobs beside what their stores can do at all, in interleaved rounds, and whole batches.

The bare stores keep the same bytes as durably, in transactions of the same size, and nothing else:
no states, no counts, no tenants, no order of lanes. A ratio of 1 would be bookkeeping for nothing.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
from redis.asyncio import Redis

from router.jobs.records import End, Job, Result, Spec, State, lane_of
from router.jobs.redis_store import RedisStore
from router.jobs.sqlite_store import SqliteStore
from router.jobs.store import JobStore
from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.processes import cpu_s
from tests.benchmarks.results import Finding
from tests.fakes.valkey import ValkeyProcess
from tests.integration.end_to_end.gateway import GatewayProcess

_ROUNDS = 5
_JOBS = 4096
_TOGETHER = 64
_LINES = 12_000
_ANSWER = b"x" * 300
_INFER = "/v2/models/m/infer"
_POLL_S = 0.1
_WITHIN_S = 300.0
_SQLITE = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE jobs (id INTEGER PRIMARY KEY, state INTEGER, spec BLOB, result BLOB);
"""


async def jobs(folder: Path, upstream_port: int) -> list[Finding]:
    """Jobs a second of each store and of the bare one, their ratio, and whole lines a second."""
    found = list[Finding]()
    server = ValkeyProcess(folder / "redis", appendonly="yes", appendfsync="always")
    server.start()
    try:
        for name, ours, bare in (
            ("redis", lambda: _of_redis(server.url), lambda: _bare_redis(server.url)),
            ("sqlite", lambda: _of_sqlite(folder), lambda: _bare_sqlite(folder)),
        ):
            found += await _compared(name, ours, bare)
    finally:
        server.stop()
    return found + await _lines(folder, upstream_port)


Run = Callable[[], Awaitable[float]]


async def _compared(name: str, ours: Run, bare: Run) -> list[Finding]:
    rounds = [(await ours(), await bare()) for _ in range(_ROUNDS)]
    return [
        Finding(f"jobs-{name}", f"jobs in {name}", median(one for one, _ in rounds), "/s"),
        Finding(f"jobs-{name}-bare", f"bare {name}", median(one for _, one in rounds), "/s"),
        Finding(f"jobs-{name}-ratio", "ratio", median(one / two for one, two in rounds), ""),
    ]


async def _of_redis(url: str) -> float:
    return await _through(RedisStore(url, f"bench-{time.monotonic_ns()}"))


async def _of_sqlite(folder: Path) -> float:
    return await _through(SqliteStore(folder / f"{time.monotonic_ns()}.sqlite"))


async def _through(store: JobStore) -> float:
    """Jobs a second from `add` to `end`."""
    lane = lane_of("m", "t", "b", 3600.0)
    spec = Spec(target=_INFER, payload="f" * 32, length=300, custom_id="c1")
    result = Result(200, (("content-type", "application/json"),), _ANSWER)
    await store.open()
    try:
        began = time.perf_counter()
        for start in range(0, _JOBS, _TOGETHER):
            page = [
                Job(f"b-{number:08}", lane, "t", 0.0, 1e10, spec, "b", number)
                for number in range(start, start + _TOGETHER)
            ]
            await store.add(page, _JOBS)
        while claimed := await store.claim(lane, "w", _TOGETHER, 0.0):
            ends = [End(job.id, job.attempt, State.DONE, 1.0, result) for job in claimed]
            await store.end("w", ends)
        return _JOBS / (time.perf_counter() - began)
    finally:
        await store.close()


async def _bare_redis(url: str) -> float:
    stream = f"bare-{time.monotonic_ns()}"
    # Its types say that some of these answer at once.
    redis: Any = Redis.from_url(url, single_connection_client=True)
    try:
        await redis.xgroup_create(stream, "w", "0", mkstream=True)
        began = time.perf_counter()
        for _ in range(_JOBS // _TOGETHER):
            pipe = redis.pipeline(transaction=False)
            for number in range(_TOGETHER):
                pipe.xadd(stream, {"id": number, "spec": _ANSWER})
            await pipe.execute()
            await redis.execute_command("WAITAOF", 1, 0, 1000)
        while read := await redis.xreadgroup("w", "c", {stream: ">"}, count=_TOGETHER):
            names = [name for name, _ in read[0][1]]
            pipe = redis.pipeline(transaction=False)
            pipe.xack(stream, "w", *names)
            pipe.xdel(stream, *names)
            await pipe.execute()
        return _JOBS / (time.perf_counter() - began)
    finally:
        await redis.aclose()


async def _bare_sqlite(folder: Path) -> float:
    return await asyncio.to_thread(_bare_journal, folder / f"bare-{time.monotonic_ns()}.sqlite")


def _bare_journal(file: Path) -> float:
    with closing(sqlite3.connect(file, isolation_level=None)) as one:
        one.executescript(_SQLITE)
        began = time.perf_counter()
        for statement, rows in (
            ("INSERT INTO jobs VALUES (?, 0, ?, NULL)", [(n, _ANSWER) for n in range(_JOBS)]),
            ("UPDATE jobs SET state = 1 WHERE id = ?", [(n,) for n in range(_JOBS)]),
            ("UPDATE jobs SET result = ? WHERE id = ?", [(_ANSWER, n) for n in range(_JOBS)]),
        ):
            for start in range(0, _JOBS, _TOGETHER):
                one.execute("BEGIN")
                one.executemany(statement, rows[start : start + _TOGETHER])
                one.execute("COMMIT")
        return _JOBS / (time.perf_counter() - began)


async def _lines(folder: Path, upstream_port: int) -> list[Finding]:
    """Lines a second of a batch from its creation to its files, and the gateway's CPU for each."""
    url = f"http://127.0.0.1:{upstream_port}"
    pool = {"kind": "static", "urls": [url], "concurrency": 16}
    config = {
        "jobs": {"directory": "jobs", "concurrency": 64},
        "models": [{"name": "m", "slo": {"latency_ms": 5000}, "pool": pool}],
    }
    gateway = GatewayProcess(folder / "jobs", config)
    await asyncio.to_thread(gateway.start)
    try:
        assert gateway.process is not None
        before, began = cpu_s(gateway.process.pid), time.monotonic()
        took_s = await _batch(gateway.url) - began
        cpu_us = (cpu_s(gateway.process.pid) - before) * 1e6 / _LINES
    finally:
        await asyncio.to_thread(gateway.ensure_gone)
    return [
        Finding("jobs-lines", "lines of a batch, from upload to files", _LINES / took_s, "/s"),
        Finding("jobs-line-cpu", "the gateway's CPU for a line", cpu_us, "us"),
    ]


async def _batch(url: str) -> float:
    """When a batch of small requests had ended."""
    body = {"inputs": [{"name": "x", "shape": [1, 16], "datatype": "FP32", "data": [0.5] * 16}]}
    asked = [
        {"custom_id": f"c{number}", "method": "POST", "url": _INFER, "body": body}
        for number in range(_LINES)
    ]
    form = aiohttp.FormData()
    form.add_field("purpose", "batch")
    form.add_field("file", "\n".join(map(json.dumps, asked)), filename="in.jsonl")
    async with aiohttp.ClientSession(url) as session, asyncio.timeout(_WITHIN_S):
        async with session.post("/v1/files", data=form) as told:
            file = await told.json()
        order = {"input_file_id": file["id"], "endpoint": _INFER, "completion_window": "24h"}
        async with session.post("/v1/batches", json=order) as told:
            batch = await told.json()
        while batch["status"] not in {"completed", "failed", "expired"}:
            await asyncio.sleep(_POLL_S)
            async with session.get(f"/v1/batches/{batch['id']}") as told:
                batch = await told.json()
    if batch["status"] != "completed" or batch["request_counts"]["failed"]:
        raise BenchmarkError(f"the batch is {batch['status']}: {batch['request_counts']}")
    return time.monotonic()
