"""Settings of a warm pool to its objects: pool, driver, prober. Starts nothing.

Given the pool in force, it keeps what a reload shall not disturb: endpoints, queue, learned times,
and the driver with its replicas as long as they come from the same source.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from router.admission.adaptive import AdaptiveParams
from router.admission.outliers import OutlierParams
from router.backends.pool.caller import PoolCaller
from router.backends.pool.confinement import Cores
from router.backends.pool.endpoint import ENDPOINT_CIRCUIT, Endpoint
from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.pool.health import HealthProber, ProbeParams
from router.backends.pool.names import Names
from router.backends.pool.process import LogSpec, ProcessLauncher, ProcessSpec
from router.backends.pool.scale_hook import HookTarget, ScaleHook
from router.backends.pool.static import StaticDriver, StaticParams
from router.backends.pool.supervisor import Launcher, ReplicaSupervisor, SupervisionParams
from router.backends.serverless.secret_files import SecretFile
from router.domain.clock import Clock
from router.domain.ports import PoolDriver
from router.policy.sizing import SizingParams
from router.runtime import GroupRuntime, ModelRuntime
from router.settings.pools import (
    DockerPool,
    HookAuth,
    KubernetesPool,
    PoolSettings,
    ProcessPool,
    ScaleSettings,
    StaticPool,
)
from router.settings.schema import ModelSettings, Settings
from router.upstream.address import parse_address
from router.upstream.client import UpstreamClient

P = TypeVar("P", bound=Pool)


@dataclass(frozen=True, slots=True)
class PoolParts:
    """What pools share with the rest of the gateway."""

    upstream: UpstreamClient
    clock: Clock
    wall_clock: Clock
    rng: Random
    cores: Cores
    sockets: Path
    changed: set[str]


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a pool: one model, or all models which share it.

    `served_as` and `version` are what the replicas load by themselves, None if they are told.
    """

    name: str
    pool: PoolSettings
    served_as: str | None
    version: str | None
    is_last_resort: bool


def owner_of(model: ModelSettings) -> Owner:
    """A model as the owner of its pool, which it must have."""
    function = model.serverless
    assert model.pool is not None  # noqa: S101  asked only for those that have one
    return Owner(
        name=model.name,
        pool=model.pool,
        served_as=model.backend_name,
        version=model.version,
        is_last_resort=function is None or not function.enabled,
    )


@dataclass(frozen=True, slots=True)
class PoolRuntime(Generic[P]):
    """A pool and what keeps it. `source` says where its replicas come from."""

    pool: P
    driver: PoolDriver
    prober: HealthProber
    source: object


def imagine_replicas(model: ModelRuntime) -> None:
    """Give the pool the replicas that it has whatever the load: in mind only, to explain with."""
    pool, sizing = model.pool, model.sizing_params
    if pool is None or sizing is None or model.settings.pool is None:
        return
    nowhere = parse_address("http://127.0.0.1:1")
    for number in range(sizing.min_replicas):
        endpoint = Endpoint(f"{model.name}-{number}", nowhere, model.settings.pool.concurrency)
        pool.add(endpoint)
        endpoint.is_ready = True
    pool.wanted = sizing.min_replicas


def assemble_pool(
    owner: Owner,
    settings: Settings,
    parts: PoolParts,
    old: ModelRuntime | GroupRuntime | None,
    make: type[P],
) -> PoolRuntime[P]:
    """A pool of that type, with what keeps its replicas."""
    params, probe = pool_params(owner), _probe_params(owner)
    source = _source(owner.pool)
    caller = PoolCaller(parts.upstream, owner.pool.timeouts.connect_s)
    kept = _kept(old, source, make)
    if kept is not None:
        kept.pool.reconfigure(params)
        kept.pool.caller = caller
        kept.prober.params = probe
        _reconfigure(kept.driver, owner, settings, probe)
        return kept
    pool = make(owner.name, params, caller, parts.clock, parts.rng, parts.changed)
    driver = _driver(pool, owner, settings, parts, probe)
    prober = HealthProber(pool, parts.upstream, probe, parts.clock)
    return PoolRuntime(pool, driver, prober, source)


