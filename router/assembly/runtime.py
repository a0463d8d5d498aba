"""Settings to runtime: builds every object and connects them. Starts nothing.

Given the runtime in force, it carries over what must outlive a reload: endpoints, queues, learned
times, counters. `check` and `serve` go through here alike.
"""

import asyncio
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from router.admission.hedging import HedgeParams, Hedging
from router.admission.rates import RateLimit
from router.admission.retries import RetryBudget
from router.assembly.functions import CredentialBook, FunctionParts, assemble_function
from router.assembly.groups import assemble_group, member_of
from router.assembly.pools import PoolParts, PoolRuntime, assemble_pool, owner_of, sizing_params
from router.assembly.quality import quality_params
from router.assembly.rules import kept_trials, rule_of
from router.backends.pool.confinement import Cores, available_cores
from router.backends.pool.endpoints import Pool
from router.backends.serverless.local_host import LocalFunctionSpec
from router.domain.clock import Clock, Sleep
from router.policy.decide import ModelPolicy
from router.policy.rules import Rule, rules_for
from router.policy.steering import Slo
from router.quality.quality import Quality
from router.runtime import GroupRuntime, ModelRuntime, Runtime, SizingState
from router.settings.functions import LocalFunction
from router.settings.loader import Loaded
from router.settings.schema import ColdStart, ModelSettings, Settings
from router.settings.sharing import groups_of
from router.signals.memory import SignalBook
from router.turns import Steps, at_once
from router.upstream.address import Address, parse_address
from router.upstream.client import UpstreamClient

Warm = tuple[Pool | None, PoolRuntime[Pool] | None]

_NOWHERE = Path("/nonexistent")
_RETRY_BURST = 50.0
"""Retries that quiet times may save up."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What all runtimes of one gateway process share."""

    upstream: UpstreamClient
    book: SignalBook
    sockets: Path
    clock: Clock
    wall_clock: Clock
    sleep: Sleep
    rng: Random
    cores: Cores
    quality: Quality = field(default_factory=lambda: Quality(Random(), time.time))  # noqa: S311

    @property
    def of_pools(self) -> PoolParts:
        """The parts that pools are built of."""
        return PoolParts(
            self.upstream, self.clock, self.wall_clock, self.rng, self.cores, self.sockets,
            self.book.changed,
        )  # fmt: skip

    @property
    def local_host(self) -> Address:
        """Where the function host listens."""
        return parse_address(f"unix:{self.sockets / 'functions.sock'}")


def new_parts(sockets: Path = _NOWHERE) -> Parts:
    """The real clock, client and randomness of a gateway process.

    `sockets` is the folder in which the function host and the workers of this machine listen. It
    is private to this user, for whoever reaches them has them work; without it nothing can start.
    """
    clock = time.monotonic
    return Parts(
        upstream=UpstreamClient(clock=clock),
        book=SignalBook(),
        sockets=sockets,
        clock=clock,
        wall_clock=time.time,
        sleep=asyncio.sleep,
        rng=Random(),  # noqa: S311  spreads load, guards nothing
        cores=Cores(available_cores()),
    )


def assemble(loaded: Loaded, parts: Parts, previous: Runtime | None = None) -> Runtime:
    """The runtime of a configuration. Raises nothing that the loader has not checked."""
    return at_once(assembling(loaded, parts, previous))


def assembling(loaded: Loaded, parts: Parts, previous: Runtime | None) -> Steps[Runtime]:
    """As `assemble`, in steps; what is carried over takes its new bounds one after the other."""
    settings = loaded.settings
    rules = tuple(rule_of(rule) for rule in settings.rules)
    yield
    old = previous.models if previous is not None else {}
    credentials = CredentialBook(previous.credentials if previous is not None else {})
    groups, models = {}, {}
    for name, sharing in groups_of(settings).items():
        group = previous.groups.get(name) if previous is not None else None
        groups[name] = assemble_group(name, sharing, settings, parts.of_pools, group)
        yield
    for model in settings.models:
        kept = old.get(model.name)
        warm = _warm(model, settings, parts, kept, groups)
        models[model.name] = _model(model, rules, parts, credentials, kept, warm)
        yield
    limits = yield from _keeping_limits(loaded, previous)
    return Runtime(
        settings=settings,
        models=models,
        keys=loaded.keys,
        content_hash=loaded.content_hash,
        quality=parts.quality,
        warnings=tuple(str(warning) for warning in loaded.warnings),
        tls=loaded.tls,
        admin_token=loaded.admin_token,
        tls_expires_at=loaded.tls_expires_at,
        webhook_secrets=loaded.webhook_secrets,
        rate_limits=limits,
        credentials=credentials.used,
        trials=kept_trials(rules, previous),
        groups=groups,
        deciding_headers=frozenset().union(*(rule.headers for rule in rules)),
        openai_paths=_openai_paths(settings),
    )


