"""What is true outside the gateway: prices, limits, how long things take. Read from a dated YAML.

Keys keep the user's names and units; what a file leaves out comes from its `default` model, then
from the configuration under test. Decides nothing and simulates nothing.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from router.replay.distributions import Constant, Distribution, Floats, Random, factors
from router.runtime import ModelRuntime
from router.settings.document import Document, parse, plain
from router.settings.functions import billed_vcpus
from router.settings.problems import ConfigError, Problem
from router.settings.quantities import COUNT, NUMBER, SIZE, Quantity, wrong
from router.settings.section import Section
from router.settings.sources import read_bounded, sources_of
from router.settings.validation import validate
from router.settings.values import Described, Text

_MILLISECONDS = Random("milliseconds", divisor=1000.0)
_SECONDS = Random("seconds")
_LIFETIME = Random("seconds", positive=True)
_BYTES = Random("bytes")

_Seconds = Annotated[float, Quantity(NUMBER, 0, 1e6)]
_Usd = Annotated[float, Quantity(NUMBER, 0, 10_000)]
_ModelName = Annotated[str, Text(r".{1,200}", "a model's name")]


def _day(value: object) -> datetime.date:
    try:
        return datetime.date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise wrong("must be a day such as 2026-11-01") from None


class StormKeys(Section):
    """Times in which a platform takes no calls at all."""

    every_s: Annotated[float, Quantity(NUMBER, 1, 1e9)] = Field(
        description="a storm begins so often, the first one after so long"
    )
    for_s: Annotated[float, Quantity(NUMBER, 0, 1e6)] = Field(description="and lasts so long")


class FunctionKeys(Section):
    """What is true of a model's function; None: as the configuration says."""

    usd_per_request: _Usd | None = Field(default=None, description="USD for each call")
    usd_per_gb_s: _Usd | None = Field(default=None, description="USD for each GB and second")
    usd_per_vcpu_s: _Usd | None = Field(
        default=None, description="USD for each vCPU and second, where they are priced apart"
    )
    min_billed_ms: Annotated[float, Quantity(NUMBER, 0, 1e6)] | None = Field(
        default=None, description="a call is billed for at least so long"
    )
    billing_step_ms: Annotated[float, Quantity(NUMBER, 0, 1e6)] | None = Field(
        default=None, description="and in steps of so long"
    )
    memory_mb: Annotated[int, Quantity(COUNT, 1, 1_000_000)] | None = Field(
        default=None, description="memory of one environment in MiB"
    )
    service_time_ms: Annotated[Distribution, _MILLISECONDS] | None = Field(
        default=None, description="time of a warm call; left out: as in the pool"
    )
    overhead_ms: Annotated[Distribution, _MILLISECONDS] | None = Field(
        default=None, description="what the platform adds to each call, unbilled"
    )
    cold_start_ms: Annotated[Distribution, _MILLISECONDS] | None = Field(
        default=None, description="what a cold start adds to a call; it is billed"
    )
    reclaim_s: _Seconds | None = Field(
        default=None, description="an environment unused for so long is reclaimed"
    )
    max_concurrency: Annotated[int, Quantity(COUNT, 1, 1_000_000)] | None = Field(
        default=None, description="environments at once; a call beyond is refused (429)"
    )
    new_environments_per_10_s: Annotated[int, Quantity(COUNT, 1, 1_000_000)] | None = Field(
        default=None, description="most environments started in 10 s; a call beyond is refused"
    )
    max_payload_bytes: Annotated[int, Quantity(SIZE, 1, 1 << 40)] | None = Field(
        default=None, description="largest request after encoding"
    )
    refusal_storms: StormKeys | None = Field(
        default=None, description="times in which every call is refused (429); left out: none"
    )


