"""Another user of the machine, who must not have the gateway's children work for them."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import aiohttp
import psutil

from tests.integration.end_to_end.client import MLP, infer, slow
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess, eventually, gone, runs
from tests.integration.end_to_end.models import model, settings

# Becomes another user, if it may, and asks everything that listens for the work of others.
ASK_AS_NOBODY = """
import json, os, socket, sys
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
told = {}
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    with socket.socket(socket.AF_INET if host else socket.AF_UNIX) as one:
        one.settimeout(5)
        try:
            one.connect((host, int(port)) if host else port)
            one.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.0\\r\\n\\r\\n")
            told[place] = one.recv(64).split(b"\\r\\n")[0].decode()
        except OSError as error:
            told[place] = type(error).__name__
print(json.dumps(told))
"""


def ways_in(gateway: GatewayProcess) -> list[str]:
    """What the gateway's children listen on, as `host:port` or `:/path`."""
    found = set()
    for child in gateway.children():
        for one in child.net_connections("all"):
            if one.family == socket.AF_UNIX and one.laddr:
                found.add(f":{one.laddr}")
            elif one.status == psutil.CONN_LISTEN:
                found.add(f"{one.laddr.ip}:{one.laddr.port}")
    return sorted(found)


def asked_as_nobody(ways: list[str]) -> dict[str, str]:
    command = [sys.executable, "-c", ASK_AS_NOBODY, *ways]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    told: dict[str, str] = json.loads(done.stdout)
    return told


def hosts_of(gateway: GatewayProcess) -> list[psutil.Process]:
    return [child for child in gateway.children() if runs(child, "workers.function_host")]


async def test_another_user_reaches_no_worker_no_function_host_and_no_runtime(
    start_gateway: StartGateway, repository: Path
):
    models = model("mlp", pool={"min_replicas": 1}), model("slow", pool=None)
    gateway = await asyncio.to_thread(start_gateway, settings(repository, *models))
    async with aiohttp.ClientSession() as session:
        # A function that has run has a runtime, which asks the host for work on a port.
        assert (await infer(session, gateway.url, "slow", slow(1))).backend == "serverless"
        while (await infer(session, gateway.url, "mlp", MLP)).backend != "pool":
            await asyncio.sleep(0.05)
    ways = await asyncio.to_thread(ways_in, gateway)
    paths = [way for way in ways if way.startswith(":")]
    ports = [way for way in ways if way not in paths]
    assert len(paths) == 2, "a worker and the function host"
    assert ports, "at least one runtime"
    assert {stat.S_IMODE(os.stat(Path(path[1:]).parent).st_mode) for path in paths} == {0o700}  # noqa: PTH116
    told = await asyncio.to_thread(asked_as_nobody, ways)
    assert {told[port] for port in ports} == {"HTTP/1.0 403 Forbidden"}
    if os.geteuid() == 0:
        assert {told[path] for path in paths} == {"PermissionError"}


async def test_functions_that_somebody_changed_are_put_back(
    start_gateway: StartGateway, repository: Path
):
    gateway = await asyncio.to_thread(start_gateway, settings(repository, model("slow", pool=None)))
    socket_ = next(way[1:] for way in await asyncio.to_thread(ways_in, gateway) if way[0] == ":")
    connector = aiohttp.UnixConnector(socket_)
    async with aiohttp.ClientSession() as session, aiohttp.ClientSession(connector=connector) as us:
        assert (await infer(session, gateway.url, "slow", slow(1))).status == 200
        async with us.put("http://host/host/functions", json={"functions": []}) as response:
            assert (await response.json())["functions"] == []
        async with asyncio.timeout(10):
            while (await infer(session, gateway.url, "slow", slow(1))).status != 200:
                await asyncio.sleep(0.1)
        assert "were changed, and are put back" in gateway.log
        killed = hosts_of(gateway)
        killed[0].kill()
        assert await asyncio.to_thread(gone, killed) == []
        await asyncio.to_thread(eventually, lambda: hosts_of(gateway) != [], "another host")
        async with asyncio.timeout(20):
            while (await infer(session, gateway.url, "slow", slow(1))).status != 200:
                await asyncio.sleep(0.1)
