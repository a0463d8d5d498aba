"""Settings that every kind of pool has: how many replicas, how they are timed, probed and paid.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

from typing import Annotated

from pydantic import Field, PrivateAttr, StrictBool, ValidationInfo, field_validator

from router.settings.quantities import (
    COUNT,
    DURATION,
    GIB,
    HOUR_S,
    MILLISECONDS,
    NUMBER,
    PER_HOUR,
    SIZE,
    Quantity,
    wrong,
)
from router.settings.queue import QueueSettings
from router.settings.section import Section
from router.settings.values import Text

UrlPath = Annotated[str, Text(r"/[!-~]{0,1000}", "a path starting with /, without spaces")]


class PoolTimeouts(Section):
    """Deadlines towards a replica."""

    connect_s: Annotated[float, Quantity(DURATION, 0.01, 60.0)] = Field(
        default=1.0, alias="connect", description="time to open a connection"
    )
    response_s: Annotated[float, Quantity(DURATION, 0.01, 24 * HOUR_S)] = Field(
        default=60.0, alias="response", description="time until the response starts"
    )


class EjectionSettings(Section):
    """When a replica is set aside although its probes are good, and for how long."""

    failures: Annotated[int, Quantity(COUNT, 1, 100)] = Field(
        default=3, description="failed attempts in a row that set a replica aside"
    )
    slower_by: Annotated[float, Quantity(NUMBER, 0, 1000)] = Field(
        default=3.0,
        description="so many times its peers' median time set a replica aside; 0: never",
    )
    least_excess_s: Annotated[float, Quantity(DURATION, 0.0, 60.0)] = Field(
        default=0.02, alias="least_excess", description="and at least so much more time than theirs"
    )
    pause_s: Annotated[float, Quantity(DURATION, 0.05, 600.0)] = Field(
        default=1.0, alias="pause", description="for how long; doubles each time"
    )
    max_pause_s: Annotated[float, Quantity(DURATION, 0.05, HOUR_S)] = Field(
        default=30.0, alias="max_pause", description="longest pause, and at least the first one"
    )
    max_share: Annotated[float, Quantity(NUMBER, 0.0, 1.0)] = Field(
        default=0.5,
        description="largest share of the replicas set aside at once; if more are bad, slow ones "
        "are used once the good are full, and if all fail and there is no function, all",
    )


class HealthSettings(Section):
    """How replicas are probed."""

    path: UrlPath = Field(
        default="/v2/health/ready", description="path that answers 200 when ready"
    )
    interval_s: Annotated[float, Quantity(DURATION, 0.05, 600.0)] = Field(
        default=1.0, alias="interval", description="time between probes"
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.01, 60.0)] = Field(
        default=1.0, alias="timeout", description="time a probe may take"
    )
    unhealthy_after: Annotated[int, Quantity(COUNT, 1, 100)] = Field(
        default=3, description="failed probes in a row until a replica gets no requests"
    )
    healthy_after: Annotated[int, Quantity(COUNT, 1, 100)] = Field(
        default=1, description="good probes in a row until it gets them again"
    )
    slow_start_s: Annotated[float, Quantity(DURATION, 0.0, HOUR_S)] = Field(
        default=0.0,
        alias="slow_start",
        description="time over which a new or returning replica gets more and more of its requests",
    )
    ejection: EjectionSettings = Field(
        default_factory=EjectionSettings,
        description="when a replica is set aside although its probes are good",
    )


class AdaptiveSettings(Section):
    """Bounds of a concurrency that is learned."""

    minimum: Annotated[int, Quantity(COUNT, 1, 10_000)] = Field(
        default=1, alias="min", description="fewest requests at once, and how many at first"
    )
    maximum: Annotated[int, Quantity(COUNT, 1, 10_000)] = Field(
        default=64, alias="max", validate_default=True, description="most requests at once"
    )

    @field_validator("maximum")
    @classmethod
    def _is_not_below(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("minimum", value):
            raise wrong("must not be below min")
        return value


class AnyPool(Section):
    """What every pool has."""

    enabled: StrictBool = Field(
        default=True, description="false: no request is sent to this backend"
    )
    min_replicas: Annotated[int, Quantity(COUNT, 0, 1000)] = Field(
        default=0, description="replicas kept warm at all times"
    )
    max_replicas: Annotated[int, Quantity(COUNT, 1, 1000)] = Field(
        default=1, validate_default=True, description="most replicas at once"
    )
    concurrency: Annotated[int, Quantity(COUNT, 1, 10_000)] = Field(
        default=4,
        description="requests one replica works on at once; of a pool's, at most half are held for"
        " bodies that are still coming, shared by the weight of the tenants that upload",
    )
    adaptive: AdaptiveSettings | None = Field(
        default=None,
        description="learn the concurrency from how long answers take; absent: as configured",
    )
    price_usd_per_s: Annotated[float, Quantity(PER_HOUR, 0, 10_000)] = Field(
        alias="price_per_replica_hour",
        description="USD for one replica and hour",
        json_schema_extra={"default": "from the prices"},
    )
    startup_s: Annotated[float, Quantity(DURATION, 0.0, HOUR_S)] = Field(
        default=2.0,
        alias="startup",
        description="expected start of a replica until it has been measured",
    )
    min_billing_s: Annotated[float, Quantity(DURATION, 0.0, 24 * HOUR_S)] = Field(
        default=0.0, alias="min_billing", description="a replica is paid for at least this long"
    )
    packing_ratio: Annotated[float, Quantity(NUMBER, 0.1, 1.0)] = Field(
        default=0.95,
        alias="packing",
        description="share of a replica that sizing fills with work that may spill to serverless",
    )
    queue: QueueSettings = Field(
        default_factory=QueueSettings, description="requests held until a replica is free"
    )
    timeouts: PoolTimeouts = Field(
        default_factory=PoolTimeouts, description="deadlines towards a replica"
    )
    health: HealthSettings = Field(
        default_factory=HealthSettings, description="how the replicas are probed"
    )
    model_memory_bytes: Annotated[int, Quantity(SIZE, 0, 4096 * GIB)] = Field(
        default=0,
        alias="model_memory",
        description="of a pool in pools: memory for models in one replica, of which each takes its"
        " sharing.memory; 0: room for all",
    )
    service_time_s: Annotated[float, Quantity(MILLISECONDS, 0.01, 900_000)] = Field(
        default=0.05, alias="service_time_ms",
        description="expected time of a request until it has been measured",
    )  # fmt: skip

    _group: str = PrivateAttr(default="")

    @property
    def group(self) -> str:
        """Its name among the shared pools; empty for a model's own."""
        return self._group

    def is_shared_as(self, name: str) -> None:
        """Make it one of the shared pools, with that name in `pools`; only the loader does."""
        self._group = name

    @field_validator("max_replicas")
    @classmethod
    def _replicas_in_order(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min_replicas", 0):
            raise wrong("must be at least min_replicas")
        return value
