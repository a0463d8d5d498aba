"""A driver over a Kubernetes API server on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.pool.kube_api import KubeApi
from router.backends.pool.kubernetes import KubernetesDriver, KubernetesParams, KubernetesSource
from router.upstream.client import UpstreamClient
from tests.fakes.builders import FakeClock
from tests.fakes.kubernetes_api import KubernetesApi


class Scene:
    """A pool that follows the Service `svc` and sizes the Deployment `dep`."""

    def __init__(self, api: KubernetesApi, kubeconfig: Path, deployment: str | None) -> None:
        self.api = api
        self.kubeconfig = kubeconfig
        self.clock = FakeClock()
        self.upstream = UpstreamClient(clock=self.clock)
        params = PoolParams(True, True, 10, 1 << 20, 0.1, 1.0)
        self.pool = Pool("m", params, cast(Any, None), self.clock, Random(1))
        self.driver = KubernetesDriver(
            self.pool,
            self.upstream,
            KubeApi("ml", kubeconfig),
            KubernetesSource("svc", "http", deployment),
            KubernetesParams(concurrency=4, drain_s=5.0),
            self.clock,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.driver.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.cancelled(), task
            await self.upstream.close()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)

    @property
    def hosts(self) -> set[str]:
        """Where requests may go now."""
        return {
            found.address.host
            for found in self.pool.endpoints.values()
            if found.is_ready and not found.is_draining
        }

    async def until_hosts(self, *hosts: str) -> None:
        await self.until(lambda: self.hosts == set(hosts))

    async def until_scale(self, replicas: int) -> None:
        await self.until(lambda: self.api.scales["dep"] == replicas)


@pytest.fixture
async def api() -> AsyncIterator[KubernetesApi]:
    server = KubernetesApi()
    await server.start()
    server.scales["dep"] = 2
    yield server
    await server.stop()


@pytest.fixture
def kubeconfig(api: KubernetesApi, tmp_path: Path) -> Path:
    return api.write_kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
def scene(api: KubernetesApi, kubeconfig: Path) -> Scene:
    return Scene(api, kubeconfig, "dep")


@pytest.fixture
def external(api: KubernetesApi, kubeconfig: Path) -> Scene:
    return Scene(api, kubeconfig, None)
