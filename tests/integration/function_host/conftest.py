"""One host for each test module, and a client and a fresh function name for each test."""

import itertools
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.integration.function_host.host_process import HostClient, HostProcess

_numbers = itertools.count()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    host = HostProcess(tmp_path_factory.mktemp("host"), env={"HOST_SECRET": "hunter2"})
    yield host
    host.stop()


@pytest.fixture
async def client(host: HostProcess) -> AsyncIterator[HostClient]:
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        yield HostClient(host, session)


@pytest.fixture
def name() -> str:
    """A function no other test has used: it has no warm environments."""
    return f"f{next(_numbers)}"
