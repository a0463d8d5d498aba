"""A static pool follows what its names stand for, and passes on how many are wanted."""

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from router.backends.pool.caller import PoolCaller
from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.pool.names import Names
from router.backends.pool.static import StaticDriver, StaticParams
from router.domain.decision import Verdict
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient
from tests.fakes.builders import FakeClock, make_request

PARAMS = StaticParams(concurrency=2, resolve_s=0.005, drain_s=5.0)


class Hook:
    """Keeps what it is told to want."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def want(self, replicas) -> None:
        self.told.append(replicas)

    async def run(self, is_ours) -> None:
        await asyncio.get_running_loop().create_future()


class Rig:
    """A driver at work on `addresses`, which may change."""

    def __init__(self, upstream, hook=None, url="http://a:80") -> None:
        self.addresses: Sequence[str] | Exception = ["10.0.0.1", "10.0.0.2"]
        self.clock = FakeClock()
        params = PoolParams(True, True, 2, 10_000, 0.1, 5.0)
        self.pool = Pool("m", params, PoolCaller(upstream, 1.0), self.clock, Random(1))
        names = Names([parse_address(url)], self.look_up)
        self.driver = StaticDriver(self.pool, upstream, names, PARAMS, hook, self.clock)

    async def look_up(self, host, port) -> Sequence[str]:
        if isinstance(self.addresses, Exception):
            raise self.addresses
        return self.addresses

    @property
    def hosts(self) -> set[str]:
        return {endpoint.address.host for endpoint in self.pool.endpoints.values()}

    async def until(self, condition) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
async def make_rig():
    upstream = UpstreamClient(clock=time.monotonic)
    running = []

    def make(**how) -> Any:
        rig = Rig(upstream, **how)
        running.append(asyncio.create_task(rig.driver.run()))
        return rig

    yield make
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await upstream.close()


async def test_endpoints_come_and_go_with_the_addresses_of_a_name(make_rig):
    rig = make_rig()
    await rig.until(lambda: rig.hosts == {"10.0.0.1", "10.0.0.2"})
    assert rig.pool.rotation.suspicion.is_set(), "newcomers are probed at once"
    before = dict(rig.pool.endpoints)
    rig.addresses = ["10.0.0.2", "10.0.0.3"]
    await rig.until(lambda: rig.hosts == {"10.0.0.2", "10.0.0.3"})
    kept = set(before) & set(rig.pool.endpoints)
    assert {rig.pool.endpoints[id_] for id_ in kept} <= set(before.values()), "and keep their state"
    assert rig.driver.billed == 2


async def test_a_name_that_cannot_be_looked_up_loses_nothing(make_rig):
    rig = make_rig()
    await rig.until(lambda: len(rig.hosts) == 2)
    rig.addresses = OSError("away")
    await asyncio.sleep(0.05)
    assert rig.hosts == {"10.0.0.1", "10.0.0.2"}


async def test_who_leaves_finishes_what_it_has_and_may_return(make_rig):
    rig = make_rig()
    await rig.until(lambda: len(rig.hosts) == 2)
    for id_ in rig.pool.endpoints:
        rig.pool.mark_ready(id_, is_ready=True)
    leases = [rig.pool.try_reserve(make_request(), rig.clock()) for _ in range(2)]
    rig.addresses = ["10.0.0.1"]
    leaving = next(e for e in rig.pool.endpoints.values() if e.address.host == "10.0.0.2")
    await rig.until(lambda: leaving.is_draining)
    rig.addresses = ["10.0.0.1", "10.0.0.2"]
    await rig.until(lambda: not leaving.is_draining)
    assert rig.pool.endpoints[leaving.id] is leaving
    rig.addresses = ["10.0.0.1"]
    await rig.until(lambda: leaving.is_draining)
    for lease in leases:
        lease.release(Verdict.OK, rig.clock(), None)
    await rig.until(lambda: rig.hosts == {"10.0.0.1"})


async def test_addresses_without_a_name_are_there_at_once_and_stay(make_rig):
    rig = make_rig(url="http://10.9.9.9:80")
    await rig.until(lambda: rig.hosts == {"10.9.9.9"})


class TestSize:
    async def test_what_is_wanted_is_passed_on_once_those_there_are_known(self, make_rig):
        hook = Hook()
        rig = make_rig(hook=hook)
        rig.driver.want(1)
        assert rig.driver.take_over() == 0
        await rig.until(lambda: len(rig.hosts) == 2)
        assert [rig.driver.take_over(), rig.driver.take_over()] == [2, 0]
        rig.driver.want(3)
        assert hook.told == [3]

    async def test_cut_off_from_the_others_it_only_grows(self, make_rig):
        hook = Hook()
        rig = make_rig(hook=hook)
        await rig.until(lambda: len(rig.hosts) == 2)
        rig.driver.take_over()
        for wanted in (1, 2, 3):
            rig.driver.want(wanted, may_shrink=False)
        assert hook.told == [3]

    async def test_while_names_cannot_be_looked_up_nothing_is_known(self, make_rig):
        hook = Hook()
        rig = make_rig(hook=hook)
        rig.addresses = OSError("away")
        await asyncio.sleep(0.02)
        rig.driver.want(1)
        assert (rig.driver.take_over(), hook.told) == (0, [])

    async def test_a_wish_goes_stale(self, make_rig):
        rig = make_rig(hook=Hook())
        await rig.until(lambda: len(rig.hosts) == 2)
        rig.driver.take_over()
        assert not rig.driver._leads()
        rig.driver.want(3)
        assert rig.driver._leads()
        rig.clock.advance(11.0)
        assert not rig.driver._leads()

    async def test_without_a_hook_there_is_nothing_to_say(self, make_rig):
        rig = make_rig()
        rig.driver.want(5)
        assert rig.driver.take_over() == 0
