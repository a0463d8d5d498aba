"""Settings of a model's pool, one group for each kind.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, ValidationInfo, field_validator

from router.settings.extras import child_needs_extra, needs_extra
from router.settings.quantities import (
    COUNT,
    DURATION,
    GIB,
    HOUR_S,
    MIB,
    NUMBER,
    SIZE,
    Quantity,
    wrong,
)
from router.settings.replicas import AnyPool
from router.settings.section import Section
from router.settings.values import FilePath, Text, Url

ReplicaUrl = Annotated[str, Url(("http", "https"))]
Argument = Annotated[str, Text(r".+", "a text of 1..4096 characters")]
VariableName = Annotated[
    str, Text(r"[A-Za-z_][A-Za-z0-9_]{0,199}", "1..200 characters of A-Z a-z 0-9 _")
]
ImageName = Annotated[
    str,
    Text(
        r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,500}",
        "an image such as ghcr.io/acme/worker:1.4, of A-Z a-z 0-9 . _ : / @ -",
    ),
]
NetworkName = Annotated[
    str, Text(r"([A-Za-z0-9][A-Za-z0-9_.:-]{0,127})?", "a network's name, or empty")
]
Volume = Annotated[
    str,
    Text(r"[^:]+:/[^:]*(:(ro|rw))?", "HOST-PATH-OR-NAME:PATH, optionally with :ro"),
]
EngineUrl = Annotated[str, Url(("unix", "tcp", "http", "https"))]
DockerNamespace = Annotated[
    str, Text(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", "1..63 characters of A-Z a-z 0-9 _ . -")
]
KubernetesName = Annotated[
    str,
    Text(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "1..63 characters of a-z 0-9 - as in Kubernetes"),
]
KubernetesPort = Annotated[
    str, Text(r"([a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?)?", "a port's name or number, or empty")
]
KubernetesZone = Annotated[
    str, Text(r"[A-Za-z0-9._-]{0,63}", "a zone's name of 0..63 characters of A-Z a-z 0-9 . _ -")
]
VariableValue = Annotated[str, Text(r".*", "a text of 0..4096 characters")]


_BUNDLED_WORKER = child_needs_extra("onnxruntime", "worker", " for the bundled worker")


class ProcessPool(AnyPool):
    """Worker processes on this machine, started and stopped by the gateway."""

    kind: Literal["process"] = Field(description="worker processes on this machine")
    command: tuple[Argument, ...] = Field(
        default=(),
        validate_default=True,
        max_length=100,
        description="program and arguments, with {socket} or {port}, and {model}; "
        "empty: the bundled worker",
    )
    env: Mapping[VariableName, VariableValue] = Field(
        default={}, max_length=100, description="extra environment variables of the workers"
    )
    cpus: Annotated[int, Quantity(COUNT, 0, 1024)] = Field(
        default=0, description="cores that a worker is kept on; 0: any (Linux)"
    )
    memory_bytes: Annotated[int, Quantity(SIZE, 0, 4096 * GIB)] = Field(
        default=0,
        alias="memory",
        description="a worker that has more is replaced; 0: no bound (Linux)",
    )
    log_folder: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None,
        description="folder with a file for each worker's output; empty: as workers.log says",
    )
    log_max_bytes: Annotated[int, Quantity(SIZE, 4096, 64 * GIB)] = Field(
        default=10 * MIB,
        alias="log_max",
        description="a longer file in that folder becomes NAME.log.1 in place of the one before",
    )

    @field_validator("command")
    @classmethod
    def _bundled_worker_can_run(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return value or _BUNDLED_WORKER(value)

    @field_validator("cpus", "memory_bytes")
    @classmethod
    def _can_be_confined(cls, value: int) -> int:
        if value and sys.platform != "linux":
            raise wrong("must be 0 on this platform; Linux can do it")
        return value

    @field_validator("command")
    @classmethod
    def _command_takes_an_address(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        text = " ".join(value)
        if value and "{port}" not in text and "{socket}" not in text:
            raise wrong("must contain {socket} or {port}, or the worker could not be reached")
        return value


class HookAuth(StrEnum):
    """How a scale hook knows who calls."""

    BEARER = "bearer"
    HMAC = "hmac"


class ScaleSettings(Section):
    """A hook that is told how many replicas are wanted, and sees to it."""

    url: ReplicaUrl = Field(description='gets POST {"model": ..., "replicas": ...}; repeated')
    secret_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="file with a secret on one line; empty: nothing is proven"
    )
    auth: HookAuth = Field(
        default=HookAuth.BEARER,
        description="bearer: the secret in Authorization; hmac: x-router-signature, "
        "HMAC-SHA256 of x-router-timestamp, a dot and the body",
    )


class StaticPool(AnyPool):
    """Replicas that somebody else runs."""

    kind: Literal["static"] = Field(description="replicas that somebody else runs")
    urls: tuple[ReplicaUrl, ...] = Field(
        min_length=1,
        max_length=100,
        description="base URL of each replica; a name may stand for several addresses",
    )
    resolve_s: Annotated[float, Quantity(DURATION, 0.0, HOUR_S)] = Field(
        default=30.0,
        alias="resolve",
        description="time between lookups of the names among them; 0: only at the start",
    )
    scale: ScaleSettings | None = Field(
        default=None, description="a hook that changes their number; absent: it is fixed"
    )


class AtExit(StrEnum):
    """What becomes of a pool's containers when the gateway ends."""

    STOP = "stop"
    KEEP = "keep"


