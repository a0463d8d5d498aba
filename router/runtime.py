"""What one configuration amounts to at run time, and the one pointer that a reload swaps.

A request takes `RuntimeRef.current` once and keeps it; state that outlives a reload (endpoints,
queues, estimates, counters) is shared between the old runtime and the new one by model name.
"""

import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from router.admission.hedging import Hedging
from router.admission.line import ticket_of
from router.admission.rates import RateLimit
from router.admission.retries import RetryBudget
from router.backends.pool.endpoints import Pool
from router.backends.pool.group import Group, HostPool
from router.backends.pool.health import HealthProber
from router.backends.pool.residents import Residents
from router.backends.serverless.function import Function
from router.backends.serverless.refresher import Refresher
from router.domain.decision import Backend, Reason
from router.domain.ports import PoolDriver
from router.domain.request import InferenceRequest
from router.policy.alternatives import DailyPeak
from router.policy.decide import ModelPolicy, State
from router.policy.deferral import NOTHING, Deferral, Together, Waiting
from router.policy.estimates import believed_s
from router.policy.sizing import Level, SizingParams, SizingReason
from router.policy.trial import CanaryTrial
from router.quality.quality import Quality, unwatched
from router.quality.tap import Tap
from router.settings.admin_token import AdminToken
from router.settings.keys import ApiKey, KeyRing
from router.settings.pools import PoolSettings
from router.settings.schema import ModelSettings, Settings
from router.settings.values import is_loopback
from router.settings.webhook_secrets import WebhookSecrets
from router.signals.memory import ModelSignals
from router.telemetry.labels import Alternative

Loops = Mapping[str, Callable[[], Awaitable[None]]]
"""Work in the background, by what it does."""


@dataclass(slots=True)
class SizingState:
    """What the controller remembers of one model between steps.

    `arrived_usd` is what its requests would have cost on serverless, as far as it is in
    `alternatives_usd`. `waiting` is what jobs ask of it, as their runner told last; `deferral` what
    becomes of that; `alone` the replicas that there would be without jobs.
    """

    levels: tuple[Level, ...] = ()
    wanted: int = 0
    reason: SizingReason = SizingReason.IDLE
    load: float = 0.0
    arrivals_per_s: float = 0.0
    warm_busy_usd: float = 0.0
    warm_idle_usd: float = 0.0
    kept_warm_usd: float = 0.0
    alternatives_usd: dict[Alternative, float] = field(default_factory=dict)
    arrived_usd: float = 0.0
    peak: DailyPeak = field(default_factory=DailyPeak)
    waiting: Waiting | None = None
    together: Together | None = None
    deferral: Deferral = NOTHING
    alone: int = 0


@dataclass(frozen=True, slots=True)
class GroupRuntime:
    """One shared pool: its replicas, and the models that have places on them.

    `pool` has the replicas as such; `source` as for a model.
    """

    name: str
    settings: PoolSettings
    pool: HostPool
    driver: PoolDriver
    prober: HealthProber
    source: object
    members: Group
    residents: Residents
    sizing: SizingState
    sizing_params: SizingParams

    @property
    def title(self) -> str:
        """What it is called in logs."""
        return f"pool {self.name}"

    @property
    def loops(self) -> Loops:
        """What keeps its replicas, and the models in them, going."""
        return {
            "driver": self.driver.run, "prober": self.prober.run, "models": self.residents.run
        }  # fmt: skip

    @property
    def is_busy(self) -> bool:
        """Whether requests run there or wait."""
        waiting = any(len(member.queue) for member in self.members.members.values())
        return waiting or bool(self.pool.in_flight)