class ModelKeys(Section):
    """What is true of one model; None: as the configuration says."""

    service_time_ms: Annotated[Distribution, _MILLISECONDS] | None = Field(
        default=None, description="time a replica works on one request"
    )
    payload_bytes: Annotated[Distribution, _BYTES] | None = Field(
        default=None, description="sizes of requests, for traces that do not tell them"
    )
    concurrency: Annotated[int, Quantity(COUNT, 1, 10_000)] | None = Field(
        default=None, description="requests a replica really works on at once; more wait inside"
    )
    slowdown_at_once: Annotated[tuple[float, ...], BeforeValidator(factors)] | None = Field(
        default=None,
        description="how much longer each of 1, 2, 3, .. requests takes that a replica works on at"
        " once, such as [1, 1.2, 1.5]; left out: no longer",
    )
    startup_s: Annotated[Distribution, _SECONDS] | None = Field(
        default=None, description="from a replica's launch until it takes requests; billed"
    )
    min_billing_s: _Seconds | None = Field(
        default=None, description="a replica is paid for at least so long"
    )
    replica_usd_per_hour: _Usd | None = Field(default=None, description="USD for a replica")
    crash_after_s: Annotated[Distribution, _LIFETIME] | None = Field(
        default=None, description="a ready replica crashes after so long; left out: never"
    )
    signals_delay_s: _Seconds | None = Field(
        default=None, description="sizing sees the gateways' counters as they were so long ago"
    )
    serverless: FunctionKeys = Field(
        default_factory=FunctionKeys, description="the model's function"
    )


class World(Section):
    """A world file."""

    dated: Annotated[
        datetime.date, BeforeValidator(_day), Described("a day such as 2026-11-01")
    ] = Field(description="the day on which its figures were read")
    source: Annotated[str, Text(r".*", "text")] = Field(default="", description="where from")
    seed: Annotated[int, Quantity(COUNT, 0, 1 << 62)] = Field(
        default=1, description="of all random draws, unless --seed is given"
    )
    default: ModelKeys = Field(default_factory=ModelKeys, description="for every model")
    models: Mapping[_ModelName, ModelKeys] = Field(
        default={}, max_length=1000, description="by model; overrides `default` key by key"
    )


@dataclass(frozen=True, slots=True)
class FunctionWorld:
    """The truth about one function: seconds, bytes and USD. Distributions are in seconds."""

    usd_per_request: float
    usd_per_billed_s: float
    service_s: Distribution | None
    overhead_s: Distribution
    cold_start_s: Distribution
    reclaim_s: float
    max_concurrency: int
    new_environments_per_10_s: int
    max_payload_bytes: int
    storms: StormKeys | None = None
    min_billed_s: float = 0.0
    billing_step_s: float = 0.0

    def compute_usd(self, served_s: Floats) -> Floats:
        """What calls of these durations cost beside the fee for each."""
        billed_s = np.maximum(served_s, self.min_billed_s)
        if self.billing_step_s:
            # Not a step more for a float that came out a hair too long.
            billed_s = np.ceil(billed_s / self.billing_step_s - 1e-9) * self.billing_step_s
        return billed_s * self.usd_per_billed_s


@dataclass(frozen=True, slots=True)
class ModelWorld:
    """The truth about one model: seconds, bytes and USD."""

    service_s: Distribution
    payload_bytes: Distribution
    concurrency: int
    startup_s: Distribution
    min_billing_s: float
    replica_usd_per_s: float
    function: FunctionWorld | None
    slowdown: tuple[float, ...] = ()
    crash_after_s: Distribution | None = None
    signals_delay_s: float = 0.0

    @property
    def throughput(self) -> float:
        """Requests that a replica gets done, at best, in the time that one alone takes."""
        if not self.slowdown:
            return float(self.concurrency)
        return max(n / self.slowed(n) for n in range(1, self.concurrency + 1))

    def slowed(self, at_once: int) -> float:
        """How much longer a request takes as one of so many in a replica."""
        return self.slowdown[min(at_once, len(self.slowdown)) - 1] if self.slowdown else 1.0


_USUAL_PAYLOAD = Constant(1024.0)
_LAMBDA_RAMP = 1000


def load_world(path: Path | None) -> World:
    """The world in the file, or the one bundled. Raises ConfigError with all problems."""
    if path is None:
        bundled = resources.files("router.replay").joinpath("data", "world.yaml")
        return parse_world(bundled.read_bytes(), "world.yaml (bundled)")
    try:
        content = read_bounded(path)
    except OSError as error:
        problem = Problem(str(path), None, "", None, f"cannot be read: {error.strerror}")
        raise ConfigError([problem], sources_of([])) from error
    return parse_world(content, str(path))


