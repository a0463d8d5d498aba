"""A pool of containers through a real Docker API: sized, adopted, killed, hung, rolled, cleaned."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.end_to_end.client import MLP, Outcome, count, infer
from tests.integration.end_to_end.conftest import StartGateway
from tests.integration.end_to_end.gateway import GatewayProcess
from tests.integration.end_to_end.models import settings
from tests.system.containers import EngineProcess, Podman


@pytest.fixture
def config(
    repository: Path, worker_image: str, docker: EngineProcess, namespace: str
) -> dict[str, Any]:
    """One model on containers only: there is no function to hide a lost replica."""
    repository.chmod(0o755)
    pool = {
        "kind": "docker",
        "image": worker_image,
        "command": ["--model", "{model}"],
        "volumes": [f"{repository}:/models:ro"],
        "memory": "512MiB",
        "cpus": 0.5,
        "engine": docker.url,
        "namespace": namespace,
        "min_replicas": 1,
        "max_replicas": 3,
        "concurrency": 4,
        "startup": "1s",
        "health": {"interval": "200ms", "timeout": "500ms"},
    }
    return settings(repository, {"name": "mlp", "slo": {"latency_ms": 5000}, "pool": pool})


# First in, last out: a gateway that still runs would replace the containers that are removed.
pytestmark = pytest.mark.usefixtures("namespace")


class Load:
    """Requests at a constant rate until told to stop."""

    def __init__(self, gateway: GatewayProcess, rps: float = 30) -> None:
        self._gateway = gateway
        self._rps = rps
        self._requests: list[asyncio.Task[Outcome]] = []

    async def __aenter__(self) -> "Load":
        self._session = aiohttp.ClientSession()
        self._loop = asyncio.create_task(self._send())
        return self

    async def _send(self) -> None:
        while True:
            call = infer(self._session, self._gateway.url, "mlp", MLP)
            self._requests.append(asyncio.create_task(call))
            await asyncio.sleep(1 / self._rps)

    async def __aexit__(self, *_: object) -> None:
        self._loop.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        await self._session.close()

    async def outcomes(self) -> list[Outcome]:
        self._loop.cancel()
        return await asyncio.gather(*self._requests)


async def until(gateway: GatewayProcess, ready: int, timeout_s: float = 40) -> dict[str, Any]:
    """The model's status, once so many replicas are ready and no others are paid for."""
    async with asyncio.timeout(timeout_s):
        while True:
            status = await gateway.status("mlp")
            if status["replicas_ready"] == status["replicas_billed"] == ready:
                return status
            await asyncio.sleep(0.1)


async def change(gateway: GatewayProcess, **pool: Any) -> None:
    """Edit the pool's settings and reload."""
    gateway.config["models"][0]["pool"].update(pool)
    gateway.write_config()
    async with (
        aiohttp.ClientSession() as session,
        session.post(gateway.admin + "/v1/reload") as response,
    ):
        assert response.status == 200, await response.text()


def all_succeeded(outcomes: list[Outcome]) -> None:
    counted = count(outcomes)
    assert {status for status, *_ in counted} == {200}, counted


async def test_the_pool_is_sized_under_load_and_nothing_is_left(
    start_gateway: StartGateway, config: dict[str, Any], podman: Podman, namespace: str
):
    config["models"][0]["pool"]["min_replicas"] = 0
    gateway = start_gateway(config)
    assert podman.containers(namespace) == []
    async with Load(gateway) as load:
        await change(gateway, min_replicas=3)
        await until(gateway, 3)
        three = podman.ids(namespace)
        assert len(three) == 3
        await asyncio.sleep(1)
        await change(gateway, min_replicas=1, max_replicas=1)
        await until(gateway, 1)
        outcomes = await load.outcomes()
    all_succeeded(outcomes)
    assert podman.ids(namespace) < three
    assert await asyncio.to_thread(gateway.stop) == 0
    assert podman.containers(namespace, everything=True) == []


@pytest.mark.parametrize(
    ("at_exit", "ends"),
    [("keep", "terminate"), ("stop", "kill")],
    ids=["a gateway that keeps them", "a gateway that was killed"],
)
async def test_the_next_gateway_adopts_what_runs(
    start_gateway: StartGateway,
    config: dict[str, Any],
    podman: Podman,
    namespace: str,
    at_exit: str,
    ends: str,
):
    config["models"][0]["pool"] |= {"at_exit": at_exit, "min_replicas": 0, "min_billing": "60s"}
    first = start_gateway(config)
    await change(first, min_replicas=2)
    await until(first, 2)
    containers = podman.ids(namespace)
    assert first.process is not None
    getattr(first.process, ends)()
    await asyncio.to_thread(first.wait)
    assert podman.ids(namespace) == containers
    # Nothing asks for replicas but that they are there and paid for.
    second = start_gateway(config)
    await until(second, 2)
    async with Load(second) as load:
        await asyncio.sleep(1)
        outcomes = await load.outcomes()
    all_succeeded(outcomes)
    assert podman.ids(namespace) == containers
    assert second.log.count("is adopted") == 2
    assert await asyncio.to_thread(second.stop) == 0
    left = podman.containers(namespace, everything=True)
    assert {found["Id"] for found in left} == (containers if at_exit == "keep" else set())


