"""Replicas of a scripted launcher: started, rolled, replaced, adopted, ended."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, cast

import pytest

from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.pool.health import ProbeParams
from router.backends.pool.supervisor import (
    ReplicaFailedError,
    ReplicaSupervisor,
    SupervisionParams,
)
from router.upstream.address import Address, parse_address
from router.upstream.client import UpstreamClient
from tests.fakes.builders import FakeClock

PARAMS = SupervisionParams(concurrency=2, start_timeout_s=30.0, drain_s=0.5)
PROBE = ProbeParams("/ready", 1.0, 1.0, 3, 1, "/v2/models/m")


class Answer:
    def __init__(self, status: int) -> None:
        self.status = status

    async def aclose(self) -> None:
        pass


class Upstream:
    """Answers probes: addresses are ready unless they are named here."""

    def __init__(self) -> None:
        self.unready: set[Address] = set()
        self.all_unready = False

    async def send(self, address: Address, _call: object, *, timeout_s: float) -> Answer:
        assert timeout_s > 0
        return Answer(503 if self.all_unready or address in self.unready else 200)

    def abort(self, address: Address) -> None:
        pass


class Replica:
    def __init__(self, id: str, spec: str, port: int) -> None:
        self.id = id
        self.spec = spec
        self.address = parse_address(f"http://127.0.0.1:{port}")
        self.exit = asyncio.Event()
        self.ends = 0
        self.end_failures = 0
        self.is_abandoned = False

    async def ended(self) -> str:
        await self.exit.wait()
        return "exited with status 1"

    async def end(self, patience_s: float) -> None:
        if self.end_failures:
            self.end_failures -= 1
            raise ReplicaFailedError("the engine is away")
        self.ends += 1

    def abandon(self) -> None:
        self.is_abandoned = True


class Launcher:
    def __init__(self) -> None:
        self.spec = "v1"
        self.outlives_gateway = False
        self.adopted: list[Replica] = []
        self.launched: list[Replica] = []
        self.failures: list[Exception] = []
        self.exit_at_once = False
        self.is_open = False

    async def open(self) -> list[Replica]:
        self.is_open = True
        return self.adopted

    async def prepare(self) -> None:
        pass

    async def launch(self, number: str) -> Replica:
        if self.failures:
            raise self.failures.pop(0)
        replica = Replica(f"m-{number}", self.spec, 1000 + len(self.launched))
        self.launched.append(replica)
        if self.exit_at_once:
            replica.exit.set()
        return replica

    async def close(self) -> None:
        self.is_open = False


class Scene:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.upstream = Upstream()
        self.launcher = Launcher()
        upstream = cast(UpstreamClient, self.upstream)
        params = PoolParams(True, True, 10, 1 << 20, 0.1, 1.0)
        self.pool = Pool("m", params, cast(Any, None), self.clock, Random(1))
        self.supervisor = ReplicaSupervisor(
            self.pool, upstream, self.launcher, PARAMS, PROBE, self.clock
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.supervisor.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.cancelled(), task

    async def until(self, condition: Callable[[], bool], timeout_s: float = 8) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)

    @property
    def ready(self) -> set[str]:
        return {
            id
            for id, found in self.pool.endpoints.items()
            if found.is_ready and not found.is_draining
        }

    async def until_ready(self, *ids: str) -> None:
        await self.until(lambda: self.ready == set(ids) and self.supervisor.billed == len(ids))

    def roll(self, spec: str) -> None:
        self.launcher.spec = spec
        self.supervisor.reconfigure(PARAMS, PROBE)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_as_many_run_as_are_wanted_and_the_youngest_goes_first(scene: Scene):
    async with scene.running():
        scene.supervisor.want(3)
        await scene.until_ready("m-1.1", "m-2.1", "m-3.1")
        scene.supervisor.want(1)
        await scene.until_ready("m-1.1")
        assert [replica.ends for replica in scene.launcher.launched] == [0, 1, 1]
    assert [replica.ends for replica in scene.launcher.launched] == [1, 1, 1]
    assert scene.pool.endpoints == {}
    assert not scene.launcher.is_open


async def test_a_replica_that_failed_to_launch_is_launched_again(scene: Scene):
    scene.launcher.failures = [ReplicaFailedError("no image"), OSError("no memory")]
    async with scene.running():
        scene.supervisor.want(1)
        await scene.until_ready("m-1.3")


async def test_a_replica_that_is_never_ready_is_ended_and_launched_again(scene: Scene):
    scene.upstream.all_unready = True
    async with scene.running():
        scene.supervisor.want(1)
        await scene.until(lambda: len(scene.launcher.launched) == 1)
        scene.clock.advance(31)
        await scene.until(lambda: scene.launcher.launched[0].ends == 1)
        scene.upstream.all_unready = False
        await scene.until_ready("m-1.2")


async def test_replicas_that_exit_soon_are_launched_after_growing_pauses(scene: Scene):
    scene.launcher.exit_at_once = True
    async with scene.running():
        scene.supervisor.want(1)
        await scene.until(lambda: len(scene.launcher.launched) >= 2)
        await asyncio.sleep(1.0)
        assert len(scene.launcher.launched) <= 4
        scene.launcher.exit_at_once = False
        await scene.until(lambda: scene.supervisor.billed == 1 and len(scene.ready) == 1)


async def test_a_settled_replica_that_exits_is_replaced_at_once(scene: Scene):
    async with scene.running():
        scene.supervisor.want(1)
        await scene.until_ready("m-1.1")
        scene.clock.advance(31)
        scene.launcher.launched[0].exit.set()
        await scene.until_ready("m-1.2")
    assert scene.launcher.launched[0].ends == 1


async def test_a_hung_replica_is_replaced(scene: Scene):
    async with scene.running():
        scene.supervisor.want(1)
        await scene.until_ready("m-1.1")
        scene.pool.mark_ready("m-1.1", is_ready=False)
        scene.clock.advance(11)
        await scene.until_ready("m-1.2")


async def test_a_roll_never_serves_with_less_than_is_wanted(scene: Scene):
    least = 2
    async with scene.running():
        scene.supervisor.want(2)
        await scene.until_ready("m-1.1", "m-2.1")
        scene.roll("v2")

        def is_rolled() -> bool:
            nonlocal least
            least = min(least, len(scene.ready))
            assert scene.supervisor.billed <= 3
            return {replica.spec for replica in scene.launcher.launched if not replica.ends} == {
                "v2"
            }

        await scene.until(is_rolled)
        await scene.until(lambda: scene.supervisor.billed == 2)
    assert least == 2


async def test_a_roll_to_what_does_not_start_keeps_what_works(scene: Scene):
    async with scene.running():
        scene.supervisor.want(2)
        await scene.until_ready("m-1.1", "m-2.1")
        scene.launcher.failures = [ReplicaFailedError("no image")] * 1000
        scene.roll("broken")
        await scene.until(lambda: len(scene.launcher.failures) < 998)
        assert scene.ready == {"m-1.1", "m-2.1"}
        scene.roll("v1")
        await scene.until_ready("m-1.1", "m-2.1")


async def test_new_concurrency_reaches_replicas_that_run(scene: Scene):
    async with scene.running():
        scene.supervisor.want(1)
        await scene.until_ready("m-1.1")
        scene.supervisor.reconfigure(SupervisionParams(7, 30.0, 0.5), PROBE)
        assert scene.pool.endpoints["m-1.1"].capacity == 7


async def test_adopted_replicas_serve_and_are_told_of_once(scene: Scene):
    scene.launcher.adopted = [Replica("m-old", "v1", 900), Replica("m-older", "v0", 901)]
    async with scene.running():
        await scene.until(lambda: "m-old" in scene.ready)
        await scene.until(lambda: scene.launcher.adopted[1].ends == 1)  # another spec: rolled
        await scene.until(lambda: scene.supervisor.billed == 2)
        assert (scene.supervisor.take_over(), scene.supervisor.take_over()) == (2, 0)
        assert scene.launcher.adopted[0].ends == 0
        scene.supervisor.want(0)
        await scene.until(lambda: scene.supervisor.billed == 0)
    assert scene.launcher.adopted[0].ends == 1


async def test_an_adopted_replica_that_does_not_answer_is_replaced(scene: Scene):
    scene.launcher.adopted = [Replica("m-old", "v1", 900)]
    scene.upstream.unready = {scene.launcher.adopted[0].address}
    async with scene.running():
        await scene.until(lambda: scene.supervisor.billed == 1)
        scene.clock.advance(31)
        await scene.until_ready("m-1.1")
    assert scene.launcher.adopted[0].ends == 1


@pytest.mark.parametrize(("wanted", "ends"), [(2, [0, 0]), (1, [0, 1]), (0, [1, 1])])
async def test_what_is_wanted_may_outlive_the_gateway(scene: Scene, wanted: int, ends: list[int]):
    scene.launcher.outlives_gateway = True
    async with scene.running():
        scene.supervisor.want(2)
        await scene.until_ready("m-1.1", "m-2.1")
        scene.supervisor.want(wanted)
        await asyncio.sleep(0)
    assert [replica.ends for replica in scene.launcher.launched] == ends
    assert scene.pool.endpoints == {}


async def test_ending_is_not_given_up_while_the_platform_is_away(scene: Scene):
    async with scene.running():
        scene.supervisor.want(1)
        await scene.until_ready("m-1.1")
        scene.launcher.launched[0].end_failures = 2
        scene.supervisor.want(0)
        await scene.until(lambda: scene.supervisor.billed == 0)
    assert scene.launcher.launched[0].ends == 1


async def test_a_replica_that_does_not_end_in_time_is_abandoned(scene: Scene):
    async with scene.running():
        scene.supervisor.want(1)
        await scene.until_ready("m-1.1")
        scene.launcher.launched[0].end_failures = 1000
    assert scene.launcher.launched[0].is_abandoned


async def test_requests_in_flight_end_before_the_replica_does(scene: Scene):
    async with scene.running():
        scene.supervisor.want(1)
        await scene.until_ready("m-1.1")
        scene.pool.endpoints["m-1.1"].in_flight = 1
        scene.supervisor.want(0)
        await scene.until(lambda: scene.pool.endpoints["m-1.1"].is_draining)
        await asyncio.sleep(0.05)
        assert scene.launcher.launched[0].ends == 0
        await scene.until(lambda: scene.launcher.launched[0].ends == 1)  # after the drain's limit