def _kept(
    old: ModelRuntime | GroupRuntime | None, source: object, make: type[P]
) -> PoolRuntime[P] | None:
    if old is None or old.driver is None or old.prober is None or old.source != source:
        return None
    # A model that had a place in a shared pool has no driver, so it cannot get that far.
    assert isinstance(old.pool, make)  # noqa: S101
    return PoolRuntime(old.pool, old.driver, old.prober, source)


def pool_params(owner: Owner) -> PoolParams:
    """Bounds and priors of a pool."""
    pool = owner.pool
    ejection = pool.health.ejection
    return PoolParams(
        enabled=pool.enabled,
        can_start=not isinstance(pool, StaticPool) or pool.scale is not None,
        max_queued=pool.queue.max_requests,
        max_queued_bytes=pool.queue.max_bytes,
        service_time_s=pool.service_time_s,
        startup_s=pool.startup_s,
        is_last_resort=owner.is_last_resort,
        slow_start_s=pool.health.slow_start_s,
        circuit=replace(
            ENDPOINT_CIRCUIT,
            failures_to_open=ejection.failures,
            pause_s=ejection.pause_s,
            max_pause_s=max(ejection.pause_s, ejection.max_pause_s),
        ),
        adaptive=None
        if pool.adaptive is None
        else AdaptiveParams(pool.adaptive.minimum, pool.adaptive.maximum),
        outliers=OutlierParams(ejection.slower_by, ejection.least_excess_s, ejection.max_share),
    )


def sizing_params(pool: PoolSettings) -> SizingParams:
    """Bounds and prices for whoever sizes the pool."""
    is_fixed = isinstance(pool, StaticPool) and pool.scale is None
    fixed = len(pool.urls) if isinstance(pool, StaticPool) and is_fixed else None
    return SizingParams(
        min_replicas=pool.min_replicas if fixed is None else fixed,
        max_replicas=pool.max_replicas if fixed is None else fixed,
        packing=pool.packing_ratio,
        replica_usd_per_s=pool.price_usd_per_s,
        startup_s=pool.startup_s,
        min_billing_s=pool.min_billing_s,
    )


def _source(pool: PoolSettings) -> object:
    """Where replicas come from; those from the same source can be kept, or rolled."""
    match pool:
        case StaticPool():
            # A capacity that was learned is not the configured one any more.
            slots = pool.concurrency, pool.adaptive is None
            return pool.kind, pool.urls, slots, pool.resolve_s, pool.scale
        case DockerPool():
            return pool.kind, pool.engine, pool.namespace
        case KubernetesPool():
            where = (pool.namespace, pool.service, pool.deployment, pool.port, pool.kubeconfig)
            return pool.kind, pool.size, where
        case ProcessPool():
            return pool.kind


def _driver(
    pool: Pool, owner: Owner, settings: Settings, parts: PoolParts, probe: ProbeParams
) -> PoolDriver:
    of = owner.pool
    if isinstance(of, StaticPool):
        return _static_driver(pool, of, settings, parts)
    if isinstance(of, KubernetesPool):
        # Only here, as below: the client library is an optional dependency.
        from router.assembly.kubernetes import kubernetes_driver  # noqa: PLC0415

        return kubernetes_driver(pool, of, settings, parts.upstream, parts.clock)
    launcher = _launcher(owner, of, settings, parts)
    supervision = _supervision(of, settings)
    return ReplicaSupervisor(pool, parts.upstream, launcher, supervision, probe, parts.clock)


def _static_driver(
    pool: Pool, of: StaticPool, settings: Settings, parts: PoolParts
) -> StaticDriver:
    hook = None
    if of.scale is not None:
        target = _hook_target(of.scale)
        hook = ScaleHook(pool.model, target, parts.upstream, parts.wall_clock)
    names = Names(parse_address(url) for url in of.urls)
    params = _static_params(of, settings)
    return StaticDriver(pool, parts.upstream, names, params, hook, parts.clock)