async def test_leftovers_are_removed_and_others_containers_are_not(
    start_gateway: StartGateway,
    config: dict[str, Any],
    podman: Podman,
    namespace: str,
    worker_image: str,
):
    def create(model: str, of: str) -> str:
        labels = (
            "--label",
            f"hybrid-router.model={model}",
            "--label",
            f"hybrid-router.namespace={of}",
        )
        return podman.run("create", *labels, worker_image, "--model", "mlp")

    never_started, of_a_gone_model = create("mlp", namespace), create("gone", namespace)
    of_another_gateway = create("mlp", f"{namespace}-other")
    try:
        gateway = start_gateway(config)
        await until(gateway, 1)
        mine = {found["Id"] for found in podman.containers(namespace, everything=True)}
        assert len(mine) == 1
        assert not mine & {never_started, of_a_gone_model}
        others = podman.containers(f"{namespace}-other", everything=True)
        assert [found["Id"] for found in others] == [of_another_gateway]
    finally:
        podman.remove_all(f"{namespace}-other")


@pytest.mark.parametrize("breakage", ["kill", "pause", "rm"])
async def test_a_container_that_dies_or_hangs_loses_no_request_and_is_replaced(
    start_gateway: StartGateway,
    config: dict[str, Any],
    podman: Podman,
    namespace: str,
    breakage: str,
):
    config["models"][0]["pool"]["min_replicas"] = 2
    gateway = start_gateway(config)
    await until(gateway, 2)
    before = podman.ids(namespace)
    victim = min(before)
    async with Load(gateway) as load:
        await asyncio.sleep(0.5)
        podman.run(breakage, *(["--force", "--time", "0"] if breakage == "rm" else []), victim)
        async with asyncio.timeout(40):
            while len(now := podman.ids(namespace) - {victim}) < 2:
                await asyncio.sleep(0.2)
        await until(gateway, 2)
        outcomes = await load.outcomes()
    all_succeeded(outcomes)
    assert before - {victim} < now, "the healthy one was not touched"
    every = {found["Id"] for found in podman.containers(namespace, everything=True)}
    assert every == now, "nothing is left of the victim"


async def test_what_a_container_wrote_before_it_ended_is_in_the_log(
    start_gateway: StartGateway, config: dict[str, Any]
):
    config["models"][0]["pool"]["command"] = ["--model", "nosuchmodel"]
    gateway = start_gateway(config)
    async with asyncio.timeout(40):
        while "it wrote last: " not in gateway.log:
            await asyncio.sleep(0.1)
    (line, *_) = [line for line in gateway.log.splitlines() if "it wrote last: " in line]
    assert "exited with status" in line
    assert "nosuchmodel" in line.partition("it wrote last: ")[2]


async def test_a_new_image_is_rolled_out_without_a_failed_request(
    start_gateway: StartGateway,
    config: dict[str, Any],
    podman: Podman,
    namespace: str,
    worker_image: str,
    tmp_path: Path,
):
    config["models"][0]["pool"]["min_replicas"] = 2
    newer = podman.derive(
        worker_image, f"localhost/hybrid-router-worker:{namespace}", tmp_path / "new"
    )
    gateway = start_gateway(config)
    await until(gateway, 2)
    before = podman.ids(namespace)
    async with Load(gateway) as load:
        await change(gateway, image="localhost/hybrid-router-worker:no-such-release")
        async with asyncio.timeout(20):
            while "did not pull the image" not in gateway.log:
                await asyncio.sleep(0.1)
        assert podman.ids(namespace) == before, "what works stays"
        await change(gateway, image=newer)
        async with asyncio.timeout(60):
            while podman.ids(namespace) & before:
                await asyncio.sleep(0.2)
        await until(gateway, 2)
        outcomes = await load.outcomes()
    all_succeeded(outcomes)
    assert {found["Image"] for found in podman.containers(namespace)} == {newer}


async def test_replicas_serve_while_the_engine_is_away(
    start_gateway: StartGateway,
    config: dict[str, Any],
    podman: Podman,
    namespace: str,
    docker: EngineProcess,
):
    gateway = start_gateway(config)
    await until(gateway, 1)
    async with Load(gateway) as load:
        docker.stop()
        await change(gateway, min_replicas=2)
        async with asyncio.timeout(20):
            while "a replica failed: the engine" not in gateway.log:
                await asyncio.sleep(0.1)
        docker.start()
        await until(gateway, 2)
        outcomes = await load.outcomes()
    all_succeeded(outcomes)
    assert await asyncio.to_thread(gateway.stop) == 0
    assert podman.containers(namespace, everything=True) == []


async def test_processes_side_by_side_do_not_take_each_others_containers(
    start_gateway: StartGateway, config: dict[str, Any], podman: Podman, namespace: str
):
    first = start_gateway(config)
    await until(first, 1)
    (ours,) = podman.ids(namespace)
    second = start_gateway(config)
    await until(second, 1)
    assert len(podman.ids(namespace)) == 2
    assert "is adopted" not in second.log
    assert first.process is not None
    first.process.kill()
    await asyncio.to_thread(first.wait)
    # Who is dead has no claim any more.
    third = start_gateway(config)
    await until(third, 1)
    assert third.log.count("is adopted") == 1
    assert ours in podman.ids(namespace)
    assert len(podman.ids(namespace)) == 2