@dataclass(frozen=True, slots=True)
class ModelRuntime:
    """One configured model: its policy, its backends and its counters.

    `source` says where the pool's replicas come from: while it compares equal, a reload keeps the
    pool, and rolls its replicas if they are to be different ones. Of a shared pool, driver and
    prober are the group's, and `pool` has the model's places.
    `tap` says which requests are sampled for their quality, None if none are. `matched` counts the
    decisions by the rule that matched, since this configuration is in force.
    """

    settings: ModelSettings
    policy: ModelPolicy
    signals: ModelSignals
    budget: RetryBudget
    sizing: SizingState
    serverless: Function | None = None
    pool: Pool | None = None
    driver: PoolDriver | None = None
    prober: HealthProber | None = None
    source: object = None
    sizing_params: SizingParams | None = None
    hedging: Hedging | None = None
    tap: Tap | None = None
    matched: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.settings.name

    @property
    def title(self) -> str:
        """What it is called in logs."""
        return f"model {self.name}"

    @property
    def loops(self) -> Loops:
        """What keeps its replicas going; nothing for those that it shares."""
        if self.driver is None or self.prober is None:
            return {}
        return {"driver": self.driver.run, "prober": self.prober.run}

    @property
    def is_busy(self) -> bool:
        """Whether requests run in its pool or wait there."""
        return self.pool is not None and bool(self.pool.in_flight or len(self.pool.queue))

    @property
    def group(self) -> str:
        """The name of the shared pool that it has places in; empty for none."""
        return self.settings.pool.group if self.settings.pool is not None else ""

    @property
    def has_answered(self) -> bool:
        """Whether a backend of it has ever answered."""
        pool, function = self.pool, self.serverless
        return (pool is not None and pool.has_answered) or (
            function is not None and function.calls > 0
        )

    @property
    def replica_usd_per_s(self) -> float:
        """What a warm replica costs; 0 without a pool."""
        return self.sizing_params.replica_usd_per_s if self.sizing_params is not None else 0.0

    @property
    def samples_next(self) -> bool:
        """Whether a sample is taken of its next request."""
        return self.tap is not None and self.tap.left <= 0

    def pass_sample(self) -> None:
        """Count a request of which no sample is taken."""
        if self.tap is not None:
            self.tap.left -= 1

    def addressed(self, request: InferenceRequest, version: str | None) -> InferenceRequest:
        """A request for another model or version as one for this; its body stays as it is."""
        path = request.protocol.path(request.action, self.settings.backend_name, version)
        return replace(request, model=self.name, version=version, path=path)

    def count_arrival(self, payload_bytes: int, now: float, is_captive: bool) -> None:
        """Count a request for the sizing: what it asks of the pool and would cost on serverless.

        `is_captive` as in `policy.decide.captive`.
        """
        price_usd, work_s = 0.0, self.believed_work_s(payload_bytes)
        if self.serverless is not None and not is_captive:
            price_usd = self.serverless.expected_price_usd(payload_bytes)
        self.arrived(now, work_s, price_usd, is_captive)

    def arrived(
        self, now: float, work_s: float, price_usd: float, is_captive: bool, requests: int = 1
    ) -> None:
        """Count requests that are alike: for the sizing, and for who may be tried again."""
        self.budget.deposit(now, requests)
        if self.hedging is not None:
            self.hedging.budget.deposit(now, requests)
        self.signals.arrived(work_s, price_usd, is_captive, requests)

    def believed_work_s(self, payload_bytes: int) -> float:
        """What a request of that size is believed to ask of the pool; 0 without one."""
        if self.pool is None:
            return 0.0
        function = self.serverless.service_times if self.serverless is not None else None
        return believed_s(self.pool.service_times, function, payload_bytes)

    def explores(self, backend: Backend, payload_bytes: int, now: float) -> None:
        """A request of that size goes to that backend to find out how long it takes there."""
        place = self.pool if backend is Backend.POOL else self.serverless
        assert place is not None  # noqa: S101  the policy only chooses what is configured
        answers = place.service_times.estimate(payload_bytes).count
        place.exploration.begun(payload_bytes, answers, self.signals.arrivals, now)

    def state(
        self,
        request: InferenceRequest,
        now: float,
        failed: Mapping[Backend, Reason],
        waited_s: float = 0.0,
        *,
        is_counted: bool = True,
    ) -> State:
        """Both backends as they are now, for this request, which has waited so long already.

        `is_counted` says whether its arrival has been counted.
        """
        size, ticket = request.payload_bytes, ticket_of(request)
        function, pool = self.serverless, self.pool
        seen = self.signals.arrivals + (not is_counted)
        version = request.version
        return State(
            function.snapshot(size, now, ticket, waited_s, seen) if function is not None else None,
            pool.snapshot(size, now, version, ticket, seen) if pool is not None else None,
            failed,
        )


@dataclass(frozen=True, slots=True)
class Runtime:
    """All that a request needs, immutable; `content_hash` names the configuration behind it.

    `deciding_headers` are those (lower case) that a rule or a canary looks at. `openai_paths` are
    those that the configuration adds, each with the models that have it.
    """

    settings: Settings
    models: Mapping[str, ModelRuntime]
    keys: KeyRing
    content_hash: str
    warnings: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    admin_token: AdminToken | None = None
    tls_expires_at: float | None = None
    webhook_secrets: WebhookSecrets | None = None
    rate_limits: dict[str, RateLimit] = field(default_factory=dict)
    credentials: Mapping[Hashable, Refresher[Any]] = field(default_factory=dict)
    trials: Mapping[str, CanaryTrial] = field(default_factory=dict)
    groups: Mapping[str, GroupRuntime] = field(default_factory=dict)
    deciding_headers: frozenset[str] = frozenset()
    openai_paths: Mapping[str, frozenset[str]] = field(default_factory=dict)
    quality: Quality = field(default_factory=unwatched)

    @property
    def owners(self) -> "Iterator[ModelRuntime | GroupRuntime]":
        """All that may have replicas: models, and pools that several of them share."""
        yield from self.models.values()
        yield from self.groups.values()

    @property
    def shows_addresses(self) -> bool:
        """Whether who reaches the admin port is an operator: by a token, or on this machine."""
        listen = self.settings.server.admin_listen
        return self.admin_token is not None or is_loopback(listen.host)

    def over_limit_s(self, key: ApiKey, now: float) -> float:
        """Take one request of the key's rate limit: 0 if it has one left, else seconds to wait."""
        if key.rate_per_s is None:
            return 0.0
        return self._limit(key, key.rate_per_s, now).take(now)

    def taken_elsewhere(self, requests: Mapping[str, int], now: float) -> None:
        """Other gateways have let so many requests of these keys through."""
        for name, count in requests.items():
            key = self.keys.named(name)
            if key is not None and key.rate_per_s is not None:
                self._limit(key, key.rate_per_s, now).taken_elsewhere(count, now)

    def _limit(self, key: ApiKey, rate_per_s: float, now: float) -> RateLimit:
        limit = self.rate_limits.get(key.name)
        if limit is None:
            burst = key.burst if key.burst is not None else max(1.0, rate_per_s)
            limit = self.rate_limits[key.name] = RateLimit(rate_per_s, burst, now)
        return limit


class RuntimeRef:
    """The pointer to the runtime in force."""

    def __init__(self, runtime: Runtime) -> None:
        self.current = runtime

    def swap(self, runtime: Runtime) -> Runtime:
        """Put the new runtime in force; returns the old one."""
        old, self.current = self.current, runtime
        return old