def _static_params(of: StaticPool, settings: Settings) -> StaticParams:
    return StaticParams(of.concurrency, of.resolve_s, settings.server.drain_timeout_s)


def _hook_target(of: ScaleSettings) -> HookTarget:
    parts = urlsplit(of.url)
    address = parse_address(f"{parts.scheme}://{parts.netloc}")
    secret = SecretFile(of.secret_file) if of.secret_file is not None else None
    return HookTarget(address, parts.path or "/", secret, of.auth is HookAuth.HMAC)


def _launcher(
    owner: Owner, of: ProcessPool | DockerPool, settings: Settings, parts: PoolParts
) -> Launcher:
    if isinstance(of, ProcessPool):
        spec, logs = _process_spec(owner, of, settings), _logs(of, settings)
        return ProcessLauncher(owner.name, spec, logs, parts.cores, parts.sockets)
    from router.assembly.docker import container_launcher  # noqa: PLC0415

    return container_launcher(owner.name, owner.served_as or owner.name, of, settings)


def _reconfigure(driver: PoolDriver, owner: Owner, settings: Settings, probe: ProbeParams) -> None:
    of = owner.pool
    if isinstance(of, KubernetesPool):
        from router.assembly.kubernetes import reconfigure_kubernetes  # noqa: PLC0415

        reconfigure_kubernetes(driver, of, settings)
    if isinstance(of, StaticPool) and isinstance(driver, StaticDriver):
        driver.params = _static_params(of, settings)
    if not isinstance(driver, ReplicaSupervisor):
        return
    if isinstance(of, DockerPool):
        from router.assembly.docker import reconfigure_containers  # noqa: PLC0415

        reconfigure_containers(driver.launcher, owner.served_as or owner.name, of, settings)
    elif isinstance(of, ProcessPool) and isinstance(driver.launcher, ProcessLauncher):
        driver.launcher.configured = _process_spec(owner, of, settings)
        driver.launcher.logs = _logs(of, settings)
    driver.reconfigure(_supervision(of, settings), probe)


def _supervision(pool: PoolSettings, settings: Settings) -> SupervisionParams:
    return SupervisionParams(
        concurrency=pool.concurrency,
        start_timeout_s=max(30.0, 10 * pool.startup_s),
        drain_s=settings.server.drain_timeout_s,
    )


def _probe_params(owner: Owner) -> ProbeParams:
    health = owner.pool.health
    return ProbeParams(
        path=health.path,
        interval_s=health.interval_s,
        timeout_s=health.timeout_s,
        unhealthy_after=health.unhealthy_after,
        healthy_after=health.healthy_after,
        metadata_path=f"/v2/models/{owner.served_as or owner.name}",
    )


# -- worker processes ----------------------------------------------------------------------------


def _process_spec(owner: Owner, pool: ProcessPool, settings: Settings) -> ProcessSpec:
    is_looked_for = owner.served_as is not None and not pool.command
    return ProcessSpec(
        model=owner.served_as or owner.name,
        command=pool.command or _worker_command(owner, settings),
        env=dict(pool.env),
        cpus=pool.cpus,
        memory_bytes=pool.memory_bytes,
        repository=settings.workers.repository if is_looked_for else None,
        version=owner.version,
    )


def _logs(pool: ProcessPool, settings: Settings) -> LogSpec:
    return LogSpec(settings.workers.log, pool.log_folder, pool.log_max_bytes)


def _worker_command(owner: Owner, settings: Settings) -> tuple[str, ...]:
    options: dict[str, object] = {
        "--repository": settings.workers.repository,
        "--listen": "unix:{socket}",
        "--threads": settings.workers.threads,
        "--max-body": settings.server.max_body_bytes,
        "--drain-s": settings.server.drain_timeout_s,
    }
    if owner.served_as is not None:
        options["--model"] = "{model}"
    elif owner.pool.model_memory_bytes:
        options["--memory"] = owner.pool.model_memory_bytes
    if owner.version is not None:
        options["--version"] = owner.version
    pairs = (part for name, value in options.items() for part in (name, str(value)))
    return (sys.executable, "-m", "workers.http_server", *pairs, "--exit-with-parent")
