from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from router.jobs.redis_store import RedisStore
from router.jobs.sqlite_store import SqliteStore
from router.jobs.store import JobStore
from tests.fakes.valkey import ValkeyProcess

_names = count()


@pytest.fixture(scope="module")
def durable_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    server = ValkeyProcess(
        tmp_path_factory.mktemp("valkey"), appendonly="yes", appendfsync="always"
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", "redis"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, durable_valkey: ValkeyProcess
) -> AsyncIterator[JobStore]:
    made: JobStore
    if request.param == "sqlite":
        made = SqliteStore(tmp_path / "jobs.sqlite")
    else:
        made = RedisStore(durable_valkey.url, f"test-{next(_names)}")
    await made.open()
    try:
        yield made
    finally:
        await made.close()
