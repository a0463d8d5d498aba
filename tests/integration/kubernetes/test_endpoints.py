"""Which replicas take requests, while the API server does what API servers do."""

import asyncio

import pytest

from router.backends.pool.kubernetes import KubernetesParams
from tests.fakes.kubernetes_api import Fault, endpoint, slice_of
from tests.integration.kubernetes.conftest import Scene

A, B, C = endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b"), endpoint("10.0.0.3", "c")


async def test_replicas_come_change_and_go(scene: Scene):
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until_hosts("10.0.0.1")
        await scene.api.put(slice_of("s2", B, C))
        await scene.until_hosts("10.0.0.1", "10.0.0.2", "10.0.0.3")
        not_ready = endpoint("10.0.0.2", "b", ready=False)
        leaving = endpoint("10.0.0.3", "c", terminating=True)
        await scene.api.put(slice_of("s2", not_ready, leaving))
        await scene.until_hosts("10.0.0.1")
        await scene.api.put(slice_of("s2", B))
        await scene.until_hosts("10.0.0.1", "10.0.0.2")
        await scene.api.delete("s1")
        await scene.until_hosts("10.0.0.2")
    assert scene.pool.endpoints == {}


async def test_requests_in_flight_at_a_leaving_replica_end_first(scene: Scene):
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until_hosts("10.0.0.1")
        (found,) = scene.pool.endpoints.values()
        found.in_flight = 1
        await scene.api.delete("s1")
        await scene.until_hosts()
        assert scene.pool.endpoints == {found.id: found}
        found.in_flight = 0
        found.drained.set()
        await scene.until(lambda: scene.pool.endpoints == {})


async def test_a_replica_that_comes_back_while_it_drains_takes_requests_again(scene: Scene):
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until_hosts("10.0.0.1")
        (found,) = scene.pool.endpoints.values()
        found.in_flight = 1
        await scene.api.put(slice_of("s1", endpoint("10.0.0.1", "a", ready=False)))
        await scene.until_hosts()
        await scene.api.put(slice_of("s1", A))
        await scene.until_hosts("10.0.0.1")
        assert not found.drained.is_set()
        await asyncio.sleep(0.05)
        assert scene.hosts == {"10.0.0.1"}


async def test_a_broken_watch_is_taken_up_where_it_ended(scene: Scene):
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until(lambda: scene.api.watches == 1)
        for replica in (B, C):
            await scene.api.break_watches()
            await scene.api.put(slice_of("s2", replica))
            await scene.until_hosts("10.0.0.1", replica["addresses"][0])
    assert scene.api.lists == 1


@pytest.mark.parametrize("in_stream", [False, True], ids=["as a status", "as an event"])
async def test_a_version_that_is_too_old_means_a_new_list(scene: Scene, in_stream: bool):
    scene.api.expires_in_stream = in_stream
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until(lambda: scene.api.watches == 1)
        # All of this happens while nobody watches.
        scene.api.faults.append(Fault("endpointslices", 503))
        await scene.api.break_watches()
        await scene.api.put(slice_of("s2", B))
        await scene.api.delete("s1")
        await scene.api.compact()
        await scene.until_hosts("10.0.0.2")
    assert scene.api.lists == 2


async def test_bookmarks_keep_a_quiet_watch_from_growing_old(scene: Scene):
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until(lambda: scene.api.watches == 1)
        await scene.api.bookmark()
        await scene.api.compact()
        await asyncio.sleep(0.05)
        await scene.api.break_watches()
        await scene.api.put(slice_of("s2", B))
        await scene.until_hosts("10.0.0.1", "10.0.0.2")
    assert scene.api.lists == 1


async def test_while_the_api_server_is_gone_the_last_replicas_stay(scene: Scene):
    await scene.api.put(slice_of("s1", A, B))
    async with scene.running():
        await scene.until_hosts("10.0.0.1", "10.0.0.2")
        await scene.api.stop()
        await asyncio.sleep(1.5)
        assert scene.hosts == {"10.0.0.1", "10.0.0.2"}
        await scene.api.start()
        await scene.api.put(slice_of("s1", B))
        # On a busy machine the pause between attempts may have grown to several seconds.
        await scene.until(lambda: scene.hosts == {"10.0.0.2"}, timeout_s=30)


async def test_an_api_server_that_asks_for_patience_gets_it(scene: Scene):
    scene.api.faults.append(Fault("endpointslices", 429, {"retry-after": "2"}))
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until_hosts("10.0.0.1")
    first, second, *_ = [at for _, path, _, at in scene.api.requests if "slices" in path]
    assert second - first >= 2.0


async def test_a_token_that_expired_is_read_again(scene: Scene):
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until_hosts("10.0.0.1")
        scene.api.token = "second"
        await scene.api.break_watches()
        await scene.until(lambda: scene.api.watches >= 2)
        assert scene.hosts == {"10.0.0.1"}
        scene.api.write_kubeconfig(scene.kubeconfig)
        await scene.api.put(slice_of("s1", B))
        await scene.until_hosts("10.0.0.2")


async def test_pauses_grow_while_the_api_server_fails(scene: Scene):
    scene.api.faults.extend(Fault("endpointslices", 500) for _ in range(100))
    async with scene.running():
        await scene.until(lambda: scene.api.lists >= 1)
        await asyncio.sleep(2.0)
        assert scene.api.lists <= 5


async def test_a_slice_of_many_replicas_is_read(scene: Scene):
    async with scene.running():
        await scene.until(lambda: scene.api.watches == 1)
        many = [endpoint(f"10.1.{n // 250}.{n % 250}", f"pod-{n}-{'x' * 300}") for n in range(1000)]
        await scene.api.put(slice_of("s1", *many))
        await scene.until(lambda: len(scene.hosts) == 1000)


async def test_new_concurrency_reaches_the_replicas(scene: Scene):
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until_hosts("10.0.0.1")
        scene.driver.reconfigure(KubernetesParams(9, 5.0))
        assert [found.capacity for found in scene.pool.endpoints.values()] == [9]


async def test_replicas_hinted_for_the_gateways_zone_go_first(scene: Scene):
    hinted = [
        {**one, "hints": {"forZones": [{"name": zone}]}} for one, zone in ((A, "x"), (B, "y"))
    ]
    scene.driver.reconfigure(KubernetesParams(concurrency=2, drain_s=5.0, zone="y"))
    await scene.api.put(slice_of("s1", *hinted))
    async with scene.running():
        await scene.until_hosts("10.0.0.1", "10.0.0.2")
        picked = [scene.pool.reserve_warm(scene.clock()) for _ in range(4)]
        hosts = [endpoint.address.host for endpoint in picked if endpoint is not None]
        assert hosts == ["10.0.0.2"] * 2 + ["10.0.0.1"] * 2, "the others once those are full"


async def test_one_call_that_is_refused_leaves_those_under_way_alone(scene: Scene):
    await scene.api.put(slice_of("s1", A))
    async with scene.running():
        await scene.until(lambda: scene.api.watches == 1)
        scene.api.token = "second"
        asked = scene.api.count("GET", "scale")
        scene.driver.take_over()  # asks for the size again, with a token that has expired
        await scene.until(lambda: scene.api.count("GET", "scale") > asked)
        scene.api.write_kubeconfig(scene.kubeconfig)
        await scene.until(lambda: scene.api.count("GET", "scale") > asked + 1)
        await scene.api.put(slice_of("s1", B))
        await scene.until_hosts("10.0.0.2")
        assert scene.api.watches == 1
