"""What is in `deploy/` works: images, the gateway in a container, Prometheus' files, the chart."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from router.settings.loader import load
from router.settings.pools import KubernetesPool
from tests.integration.end_to_end.client import MLP, infer
from tests.integration.end_to_end.gateway import eventually
from tests.system.containers import EngineProcess, Podman
from tests.system.tools import helm, kubernetes_validate, run

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "hybrid-router"
PROFILES = ["default", "ha", "openshift"]
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


# -- the Helm chart ------------------------------------------------------------------------------


def rendered(profile: str, *options: str) -> list[dict[str, Any]]:
    values = CHART / "ci" / f"{profile}-values.yaml"
    text = run(helm(), "template", "rel", CHART, "--namespace", "ml", "--values", values, *options)
    return [found for found in yaml.safe_load_all(text) if found]


def kinds(manifests: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(found["kind"], found["metadata"]["name"]) for found in manifests}


def pod_specs(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for found in manifests:
        if found["kind"] == "Deployment":
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_chart_is_valid(profile: str, tmp_path: Path):
    values = CHART / "ci" / f"{profile}-values.yaml"
    run(helm(), "lint", "--strict", CHART, "--values", values)
    manifests = tmp_path / "manifests.yaml"
    # Custom resources have schemas of their own.
    known = [
        found for found in rendered(profile) if found["kind"] not in {"Route", "ServiceMonitor"}
    ]
    manifests.write_text(yaml.safe_dump_all(known))
    run(*kubernetes_validate(), manifests)


def test_the_chart_refuses_models_that_would_share_a_deployment(tmp_path: Path):
    values = tmp_path / "values.yaml"
    pool = {"image": "worker:1", "maxReplicas": 1}
    models = [{"name": name, "pool": pool} for name in ("fraud.v1", "fraud-v1")]
    values.write_text(yaml.safe_dump({"models": models}))
    with pytest.raises(AssertionError, match=r"models fraud\.v1 and fraud-v1 would share"):
        run(helm(), "template", "x", CHART, "--values", values)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_pod_is_restricted(profile: str):
    for name, spec in pod_specs(rendered(profile)):
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # OpenShift gives each namespace its own range of users.
        assert ("runAsUser" in spec["securityContext"]) == (profile != "openshift")
        for found in spec["containers"]:
            assert found["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("profile", PROFILES)
def test_what_refers_to_pods_finds_them(profile: str):
    manifests = rendered(profile)
    pods = [
        found["spec"]["template"]["metadata"]["labels"]
        for found in manifests
        if found["kind"] == "Deployment"
    ]
    for found in manifests:
        spec = found.get("spec", {})
        selector = {
            "Service": lambda of: of["selector"],
            "NetworkPolicy": lambda of: of["podSelector"]["matchLabels"],
            "PodDisruptionBudget": lambda of: of["selector"]["matchLabels"],
        }.get(found["kind"])
        if selector is not None:
            matching = [labels for labels in pods if selector(spec).items() <= labels.items()]
            assert matching, found["metadata"]["name"]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_gateway_may_do_what_it_has_to_and_no_more(profile: str):
    manifests = rendered(profile)
    (role,) = [found for found in manifests if found["kind"] == "Role"]
    config = next(found for found in manifests if found["kind"] == "ConfigMap")
    models = yaml.safe_load(config["data"]["router.yaml"])["models"]
    sized = [model["pool"]["deployment"] for model in models if model["pool"]["size"] == "managed"]
    assert role["rules"] == [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["apps"],
            "resources": ["deployments/scale"],
            "resourceNames": sized,
            "verbs": ["get", "patch"],
        },
    ]
    assert not any(found["kind"].startswith("Cluster") for found in manifests)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_gateway_takes_the_configuration_it_is_given(profile: str, tmp_path: Path):
    config = next(found for found in rendered(profile) if found["kind"] == "ConfigMap")
    path = tmp_path / "router.yaml"
    path.write_text(config["data"]["router.yaml"])
    loaded = load(path, {"REDIS_URL": "redis://redis:6379/0"})
    # Probes and Prometheus come from elsewhere, and a token is for the user to make.
    assert [warning.key for warning in loaded.warnings] == ["server.admin_listen"]
    services = {name for kind, name in kinds(rendered(profile)) if kind == "Service"}
    for model in loaded.settings.models:
        assert isinstance(model.pool, KubernetesPool)
        assert (model.pool.namespace, model.pool.service in services) == ("ml", True)


def test_the_admin_port_has_its_token_from_a_secret(tmp_path: Path):
    named = ("--set", "adminToken.secret.name=door", "--set", "adminToken.secret.key=token")
    metrics = ("--set", "config.server.admin_metrics_token=true")
    manifests = rendered("ha", *named, *metrics)
    spec = dict(pod_specs(manifests))["rel-hybrid-router"]
    (volume,) = [found for found in spec["volumes"] if "secret" in found]
    assert volume["secret"] == {
        "secretName": "door", "defaultMode": 0o440, "items": [{"key": "token", "path": "token"}],
    }  # fmt: skip
    assert spec["securityContext"]["fsGroup"] == 10001
    mounts = {found["name"]: found["mountPath"] for found in spec["containers"][0]["volumeMounts"]}
    config = next(found for found in manifests if found["kind"] == "ConfigMap")
    server = yaml.safe_load(config["data"]["router.yaml"])["server"]
    assert server["admin_token_file"] == f"{mounts[volume['name']]}/token"
    services = {name for kind, name in kinds(manifests) if kind == "Service"}
    assert set(server["admin_hosts"]) & services == {"rel-hybrid-router-admin"}
    (monitor,) = [found for found in manifests if found["kind"] == "ServiceMonitor"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["authorization"] == {"credentials": {"name": "door", "key": "token"}}


def test_one_gateway_needs_neither_redis_nor_budget_nor_autoscaler():
    assert {kind for kind, _ in kinds(rendered("default"))} == {
        *("ConfigMap", "Deployment", "NetworkPolicy", "Role", "RoleBinding"),
        *("Service", "ServiceAccount"),
    }


def test_several_gateways_are_spread_scaled_and_kept():
    manifests = rendered("ha")
    assert {kind for kind, _ in kinds(manifests)} >= {
        *("HorizontalPodAutoscaler", "PodDisruptionBudget", "ServiceMonitor"),
    }
    assert ("Deployment", "rel-hybrid-router-redis") in kinds(manifests)
    (gateway,) = [
        found
        for found in manifests
        if (found["kind"], found["metadata"]["name"]) == ("Deployment", "rel-hybrid-router")
    ]
    assert "replicas" not in gateway["spec"], "the autoscaler sets it"
    assert gateway["spec"]["template"]["spec"]["topologySpreadConstraints"]


def test_openshift_gets_a_route():
    assert ("Route", "rel-hybrid-router") in kinds(rendered("openshift"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "gateway.replicas=2"), "several gateways need redis"),
        (("--set", "redis.enabled=true,redis.url=redis://x"), "leave out redis.url"),
        (("--set", "models=null"), "name at least one model"),
    ],
)
def test_values_that_cannot_work_are_refused(options: tuple[str, ...], message: str):
    with pytest.raises(AssertionError, match=message):
        rendered("default", *options)
