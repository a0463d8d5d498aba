"""Settings to runtime: builds every object and connects them. Starts nothing.

Given the runtime in force, it carries over what must outlive a reload: endpoints, queues, learned
times, counters. `check` and `serve` go through here alike.
"""

import asyncio
import sys
import time
from dataclasses import dataclass
from random import Random

from router.admission.rates import RateLimit
from router.admission.retries import RetryBudget
from router.backends.child_process import free_port
from router.backends.pool.caller import PoolCaller
from router.backends.pool.endpoints import Pool, PoolParams
from router.backends.pool.health import HealthProber, ProbeParams
from router.backends.pool.process import ProcessDriver, ReplicaParams
from router.backends.pool.static import StaticDriver
from router.backends.serverless.aws_lambda import LambdaCaller, LambdaTarget
from router.backends.serverless.function import Function, FunctionParams
from router.backends.serverless.local_host import LocalFunctionSpec
from router.domain.clock import Clock, Sleep
from router.domain.decision import Backend
from router.domain.ports import PoolDriver
from router.domain.snapshot import ServerlessLimits
from router.policy.decide import ModelPolicy
from router.policy.rules import Glob, Match, Route, Rule, rules_for
from router.policy.sizing import SizingParams
from router.policy.steering import Slo
from router.runtime import ModelRuntime, Runtime, SizingState
from router.settings.loader import Loaded
from router.settings.schema import (
    AwsLambda,
    ColdStart,
    LocalFunction,
    ModelSettings,
    PoolSettings,
    ProcessPool,
    RouteName,
    RuleSettings,
    ServerlessSettings,
    Settings,
    StaticPool,
    Weights,
)
from router.signals.memory import SignalBook
from router.upstream.address import Address, parse_address
from router.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class Parts:
    """What all runtimes of one gateway process share."""

    upstream: UpstreamClient
    book: SignalBook
    local_host: Address
    clock: Clock
    wall_clock: Clock
    sleep: Sleep
    rng: Random


def new_parts() -> Parts:
    """The real clock, client and randomness of a gateway process."""
    clock = time.monotonic
    return Parts(
        upstream=UpstreamClient(clock=clock),
        book=SignalBook(),
        # Chosen once for the life of the process: the functions' callers keep the address.
        local_host=parse_address(f"http://127.0.0.1:{free_port()}"),
        clock=clock,
        wall_clock=time.time,
        sleep=asyncio.sleep,
        rng=Random(),  # noqa: S311  spreads load, guards nothing
    )


def assemble(loaded: Loaded, parts: Parts, previous: Runtime | None = None) -> Runtime:
    """The runtime of a configuration. Raises nothing that the loader has not checked."""
    settings = loaded.settings
    rules = tuple(_rule(rule) for rule in settings.rules)
    old = previous.models if previous is not None else {}
    models = {
        model.name: _model(model, settings, rules, parts, old.get(model.name))
        for model in settings.models
    }
    return Runtime(
        settings=settings,
        models=models,
        keys=loaded.keys,
        content_hash=loaded.content_hash,
        warnings=tuple(str(warning) for warning in loaded.warnings),
        rate_limits=_kept_limits(loaded, previous),
    )


def local_functions(settings: Settings) -> list[LocalFunctionSpec]:
    """What the function host on this machine shall run."""
    specs = {}
    for model in settings.models:
        function = model.serverless
        if isinstance(function, LocalFunction) and function.enabled:
            specs[function.function] = LocalFunctionSpec(
                name=function.function,
                handler="workers.lambda_handler.handler",
                environment={
                    "MODEL_REPOSITORY": str(settings.workers.repository),
                    "MODEL_NAME": model.name,
                    "MODEL_THREADS": str(settings.workers.threads),
                },
                memory_mb=function.memory_mb,
                timeout_s=function.timeout_s,
                max_concurrency=function.max_concurrency,
                idle_s=function.idle_s,
                init_timeout_s=function.init_timeout_s,
            )
    return list(specs.values())