def _openai_paths(settings: Settings) -> dict[str, frozenset[str]]:
    """The models that have each path which the configuration adds."""
    found = defaultdict(set)
    for model in settings.models:
        for path in model.openai_paths:
            found[path].add(model.name)
    return {path: frozenset(names) for path, names in found.items()}


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
                    "MODEL_NAME": model.backend_name,
                    "MODEL_VERSION": model.version or "",
                    "MODEL_THREADS": str(settings.workers.threads),
                },
                memory_mb=function.memory_mb,
                timeout_s=function.timeout_s,
                max_concurrency=function.max_concurrency,
                idle_s=function.idle_s,
                init_timeout_s=function.init_timeout_s,
            )
    return list(specs.values())


def _keeping_limits(loaded: Loaded, previous: Runtime | None) -> Steps[dict[str, RateLimit]]:
    """Rate limits of keys that did not change, so that a reload refills nobody's bucket."""
    kept: dict[str, RateLimit] = {}
    if previous is None:
        return kept
    for name, limit in list(previous.rate_limits.items()):
        key = loaded.keys.named(name)
        if key is not None and key == previous.keys.named(name):
            kept[name] = limit
        yield
    return kept


# -- one model -----------------------------------------------------------------------------------


def _model(
    model: ModelSettings,
    rules: tuple[Rule, ...],
    parts: Parts,
    credentials: CredentialBook,
    old: ModelRuntime | None,
    warm: Warm,
) -> ModelRuntime:
    pool, own = warm
    return ModelRuntime(
        settings=model,
        policy=ModelPolicy(rules_for(rules, model.name), _slo(model)),
        signals=parts.book.model(model.name),
        budget=_retry_budget(model, old),
        sizing=old.sizing if old is not None else SizingState(),
        serverless=assemble_function(
            model,
            FunctionParts(parts.upstream, parts.local_host, parts.clock, parts.wall_clock),
            credentials,
            old.serverless if old is not None else None,
        ),
        pool=pool,
        driver=own.driver if own is not None else None,
        prober=own.prober if own is not None else None,
        source=own.source if own is not None else None,
        sizing_params=sizing_params(model.pool) if model.pool is not None else None,
        hedging=_hedging(model, old),
        tap=parts.quality.tap(model.name, quality_params(model.quality)),
    )


def _warm(
    model: ModelSettings,
    settings: Settings,
    parts: Parts,
    old: ModelRuntime | None,
    groups: Mapping[str, GroupRuntime],
) -> Warm:
    """The model's pool, and what keeps it if it is the model's alone."""
    if model.pool is None:
        return None, None
    if model.pool.group:
        return member_of(groups[model.pool.group], model, parts.of_pools), None
    own = assemble_pool(owner_of(model), settings, parts.of_pools, old, Pool)
    return own.pool, own


def _retry_budget(model: ModelSettings, old: ModelRuntime | None) -> RetryBudget:
    share, floor_per_s = model.retries.budget_share, model.retries.floor_per_s
    # Nothing saved up where nothing is ever granted.
    burst = _RETRY_BURST if share or floor_per_s else 0.0
    if old is None:
        return RetryBudget(share, floor_per_s, burst)
    old.budget.reconfigure(share, floor_per_s, burst)
    return old.budget


def _hedging(model: ModelSettings, old: ModelRuntime | None) -> Hedging | None:
    if model.hedge is None:
        return None
    hedge = model.hedge
    params = HedgeParams(hedge.percentile, hedge.budget_share, hedge.floor_per_s)
    if old is None or old.hedging is None:
        return Hedging(params)
    old.hedging.reconfigure(params)
    return old.hedging


def _slo(model: ModelSettings) -> Slo:
    slo = model.slo
    return Slo(slo.latency_s, slo.percentile, slo.cold_start is ColdStart.ALLOW)


# -- the function host ---------------------------------------------------------------------------


def host_command(address: Address, drain_s: float) -> tuple[str, ...]:
    """How the function host of this machine is started."""
    host = (sys.executable, "-m", "workers.function_host", "--listen", address.url)
    return (*host, "--drain-s", str(drain_s), "--exit-with-parent", str(os.getpid()))
