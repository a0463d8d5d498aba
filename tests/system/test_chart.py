"""The Helm chart: its manifests are valid and safe; values that cannot work are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.settings.loader import load
from router.settings.pools import KubernetesPool
from tests.system.tools import helm, kubernetes_validate, run

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "hybrid-router"
PROFILES = ["default", "ha", "openshift", "gpu"]
# They have schemas of their own.
CUSTOM = {"Route", "ServiceMonitor", "PrometheusRule", "HTTPRoute"}


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
    known = [found for found in rendered(profile) if found["kind"] not in CUSTOM]
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
        (
            (
                "--set",
                "autoscaling.enabled=true,redis.enabled=true,autoscaling.inFlightPerGateway=0",
            ),
            "needs cpuPercent or inFlight",
        ),
        (
            (
                "--set",
                "autoscaling.enabled=true,redis.enabled=true,autoscaling.cpuPercent=70,gateway.resources.requests=null",
            ),
            "requests.cpu, which is not set",
        ),
        (("--set", "ingress.enabled=true"), "ingress needs hosts"),
        (("--set", "httpRoute.enabled=true"), "httpRoute needs parentRefs"),
        (("--set", "gatewy.replicas=2"), "additional properties 'gatewy' not allowed"),
        (
            ("--set", r"gateway.podLabels.app\.kubernetes\.io/component=x"),
            "app.kubernetes.io/component is the chart's own",
        ),
        (
            (
                "--set-json",
                'models[0].pool.podDisruptionBudget={"minAvailable":1,"maxUnavailable":1}',
            ),
            "at '/models/0/pool/podDisruptionBudget': maxProperties: got 2, want 1",
        ),
        (("--set", "gateway.replicas=two"), "at '/gateway/replicas': got string, want integer"),
        (
            ("--set", "gateway.replica=2"),
            "at '/gateway': additional properties 'replica' not allowed",
        ),
        (("--set", "models[0].pool.gpus=1"), "at '/models/0/pool': additional properties 'gpus'"),
        (("--set", "models[0].pool.size=auto"), "at '/models/0/pool/size': value must be one of"),
        (
            ("--set", "gateway.mounts[0].name=keys"),
            "at '/gateway/mounts/0': missing property 'path'",
        ),
        (("--set", "config.models[0].name=m"), "models go into the chart's own list"),
    ],
)
def test_values_that_cannot_work_are_refused(options: tuple[str, ...], message: str):
    with pytest.raises(AssertionError, match=message):
        rendered("default", *options)


def test_pods_of_a_pool_run_where_and_as_they_are_told():
    pools = yaml.safe_load((CHART / "ci" / "gpu-values.yaml").read_text())
    pool = pools["models"][0]["pool"]
    spec = dict(pod_specs(rendered("gpu")))["rel-hybrid-router-llama"]
    for key in ("nodeSelector", "tolerations", "affinity", "runtimeClassName"):
        assert spec[key] == pool[key]
    (worker,) = spec["containers"]
    for key in ("command", "args", "env", "resources"):
        assert worker[key] == pool[key]


def test_only_a_liveness_path_that_the_worker_has_is_probed():
    def probed(*options: str) -> str | None:
        (worker,) = dict(pod_specs(rendered("default", *options)))["rel-hybrid-router-magika"][
            "containers"
        ]
        probe = worker.get("livenessProbe")
        return None if probe is None else str(probe["httpGet"]["path"])

    assert probed() == "/v2/health/live"
    assert probed("--set", "models[0].pool.readinessPath=/health") is None
    assert probed("--set", "models[0].pool.livenessPath=") is None
    assert probed("--set", "models[0].pool.livenessPath=/alive") == "/alive"


def test_files_of_the_gateway_are_mounted_and_secrets_are_its_groups_alone():
    spec = dict(pod_specs(rendered("gpu")))["rel-hybrid-router"]
    volumes = {found.pop("name"): found for found in spec["volumes"]}
    mounts = {found["name"]: found for found in spec["containers"][0]["volumeMounts"]}
    assert volumes["api-keys"] == {"secret": {"secretName": "api-keys", "defaultMode": 0o440}}
    assert spec["securityContext"]["fsGroup"] == 10001
    assert "serviceAccountToken" in volumes["cloud-identity"]["projected"]["sources"][0]
    assert (mounts["ca"]["mountPath"], mounts["ca"]["readOnly"]) == ("/etc/ca", True)
    assert set(volumes) == set(mounts)


def test_every_pod_may_pull_with_the_secrets_named():
    specs = dict(pod_specs(rendered("gpu")))
    assert len(specs) == 3
    assert all(spec["imagePullSecrets"] == [{"name": "registry"}] for spec in specs.values())


@pytest.mark.parametrize("kind", ["Ingress", "HTTPRoute"])
def test_ways_in_lead_to_the_data_port(kind: str):
    manifests = rendered("gpu")
    (found,) = [found["spec"] for found in manifests if found["kind"] == kind]
    assert "inference.example.com" in json.dumps(found)
    service = {
        port["name"]: port["port"]
        for of in manifests
        if (of["kind"], of["metadata"]["name"]) == ("Service", "rel-hybrid-router")
        for port in of["spec"]["ports"]
    }
    if kind == "Ingress":
        backend = found["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert (backend["name"], backend["port"]["name"] in service) == ("rel-hybrid-router", True)
    else:
        (backend,) = found["rules"][0]["backendRefs"]
        assert backend == {"name": "rel-hybrid-router", "port": service["http"]}


def test_gateways_scale_by_cpu_by_requests_in_flight_or_by_both():
    def metrics(profile: str, *options: str) -> list[str]:
        (found,) = [
            of for of in rendered(profile, *options) if of["kind"] == "HorizontalPodAutoscaler"
        ]
        return [metric["type"] for metric in found["spec"]["metrics"]]

    assert metrics("gpu") == ["Resource"]
    assert metrics("ha") == ["Pods"]
    assert metrics("ha", "--set", "autoscaling.cpuPercent=70") == ["Resource", "Pods"]


def test_alerts_and_dashboard_are_those_of_deploy():
    manifests = rendered("gpu")
    (rules,) = [found["spec"] for found in manifests if found["kind"] == "PrometheusRule"]
    assert rules == yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    (dashboard,) = [of for of in manifests if of["metadata"]["name"].endswith("-dashboard")]
    shown = json.loads(dashboard["data"]["hybrid-router.json"])
    assert shown == json.loads(
        (DEPLOY / "grafana" / "dashboards" / "hybrid-router.json").read_text()
    )
    # The alerts ask for this job, which the monitor takes from a label of the Service.
    (monitor,) = [found["spec"] for found in manifests if found["kind"] == "ServiceMonitor"]
    (scraped,) = [
        found["metadata"]["labels"]
        for found in manifests
        if found["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= found["metadata"]["labels"].items()
    ]
    assert scraped[monitor["jobLabel"]] == "hybrid-router"


def test_a_packaged_chart_has_the_files_and_not_links_to_them(tmp_path: Path):
    run(helm(), "package", CHART, "--destination", tmp_path)
    (archive,) = tmp_path.iterdir()
    values = CHART / "ci" / "gpu-values.yaml"
    assert "HybridRouterDown" in run(helm(), "template", "rel", archive, "--values", values)


def test_every_value_that_the_schema_knows_is_in_the_values_file():
    schema = json.loads((CHART / "values.schema.json").read_text())
    text = (CHART / "values.yaml").read_text()
    known = set(schema["properties"]) - {"global"}
    known |= set(schema["definitions"]["pool"]["properties"])
    known |= set(schema["properties"]["gateway"]["properties"])
    assert {name for name in known if f"{name}:" not in text} == set()
