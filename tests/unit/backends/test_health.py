"""Real probes against a server that is told what to answer."""

import asyncio
import time
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from aiohttp import web

from router.backends.pool.caller import PoolCaller
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.pool.health import HealthProber, ProbeParams
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient
from tests.fakes.builders import FakeClock

PARAMS = PoolParams(True, True, 2, 10_000, 0.1, 5.0)


@pytest.fixture
async def upstream():
    client = UpstreamClient(clock=time.monotonic)
    yield client
    await client.close()


@pytest.fixture
async def replica():
    """A server whose readiness is `status`, counted in `asked`."""
    state: dict[str, Any] = {"status": 200, "asked": 0}

    async def ready(request) -> Any:
        if request.path == "/v2/models/m":
            state["metadata_asked"] = state.get("metadata_asked", 0) + 1
            return web.Response(body=state["metadata"], status=state.get("metadata_status", 200))
        assert request.path == "/ready"
        state["asked"] += 1
        return web.Response(status=state["status"])

    runner = web.ServerRunner(web.Server(ready))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield state
    await runner.cleanup()


@pytest.fixture
def make_prober(upstream):
    def make(url, unhealthy_after=2, healthy_after=2) -> Any:
        clock = FakeClock()
        pool = Pool("m", PARAMS, PoolCaller(upstream, 1.0), clock, Random(1))
        pool.add(Endpoint("e0", parse_address(url), 1))
        probe = ProbeParams("/ready", 1.0, 1.0, unhealthy_after, healthy_after, "/v2/models/m")
        return pool, HealthProber(pool, upstream, probe, clock)

    return make


async def test_verdicts_change_after_so_many_answers_in_a_row(replica, make_prober):
    pool, prober = make_prober(replica["url"])
    seen = []
    for status in (200, 200, 503, 200, 503, 503, 200, 200):
        replica["status"] = status
        await prober.probe_all()
        seen.append(pool.endpoints["e0"].is_ready)
    assert seen == [False, True, True, True, True, False, False, True]
    assert replica["asked"] == 8


async def test_nobody_listening_is_not_ready(replica, make_prober):
    pool, prober = make_prober("http://127.0.0.1:1", healthy_after=1)
    await prober.probe_all()
    assert not pool.endpoints["e0"].is_ready


async def test_an_endpoint_that_is_removed_during_a_probe_is_no_error(replica, make_prober):
    pool, prober = make_prober(replica["url"], healthy_after=1)
    pool.remove("e0")
    await prober.probe_all()
    assert replica["asked"] == 0


async def test_one_bad_probe_confirms_what_failed_attempts_suggest(replica, make_prober):
    pool, prober = make_prober(replica["url"], unhealthy_after=3, healthy_after=1)
    await prober.probe_all()
    endpoint = pool.endpoints["e0"]
    replica["status"] = 503
    await prober.probe_all()
    assert endpoint.is_ready
    for _ in range(3):
        endpoint.circuit.failed(1000.0)
    await prober.probe_all()
    assert not endpoint.is_ready


async def test_a_suspect_endpoint_is_probed_before_the_interval_is_over(replica, make_prober):
    pool, prober = make_prober(replica["url"], healthy_after=1)
    prober.params = replace(prober.params, interval_s=60.0)
    running = asyncio.create_task(prober.run())
    try:
        async with asyncio.timeout(5):
            while replica["asked"] < 1:
                await asyncio.sleep(0.001)
            pool.rotation.suspicion.set()
            while replica["asked"] < 2:
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
    assert not pool.rotation.suspicion.is_set()


async def test_every_round_compares_how_fast_endpoints_are(replica, make_prober):
    pool, prober = make_prober(replica["url"], healthy_after=1)
    pool.add(Endpoint("e1", parse_address(replica["url"]), 1))
    await prober.probe_all()
    for endpoint, served_s in zip(pool.endpoints.values(), (0.1, 2.0), strict=True):
        for _ in range(20):
            pool.learn(endpoint, 300, served_s)
    await prober.probe_all()
    assert pool.endpoints["e1"].is_slow(1000.0)


@pytest.mark.parametrize(
    ("metadata", "status", "versions"),
    [
        (b'{"name": "m", "versions": ["1", "3"]}', 200, {"1", "3"}),
        (b'{"name": "m"}', 200, None),
        (b'{"versions": []}', 200, None),
        (b'{"versions": [1]}', 200, None),
        (b"<html>", 200, None),
        (b'{"versions": ["1"]}', 404, None),
        (b'{"versions": ["1"]}' + b" " * 2_000_000, 200, None),
    ],
    ids=["named", "not named", "none", "numbers", "no JSON", "refused", "endless"],
)
async def test_versions_are_what_the_replica_says(replica, make_prober, metadata, status, versions):
    pool, prober = make_prober(replica["url"], healthy_after=1)
    replica.update(metadata=metadata, metadata_status=status)
    await prober.probe_all()
    assert pool.endpoints["e0"].versions is None
    assert "metadata_asked" not in replica, "nobody has asked for a version yet"
    pool.rotation.versions_matter = True
    await prober.probe_all()
    await prober.probe_all()
    assert pool.endpoints["e0"].versions == versions
    assert replica["metadata_asked"] == 1, "not at every probe"


async def test_versions_are_asked_again_after_a_while_and_when_a_replica_returns(
    replica, make_prober
):
    pool, prober = make_prober(replica["url"], healthy_after=1, unhealthy_after=1)
    pool.rotation.versions_matter = True
    seen = []
    for version, event in (("1", None), ("2", None), ("3", "later"), ("4", "back")):
        replica["metadata"] = b'{"versions": ["%b"]}' % version.encode()
        if event == "later":
            prober._clock.advance(30.0)
        if event == "back":
            replica["status"] = 503
            await prober.probe_all()
            replica["status"] = 200
        await prober.probe_all()
        seen.append(pool.endpoints["e0"].versions)
    assert seen == [{"1"}, {"1"}, {"3"}, {"4"}]
