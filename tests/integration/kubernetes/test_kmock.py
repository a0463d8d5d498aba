"""The driver against an emulator of the API that others wrote: a second opinion on the protocol."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any, cast

import kmock as emulator
import yaml

from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.pool.kube_api import KubeApi
from router.backends.pool.kubernetes import KubernetesDriver, KubernetesParams, KubernetesSource
from router.upstream.client import UpstreamClient
from tests.fakes.builders import FakeClock
from tests.fakes.kubernetes_api import endpoint, slice_of

SLICES = emulator.resource("discovery.k8s.io", "v1", "endpointslices")
DEPLOYMENTS = emulator.resource("apps", "v1", "deployments")


def kubeconfig(path: Path, url: str) -> Path:
    named = {
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
        "clusters": [{"name": "t", "cluster": {"server": url}}],
        "users": [{"name": "t", "user": {"token": "x"}}],
    }
    path.write_text(yaml.safe_dump({"kind": "Config", "current-context": "t", **named}))
    return path


def stored(found: dict[str, Any], version: int) -> dict[str, Any]:
    meta = {"namespace": "ml", "resourceVersion": str(version)}
    return found | {"metadata": found["metadata"] | meta}


async def test_replicas_are_followed_and_the_size_is_set(kmock: Any, tmp_path: Path):
    kmock.resources[SLICES] = {}
    kmock.objects[SLICES, "ml", "s1"] = stored(slice_of("s1", endpoint("10.0.0.1", "a")), 5)
    kmock.objects[DEPLOYMENTS, "ml", "dep"] = {"spec": {"replicas": 2}, "status": {"replicas": 2}}
    clock = FakeClock()
    params = PoolParams(True, True, 10, 1 << 20, 0.1, 1.0)
    upstream = UpstreamClient(clock=clock)
    pool = Pool("m", params, cast(Any, None), clock, Random(1))
    api = KubeApi("ml", kubeconfig(tmp_path / "kubeconfig", str(kmock.url)))
    source = KubernetesSource("svc", "http", "dep")
    driver = KubernetesDriver(pool, upstream, api, source, KubernetesParams(4, 1.0), clock)
    task = asyncio.create_task(driver.run())
    try:
        async with asyncio.timeout(10):
            while not (pool.ready == 1 and driver.take_over() == 2):
                await asyncio.sleep(0.01)
            driver.want(3)
            while kmock.objects[DEPLOYMENTS, "ml", "dep"]["spec"]["replicas"] != 3:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=5)
        await upstream.close()