def _kept_limits(loaded: Loaded, previous: Runtime | None) -> dict[str, RateLimit]:
    """Rate limits of keys that did not change, so that a reload refills nobody's bucket."""
    if previous is None:
        return {}
    return {
        name: limit
        for name, limit in previous.rate_limits.items()
        if (key := loaded.keys.named(name)) is not None and key == previous.keys.named(name)
    }


# -- one model -----------------------------------------------------------------------------------


def _model(
    model: ModelSettings,
    settings: Settings,
    rules: tuple[Rule, ...],
    parts: Parts,
    old: ModelRuntime | None,
) -> ModelRuntime:
    pool, driver, prober, replicas = _pool(model, settings, parts, old)
    return ModelRuntime(
        settings=model,
        policy=ModelPolicy(rules_for(rules, model.name), _slo(model)),
        signals=parts.book.model(model.name),
        budget=old.budget if old is not None else RetryBudget(),
        sizing=old.sizing if old is not None else SizingState(),
        serverless=_function(model, settings, parts, old),
        pool=pool,
        driver=driver,
        prober=prober,
        replicas=replicas,
        sizing_params=_sizing_params(model.pool),
    )


def _slo(model: ModelSettings) -> Slo:
    slo = model.slo
    return Slo(slo.latency_s, slo.percentile, slo.cold_start is ColdStart.ALLOW)


def _sizing_params(pool: PoolSettings | None) -> SizingParams | None:
    if pool is None:
        return None
    fixed = len(pool.urls) if isinstance(pool, StaticPool) else None
    return SizingParams(
        min_replicas=pool.min_replicas if fixed is None else fixed,
        max_replicas=pool.max_replicas if fixed is None else fixed,
        packing=pool.packing_ratio,
        replica_usd_per_s=pool.price_usd_per_s,
        startup_s=pool.startup_s,
        min_billing_s=pool.min_billing_s,
    )


# -- rules ---------------------------------------------------------------------------------------


def _rule(rule: RuleSettings) -> Rule:
    match = rule.match
    sizes = match.payload
    limits = {} if sizes is None else {"min_bytes": sizes.min_bytes}
    if sizes is not None and sizes.max_bytes is not None:
        limits["max_bytes"] = sizes.max_bytes
    return Rule(
        rule.name,
        Match(
            models=tuple(Glob(pattern) for pattern in match.model),
            versions=frozenset(match.version),
            tenants=frozenset(match.tenant),
            headers=tuple((name, Glob(value)) for name, value in match.header.items()),
            **limits,
        ),
        _route(rule.route),
    )


def _route(route: RouteName | Weights) -> Route:
    if isinstance(route, Weights):
        return Route(serverless_share=route.serverless / (route.serverless + route.pool))
    backends = {RouteName.POOL: Backend.POOL, RouteName.SERVERLESS: Backend.SERVERLESS}
    return Route(backend=backends.get(route))


# -- serverless ----------------------------------------------------------------------------------


def _function(
    model: ModelSettings, settings: Settings, parts: Parts, old: ModelRuntime | None
) -> Function | None:
    function = model.serverless
    if function is None:
        return None
    params = _function_params(model.name, function)
    caller = LambdaCaller(_target(function, parts), parts.upstream)
    if old is not None and old.serverless is not None:
        old.serverless.reconfigure(params, caller)
        return old.serverless
    return Function(params, caller, parts.clock)


def _function_params(model: str, function: ServerlessSettings) -> FunctionParams:
    return FunctionParams(
        endpoint_id=f"{model}-fn",
        enabled=function.enabled,
        limits=ServerlessLimits(
            function.limits.max_payload_bytes, function.timeout_s, can_stream=False
        ),
        max_concurrency=function.max_concurrency,
        max_queued=function.queue.max_requests,
        max_queued_bytes=function.queue.max_bytes,
        reclaim_s=function.idle_s,
        usd_per_request=function.price.usd_per_request,
        usd_per_billed_s=function.price.usd_per_gb_s * function.memory_mb / 1024,
        service_time_s=function.service_time_s,
        cold_start_s=function.cold_start_s,
    )


