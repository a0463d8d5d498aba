"""Real probes against a server that is told what to answer."""

import time
from random import Random
from typing import Any

import pytest
from aiohttp import web

from router.backends.pool.caller import PoolCaller
from router.backends.pool.endpoints import Endpoint, Pool, PoolParams
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
        probe = ProbeParams("/ready", 1.0, 1.0, unhealthy_after, healthy_after)
        return pool, HealthProber(pool, upstream, probe, clock, clock.sleep)

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
