"""What the Invoke API does with a body that does not come, without any sandbox."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from workers.function_host.console import Console
from workers.function_host.environment import Services
from workers.function_host.host import Host
from workers.function_host.invoke_api import InvokeApi
from workers.function_host.settings import FunctionSpec


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    console = Console(lambda _: None)
    clock = asyncio.get_running_loop().time
    host = Host(Services(clock, time.time, console, os.defpath))
    host.replace([FunctionSpec("f", "m.h", max_concurrency=1)])
    yield host
    await host.drain(0.0)
    console.close()


@pytest.fixture
async def address(host: Host) -> AsyncIterator[tuple[str, int]]:
    application = web.Application()
    application.add_routes(InvokeApi(host, body_s=0.1).routes())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][:2]
    await runner.cleanup()


async def test_a_body_that_does_not_come_is_refused_and_frees_its_reservation(
    host: Host, address: tuple[str, int]
) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(
        b"POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: x\r\n"
        b"Content-Length: 10\r\n\r\n{"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"x-amzn-ErrorType: RequestTimeoutException" in head
    function = host.function("f")
    assert function is not None
    assert function.pool.reserved == 0
    writer.close()
    await writer.wait_closed()


async def test_a_machine_that_starts_no_process_is_a_service_error(
    host: Host, address: tuple[str, int]
) -> None:
    host.replace([FunctionSpec("g", "m.h", working_dir="/removed/since/it/was/declared")])
    url = f"http://{address[0]}:{address[1]}/2015-03-31/functions/g/invocations"
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as response:
        assert response.status == 500
        assert response.headers["x-amzn-ErrorType"] == "ServiceException"
        assert (await response.json())["Type"] == "Service"
    function = host.function("g")
    assert function is not None
    assert function.totals.errors == 1
    assert function.totals.billed_ms == 0
    assert function.pool.reserved == 0


async def test_an_unknown_expectation_is_refused(address: tuple[str, int]) -> None:
    url = f"http://{address[0]}:{address[1]}/2015-03-31/functions/f/invocations"
    headers = {"Expect": "the unexpected"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=b"{}", headers=headers) as response,
    ):
        assert response.status == 417