def _target(function: ServerlessSettings, parts: Parts) -> LambdaTarget:
    if isinstance(function, AwsLambda):
        url = function.endpoint_url or f"https://lambda.{function.region}.amazonaws.com"
        address, qualifier = parse_address(url), function.qualifier
    else:
        address, qualifier = parts.local_host, ""
    return LambdaTarget(
        address=address,
        function=function.function,
        qualifier=qualifier,
        max_payload_bytes=function.limits.max_payload_bytes,
        max_response_bytes=function.limits.max_response_bytes,
    )


# -- pool ----------------------------------------------------------------------------------------


def _pool(
    model: ModelSettings, settings: Settings, parts: Parts, old: ModelRuntime | None
) -> tuple[Pool | None, PoolDriver | None, HealthProber | None, object]:
    """The pool with its driver and prober; those in force if their replicas are the same."""
    if model.pool is None:
        return None, None, None, None
    params, probe = _pool_params(model.pool), _probe_params(model.pool)
    replicas = _replicas(model.pool, settings)
    same = old is not None and old.replicas == replicas
    if same and old is not None and old.pool is not None and old.prober is not None:
        old.pool.reconfigure(params)
        old.prober.params = probe
        return old.pool, old.driver, old.prober, replicas
    caller = PoolCaller(parts.upstream, model.pool.timeouts.connect_s)
    pool = Pool(model.name, params, caller, parts.clock, parts.rng)
    driver: PoolDriver
    if isinstance(replicas, ReplicaParams):
        driver = ProcessDriver(pool, parts.upstream, replicas, probe, parts.clock)
    else:
        driver = StaticDriver(pool, replicas, model.pool.concurrency)
    prober = HealthProber(pool, parts.upstream, probe, parts.clock, parts.sleep)
    return pool, driver, prober, replicas


def _replicas(pool: PoolSettings, settings: Settings) -> ReplicaParams | tuple[Address, ...]:
    """What the pool's replicas are; a reload that changes it builds the pool anew."""
    if isinstance(pool, StaticPool):
        return tuple(parse_address(url) for url in pool.urls)
    return ReplicaParams(
        command=pool.command or _worker_command(pool, settings),
        env=dict(pool.env),
        concurrency=pool.concurrency,
        start_timeout_s=max(30.0, 10 * pool.startup_s),
        drain_s=settings.server.drain_timeout_s,
        log=settings.workers.log,
    )


def _worker_command(pool: ProcessPool, settings: Settings) -> tuple[str, ...]:
    options = {
        "--repository": settings.workers.repository,
        "--model": "{model}",
        "--listen": "127.0.0.1:{port}",
        "--threads": settings.workers.threads,
        "--max-body": settings.server.max_body_bytes,
        "--drain-s": settings.server.drain_timeout_s,
    }
    pairs = (part for name, value in options.items() for part in (name, str(value)))
    return (sys.executable, "-m", "workers.http_server", *pairs, "--exit-with-parent")


def _pool_params(pool: PoolSettings) -> PoolParams:
    return PoolParams(
        enabled=pool.enabled,
        can_start=isinstance(pool, ProcessPool),
        max_queued=pool.queue.max_requests,
        max_queued_bytes=pool.queue.max_bytes,
        service_time_s=pool.service_time_s,
        startup_s=pool.startup_s,
    )


def _probe_params(pool: PoolSettings) -> ProbeParams:
    health = pool.health
    return ProbeParams(
        path=health.path,
        interval_s=health.interval_s,
        timeout_s=health.timeout_s,
        unhealthy_after=health.unhealthy_after,
        healthy_after=health.healthy_after,
    )


def host_command(address: Address, drain_s: float) -> tuple[str, ...]:
    """How the function host of this machine is started."""
    listen = f"{address.host}:{address.port}"
    host = (sys.executable, "-m", "workers.function_host", "--listen", listen)
    return (*host, "--drain-s", str(drain_s), "--exit-with-parent")
