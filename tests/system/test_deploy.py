"""What is in `deploy/` works: images, the gateway in a container, Prometheus' files."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.integration.end_to_end.client import MLP, infer
from tests.integration.end_to_end.gateway import eventually
from tests.system.containers import EngineProcess, Podman
from tests.system.tools import run

DEPLOY = Path(__file__).parents[2] / "deploy"
HARDENED = (
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "all",
    "--security-opt",
    "no-new-privileges",
)


# -- images --------------------------------------------------------------------------------------


def inspect(podman: Podman, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(podman.run("image", "inspect", image))[0]
    return found


@pytest.fixture
def container(podman: Podman) -> Iterator[Any]:
    """Starts containers that are gone after the test."""
    started = []

    def start(*arguments: str) -> str:
        started.append(podman.run("run", "--detach", *arguments))
        return started[-1]

    yield start
    for found in started:
        podman.run("rm", "--force", "--time", "0", found)


def healthy(podman: Podman, found: str) -> bool:
    """What the image's HEALTHCHECK says."""
    command = podman.command("healthcheck", "run", found)
    try:
        run("env", f"CONTAINERS_CONF={podman.environment['CONTAINERS_CONF']}", *command)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("user", ["", "1000680000:0"], ids=["the image's user", "OpenShift's user"])
def test_a_worker_runs_without_any_privilege(
    podman: Podman, worker_image: str, repository: Path, container: Any, user: str
):
    repository.chmod(0o755)
    as_user = ("--user", user) if user else ()
    models = ("--volume", f"{repository}:/models:ro")
    found = container(*HARDENED, *as_user, *models, worker_image, "--model", "mlp")
    eventually(lambda: healthy(podman, found), "a healthy worker", 30)
    assert podman.run("exec", found, "id", "-u") == (user.partition(":")[0] or "10001")
    podman.run("stop", "--time", "10", found)
    assert podman.run("inspect", "--format", "{{.State.ExitCode}}", found) == "0"


@pytest.mark.parametrize("user", ["", "1000680000:0"], ids=["the image's user", "OpenShift's user"])
def test_the_gateway_runs_without_any_privilege(
    podman: Podman, router_image: str, container: Any, tmp_path: Path, user: str
):
    config = tmp_path / "router.yaml"
    model = {"name": "m", "slo": {"latency_ms": 100}}
    model["pool"] = {"kind": "static", "urls": ["http://127.0.0.1:1"]}
    server = {"listen": "0.0.0.0:8080", "admin_listen": "0.0.0.0:9090"}
    config.write_text(yaml.safe_dump({"server": server, "models": [model]}))
    mount = ("--volume", f"{config}:/etc/hybrid-router/router.yaml:ro")
    found = container(*HARDENED, *(("--user", user) if user else ()), *mount, router_image)
    eventually(lambda: healthy(podman, found), "a healthy gateway", 30)
    podman.run("stop", "--time", "20", found)
    assert podman.run("inspect", "--format", "{{.State.ExitCode}}", found) == "0"


def test_images_are_not_root_and_know_their_health(
    podman: Podman, worker_image: str, router_image: str
):
    for image in (worker_image, router_image):
        found = inspect(podman, image)
        assert found["Config"]["User"] == "10001:0"
        assert found["Healthcheck"]["Test"][0] == "CMD"
        assert found["Config"]["StopSignal"] == "SIGTERM"


def test_images_are_small(podman: Podman, worker_image: str, router_image: str):
    base = inspect(podman, "localhost/hybrid-router-base:bookworm")["Size"]
    assert inspect(podman, worker_image)["Size"] - base < 250e6
    assert inspect(podman, router_image)["Size"] - base < 250e6


@pytest.fixture
def network(podman: Podman, namespace: str) -> Iterator[str]:
    podman.run("network", "create", "--internal", namespace)
    yield namespace
    podman.run("network", "rm", "--force", namespace)


@pytest.fixture
def gateway_config(repository: Path, network: str, tmp_path: Path) -> Path:
    """The compose file's configuration of the gateway, for a model of ours."""
    repository.chmod(0o755)
    settings = yaml.safe_load((DEPLOY / "compose" / "router.yaml").read_text())
    del settings["shared_state"]
    settings["models"] = [settings["models"][0] | {"name": "mlp"}]
    settings["models"][0]["pool"] |= {"network": network, "namespace": network}
    config = tmp_path / "router.yaml"
    config.write_text(yaml.safe_dump(settings))
    return config


@pytest.fixture
def gateway_arguments(
    gateway_config: Path,
    docker: EngineProcess,
    router_image: str,
    worker_image: str,
    repository: Path,
) -> tuple[str, ...]:
    """What `podman run` is given, as in the compose file."""
    docker.socket.chmod(0o660)
    return (
        *HARDENED,
        *("--network", "podman", "--publish", "127.0.0.1::8080"),
        *("--volume", f"{gateway_config}:/etc/hybrid-router/router.yaml:ro"),
        *("--volume", f"{docker.socket}:/var/run/docker.sock"),
        *("--env", f"MODELS={repository}", "--env", f"WORKER_IMAGE={worker_image}"),
        router_image,
    )


async def test_a_gateway_in_a_container_runs_its_workers_beside_it(
    podman: Podman, container: Any, gateway_arguments: tuple[str, ...], network: str
):
    gateway = container(*gateway_arguments)
    podman.run("network", "connect", network, gateway)
    eventually(lambda: healthy(podman, gateway), "a healthy gateway", 30)
    url = "http://" + podman.run("port", gateway, "8080/tcp")
    async with aiohttp.ClientSession() as session:
        outcome = await infer(session, url, "mlp", MLP)
    assert (outcome.status, outcome.backend) == (200, "pool"), podman.run("logs", gateway)
    (worker,) = podman.containers(network)
    assert worker["Ports"] is None, "only the gateway reaches it"
    await asyncio.to_thread(podman.run, "stop", "--time", "30", gateway)
    assert podman.containers(network, everything=True) == []


# -- Prometheus ----------------------------------------------------------------------------------


def test_prometheus_accepts_its_configuration_and_the_alerts_do_what_they_say():
    prometheus = DEPLOY / "prometheus"
    run("promtool", "check", "config", prometheus / "prometheus.yml")
    run("promtool", "test", "rules", prometheus / "alerts_test.yml")
