"""Who sets a Deployment's size, when, and what stands in the way."""

import asyncio

import pytest

from router.backends.pool import kubernetes
from router.backends.pool.rivals import RESETS
from tests.fakes.kubernetes_api import Fault, endpoint, slice_of
from tests.integration.kubernetes.conftest import Scene


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "_LOOK_EVERY_S", 0.1)


async def led(scene: Scene) -> None:
    """The controller has asked for what is there already."""
    await scene.until(lambda: scene.driver.take_over() == 2)


def writes(scene: Scene) -> int:
    return scene.api.count("PATCH", "scale")


async def test_the_leader_sets_the_size(scene: Scene):
    async with scene.running():
        await led(scene)
        scene.driver.want(5)
        await scene.until_scale(5)
        scene.driver.want(0)
        await scene.until_scale(0)
        await scene.until(lambda: scene.driver.billed == 0)
    assert writes(scene) == 2


async def test_nothing_is_changed_before_the_sizing_knows_what_runs(scene: Scene):
    async with scene.running():
        scene.driver.want(0)
        await scene.until(lambda: scene.api.count("GET", "scale") >= 3)
        assert scene.api.scales["dep"] == 2
        assert (scene.driver.take_over(), scene.driver.take_over()) == (2, 0)
        await scene.until_scale(0)


async def test_a_gateway_that_was_not_told_writes_nothing_and_pays_nothing(scene: Scene):
    async with scene.running():
        await led(scene)
        await scene.until(lambda: scene.api.count("GET", "scale") >= 3)
        assert (writes(scene), scene.driver.billed) == (0, 0)


async def test_a_gateway_that_led_once_does_not_insist(scene: Scene):
    async with scene.running():
        await led(scene)
        scene.driver.want(3)
        await scene.until_scale(3)
        await scene.until(lambda: scene.driver.billed == 3)
        scene.clock.advance(11)
        scene.api.scales["dep"] = 7  # the new leader's
        seen = scene.api.count("GET", "scale")
        await scene.until(lambda: scene.api.count("GET", "scale") >= seen + 3)
        assert (scene.api.scales["dep"], scene.driver.billed) == (7, 0)


async def test_a_size_that_somebody_changed_is_set_again(scene: Scene):
    async with scene.running():
        await led(scene)
        scene.driver.want(3)
        await scene.until_scale(3)
        scene.api.scales["dep"] = 9
        await scene.until_scale(3)


async def test_an_autoscaler_beside_us_is_not_fought_for_ever(
    scene: Scene, caplog: pytest.LogCaptureFixture
):
    """An HPA sets one replica whenever the gateway has set three."""
    async with scene.running():
        await led(scene)
        scene.driver.want(3)
        for _ in range(RESETS):
            await scene.until_scale(3)
            scene.api.scales["dep"] = 1
        await scene.until(lambda: scene.pool.is_sized_by_others)
        seen = scene.api.count("GET", "scale")
        scene.driver.want(4)
        await scene.until(lambda: scene.api.count("GET", "scale") >= seen + 3)
        assert (scene.api.scales["dep"], writes(scene)) == (1, RESETS)
        (told,) = [text for text in caplog.messages if "size: external" in text]
        assert told.startswith("model m: something else sets the replicas of dep time and again")
        scene.driver.reconfigure(scene.driver._params)
        assert not scene.pool.is_sized_by_others
        scene.driver.want(5)
        await scene.until_scale(5)


async def test_a_gateway_cut_off_from_the_others_only_adds(scene: Scene):
    async with scene.running():
        await led(scene)
        scene.driver.want(1, may_shrink=False)
        seen = scene.api.count("GET", "scale")
        await scene.until(lambda: scene.api.count("GET", "scale") >= seen + 3)
        assert scene.api.scales["dep"] == 2
        scene.driver.want(4, may_shrink=False)
        await scene.until_scale(4)
        scene.driver.want(1)
        await scene.until_scale(1)


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_a_refused_write_is_made_again(scene: Scene, status: int):
    async with scene.running():
        await led(scene)
        scene.api.faults.append(Fault("scale", status))
        scene.driver.want(3)
        await scene.until_scale(3)


async def test_a_missing_deployment_or_right_leaves_traffic_alone(
    scene: Scene, caplog: pytest.LogCaptureFixture
):
    del scene.api.scales["dep"]
    await scene.api.put(slice_of("s1", endpoint("10.0.0.1", "a")))
    async with scene.running():
        await scene.until_hosts("10.0.0.1")
        await scene.until(lambda: 'deployments.apps "dep" not found' in caplog.text)
        scene.api.scales["dep"] = 2
        await led(scene)


async def test_with_an_external_size_the_deployment_is_not_even_read(external: Scene):
    await external.api.put(slice_of("s1", endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b")))
    async with external.running():
        await external.until_hosts("10.0.0.1", "10.0.0.2")
        external.driver.want(9)
        await asyncio.sleep(0.3)
        assert external.driver.take_over() == 0
        assert external.driver.billed == 2
    assert external.api.count("GET", "scale") + external.api.count("PATCH", "scale") == 0


async def test_the_time_a_replica_takes_to_start_is_learned(scene: Scene):
    async with scene.running():
        await led(scene)
        scene.driver.want(3)
        await scene.until_scale(3)
        await scene.until(lambda: scene.driver.billed == 3)
        before = scene.pool.startup.mean_s
        scene.clock.advance(9)
        await scene.api.put(slice_of("s1", endpoint("10.0.0.1", "a")))
        await scene.until_hosts("10.0.0.1")
        assert scene.pool.startup.mean_s > before