def parse_world(content: bytes, file: str) -> World:
    """The world written in `content`. Raises ConfigError with all problems."""
    document: Document = parse(content, {}, file)
    problems = list(document.problems)
    world: Any = None
    if document.root is not None:
        world, found = validate(World, plain(document.root), document, {})
        problems += found
    elif not problems:
        problems = [Problem(file, None, "", None, "is empty")]
    if problems or not isinstance(world, World):
        raise ConfigError(problems, sources_of([]))
    return world


def model_world(world: World, model: ModelRuntime, name: str | None = None) -> ModelWorld:
    """The truth about a model: its own keys, else the default ones, else its configuration."""
    keys = [world.default]
    if (own := world.models.get(name or model.name)) is not None:
        keys.insert(0, own)
    pool = model.settings.pool
    function = model.settings.serverless
    configured = pool.service_time_s if pool else function.service_time_s if function else 0.05
    return ModelWorld(
        service_s=_first(keys, "service_time_ms", Constant(configured)),
        payload_bytes=_first(keys, "payload_bytes", _USUAL_PAYLOAD),
        concurrency=_first(keys, "concurrency", pool.concurrency if pool else 1),
        startup_s=_startup(keys, model),
        min_billing_s=_first(keys, "min_billing_s", pool.min_billing_s if pool else 0.0),
        replica_usd_per_s=_per_s(_first(keys, "replica_usd_per_hour", None), model),
        function=_function_world([key.serverless for key in keys], model),
        slowdown=_first(keys, "slowdown_at_once", ()),
        crash_after_s=_first(keys, "crash_after_s", None),
        signals_delay_s=_first(keys, "signals_delay_s", 0.0),
    )


def _function_world(keys: list[FunctionKeys], model: ModelRuntime) -> FunctionWorld | None:
    function = model.settings.serverless
    if function is None:
        return None
    price = function.price
    usd_per_gb_s = _first(keys, "usd_per_gb_s", price.usd_per_gb_s)
    usd_per_vcpu_s = _first(keys, "usd_per_vcpu_s", price.usd_per_vcpu_s)
    memory_mb = _first(keys, "memory_mb", function.memory_mb)
    return FunctionWorld(
        usd_per_request=_first(keys, "usd_per_request", price.usd_per_request),
        usd_per_billed_s=usd_per_gb_s * memory_mb / 1024 + usd_per_vcpu_s * billed_vcpus(function),
        service_s=_first(keys, "service_time_ms", None),
        overhead_s=_first(keys, "overhead_ms", Constant(0.0)),
        cold_start_s=_first(keys, "cold_start_ms", Constant(function.cold_start_s)),
        reclaim_s=_first(keys, "reclaim_s", function.idle_s),
        max_concurrency=_first(keys, "max_concurrency", function.max_concurrency),
        new_environments_per_10_s=_first(keys, "new_environments_per_10_s", _LAMBDA_RAMP),
        max_payload_bytes=_first(keys, "max_payload_bytes", function.limits.max_payload_bytes),
        storms=_first(keys, "refusal_storms", None),
        min_billed_s=_first(keys, "min_billed_ms", price.min_billed_s * 1e3) / 1e3,
        billing_step_s=_first(keys, "billing_step_ms", price.billing_step_s * 1e3) / 1e3,
    )


def _startup(keys: list[ModelKeys], model: ModelRuntime) -> Distribution:
    pool = model.settings.pool
    # Replicas that somebody else runs are there when the trace begins.
    if pool is None or pool.kind == "static":
        return Constant(0.0)
    found: Distribution = _first(keys, "startup_s", Constant(pool.startup_s))
    return found


def _per_s(usd_per_hour: float | None, model: ModelRuntime) -> float:
    if usd_per_hour is not None:
        return usd_per_hour / 3600.0
    return model.settings.pool.price_usd_per_s if model.settings.pool is not None else 0.0


def _first(keys: list[Any], name: str, default: Any) -> Any:  # noqa: ANN401 - of the key's type
    """The first value that is written for `name`, else `default`."""
    for group in keys:
        if (value := getattr(group, name)) is not None:
            return value
    return default