class DockerPool(AnyPool):
    """Containers on this machine's Docker (or podman) engine, managed by the gateway."""

    kind: Annotated[Literal["docker"], AfterValidator(needs_extra("aiodocker", "docker"))] = Field(
        description="containers of the Docker engine (or podman)"
    )
    image: ImageName = Field(description="image of a replica; pulled if the engine lacks it")
    command: tuple[Argument, ...] = Field(
        default=(),
        max_length=100,
        description="arguments, with {model}; empty: what the image says",
    )
    env: Mapping[VariableName, VariableValue] = Field(
        default={}, max_length=100, description="environment variables; values may have {model}"
    )
    port: Annotated[int, Quantity(COUNT, 1, 65_535)] = Field(
        default=8000, description="port on which the container serves"
    )
    memory_bytes: Annotated[int, Quantity(SIZE, 0, 4096 * GIB)] = Field(
        default=0, alias="memory", description="memory limit of a replica; 0: none"
    )
    cpus: Annotated[float, Quantity(NUMBER, 0, 1024)] = Field(
        default=0, description="CPU limit of a replica, in cores; 0: none"
    )
    gpus: Annotated[int, Quantity(COUNT, 0, 64)] = Field(
        default=0, description="GPUs of a replica, chosen by the engine; 0: none"
    )
    shm_bytes: Annotated[int, Quantity(SIZE, 0, 4096 * GIB)] = Field(
        default=0,
        alias="shm_size",
        description="size of /dev/shm, which Triton and PyTorch share tensors in; 0: the engine's",
    )
    registry_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None,
        description="logins of registries, as `docker login` writes them (config.json with auths), "
        "read at each pull; empty: none",
    )
    network: NetworkName = Field(
        default="",
        description="network in which replicas are reached by their address; "
        "empty: by a port of 127.0.0.1",
    )
    volumes: tuple[Volume, ...] = Field(
        default=(), max_length=100, description="mounts, as HOST-PATH-OR-NAME:PATH[:ro]"
    )
    restricted: StrictBool = Field(
        default=True,
        description="read-only root file system but /tmp, no capabilities, no privilege gain",
    )
    engine: EngineUrl = Field(
        default="unix:///var/run/docker.sock", description="the engine's socket or URL"
    )
    namespace: DockerNamespace = Field(
        default="hybrid-router",
        description="label of our containers; one gateway's alone on its engine",
    )
    at_exit: AtExit = Field(
        default=AtExit.STOP,
        description="when the gateway ends: stop, or keep for the next gateway to adopt",
    )

    @field_validator("network")
    @classmethod
    def _has_addresses(cls, value: str) -> str:
        if value in {"host", "none"} or value.startswith("container:"):
            raise wrong("must be a network in which every container has an address of its own")
        return value


class SizedBy(StrEnum):
    """Who sets the number of a pool's replicas."""

    MANAGED = "managed"
    EXTERNAL = "external"


class KubernetesPool(AnyPool):
    """Pods behind a Service, whose Deployment the gateway sizes. OpenShift included."""

    kind: Annotated[
        Literal["kubernetes"], AfterValidator(needs_extra("kubernetes_asyncio", "kubernetes"))
    ] = Field(description="pods behind a Kubernetes Service")
    namespace: KubernetesName = Field(description="namespace of the Service and the Deployment")
    service: KubernetesName = Field(description="Service whose endpoints are the replicas")
    deployment: KubernetesName | None = Field(
        default=None,
        validate_default=True,
        description="Deployment that is sized; not needed with size: external",
    )
    port: KubernetesPort = Field(
        default="", description="name or number of the Service's port; empty: the first"
    )
    size: SizedBy = Field(
        default=SizedBy.MANAGED,
        validate_default=True,
        description="managed: the gateway sets the Deployment's size; "
        "external: an HPA or KEDA does (see router_replicas_wanted)",
    )
    zone: KubernetesZone = Field(
        default="",
        description="zone of this gateway: replicas that the Service's topology hints give to it "
        "are preferred while they have room; empty: no preference",
    )
    kubeconfig: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="file of credentials; empty: the pod's service account"
    )

    @field_validator("size")
    @classmethod
    def _can_be_sized(cls, value: SizedBy, info: ValidationInfo) -> SizedBy:
        if value is SizedBy.MANAGED and info.data.get("deployment", value) is None:
            raise wrong("must be external where no deployment is named")
        return value


PoolName = Annotated[
    str, Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "1..63 characters of A-Z a-z 0-9 . _ -")
]
PoolSettings = Annotated[
    ProcessPool | StaticPool | DockerPool | KubernetesPool, Field(discriminator="kind")
]
