"""A gateway process over a Kubernetes pool: sized by its API, serving while that is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.fakes.kubernetes_api import KubernetesApi, endpoint, slice_of
from tests.integration.end_to_end.client import MLP, infer
from tests.integration.end_to_end.conftest import start_gateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import settings

__all__ = ["start_gateway"]


@asynccontextmanager
async def replica() -> AsyncIterator[int]:
    """A server that is ready and answers everything; its port."""

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.json_response({"model_name": "m", "outputs": []})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def config(tmp_path: Path, kubeconfig: Path) -> dict[str, Any]:
    pool = {
        "kind": "kubernetes",
        "namespace": "ml",
        "service": "svc",
        "deployment": "dep",
        "kubeconfig": str(kubeconfig),
        "min_replicas": 1,
        "max_replicas": 4,
        "health": {"interval": "100ms"},
    }
    return settings(tmp_path, {"name": "m", "slo": {"latency_ms": 2000}, "pool": pool})


async def until_endpoints(gateway: GatewayProcess, number: int) -> None:
    async with asyncio.timeout(10):
        while len((await gateway.status("m"))["endpoints"]) != number:
            await asyncio.sleep(0.05)


async def test_it_sizes_follows_and_serves_on_without_the_api_server(
    api: KubernetesApi, kubeconfig: Path, start_gateway: Any, tmp_path: Path
):
    api.scales["dep"] = 0
    async with replica() as first, replica() as second, aiohttp.ClientSession() as session:
        await api.put(slice_of("s1", endpoint("127.0.0.1", "a"), port=first))
        # The API server is of this loop: it has to answer while the gateway starts.
        gateway = await asyncio.to_thread(start_gateway, config(tmp_path, kubeconfig))
        await until_endpoints(gateway, 1)
        async with asyncio.timeout(10):
            while api.scales["dep"] != 1:
                await asyncio.sleep(0.05)
        answers = [await infer(session, gateway.url, "m", MLP)]
        await api.put(slice_of("s2", endpoint("127.0.0.1", "b"), port=second))
        await until_endpoints(gateway, 2)
        await api.stop()
        for _ in range(30):
            answers.append(await infer(session, gateway.url, "m", MLP))
            await asyncio.sleep(0.05)
        await api.start()
        await api.delete("s1")
        await until_endpoints(gateway, 1)
        answers.append(await infer(session, gateway.url, "m", MLP))
        assert await asyncio.to_thread(gateway.stop) == 0
    assert {(found.status, found.backend) for found in answers} == {(200, "pool")}
    assert api.scales["dep"] == 1, "replicas outlive the gateway"
