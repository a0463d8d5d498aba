"""What of a call's failures is the API server's, and what is its caller's own."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.backends.pool.kube_api import KubeApi, KubeError
from tests.fakes.kubernetes_api import KubernetesApi, endpoint, slice_of


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[KubeApi]:
    client = KubeApi("ml", kubeconfig)
    yield client
    await client.close()


@pytest.mark.parametrize("mistake", [KeyError("x"), TypeError("x"), TimeoutError(), OSError("x")])
async def test_a_mistake_of_the_caller_comes_out_as_it_is(
    api: KubernetesApi, kube: KubeApi, mistake: Exception
):
    await api.put(slice_of("s1", endpoint("10.0.0.1", "a")))

    def on_event(_kind: str, _found: dict[str, Any]) -> None:
        raise mistake

    with pytest.raises(type(mistake)) as caught:
        await kube.watch_slices("svc", "0", on_event)
    assert caught.value is mistake


async def test_a_slice_without_a_name_is_the_api_servers_mistake(api: KubernetesApi, kube: KubeApi):
    await api.put(slice_of("s1", endpoint("10.0.0.1", "a")))
    api.slices["s1"] = {"metadata": {"labels": {}}}
    with pytest.raises(KubeError, match="makes no sense"):
        await kube.list_slices("svc")


async def test_no_api_server_is_one_that_cannot_be_reached(api: KubernetesApi, kube: KubeApi):
    await api.stop()
    with pytest.raises(KubeError, match="cannot be reached"):
        await kube.scale("dep")
