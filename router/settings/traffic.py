"""Settings of changing traffic: canaries with their rollback, and shadows.

Which model a name stands for is checked in `references`; nothing here looks at a request.
"""

import re
from itertools import pairwise
from typing import Annotated

from pydantic import Field, StrictBool, ValidationInfo, field_validator

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
from router.settings.section import Section
from router.settings.values import ModelName, Text, Version

_STICKY = r"request|tenant|header:[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}"
Percent = Annotated[float, Quantity(NUMBER, 0, 100)]


class AccuracySettings(Section):
    """Labels that say whether the canary is wrong more often."""

    margin: Annotated[float, Quantity(NUMBER, 0, 0.99)] = Field(
        default=0.02, description="how much larger its share of wrong answers may be"
    )


class DriftSettings(Section):
    """Whether the canary's answers are distributed otherwise."""

    psi: Annotated[float, Quantity(NUMBER, 0, 10)] = Field(
        default=0.2, description="population stability index up to which they may differ"
    )


class PromotionSettings(Section):
    """A canary that nothing speaks against gets a larger share, step by step."""

    time_s: Annotated[float, Quantity(DURATION, 1.0, 30 * 24 * HOUR_S)] = Field(
        default=HOUR_S, alias="time", description="each step lasts so long at least"
    )
    requests: Annotated[int, Quantity(COUNT, 1, 100_000_000)] = Field(
        default=500, description="and has so many requests of the canary's"
    )
    labels: Annotated[int, Quantity(COUNT, 0, 100_000_000)] = Field(
        default=0, description="and so many labels of its answers"
    )
    steps: Annotated[tuple[Percent, ...], Field(min_length=1, max_length=20)] = Field(
        default=(10, 25, 50, 100), description="the shares that follow, in percent"
    )

    @field_validator("steps")
    @classmethod
    def _grow(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(after <= before for before, after in pairwise(value)):
            raise wrong("must grow")
        return value


class RollbackSettings(Section):
    """When a canary is taken out by itself."""

    enabled: StrictBool = Field(default=True, description="false: nobody watches the canary")
    min_requests: Annotated[int, Quantity(COUNT, 10, 1_000_000)] = Field(
        default=50, description="requests that either side needs before they are compared"
    )
    window_s: Annotated[float, Quantity(DURATION, 1.0, 24 * HOUR_S)] = Field(
        default=300.0, alias="window", description="time that the comparison looks back"
    )
    error_margin: Annotated[float, Quantity(NUMBER, 0, 1)] = Field(
        default=0.02, description="how much larger the canary's share of failed requests may be"
    )
    latency_margin: Annotated[float, Quantity(NUMBER, 0, 100)] = Field(
        default=0.25, description="how much slower it may be (0.25: by a quarter)"
    )
    latency_percentile: Annotated[float, Quantity(NUMBER, 50, 99)] = Field(
        default=95, description="at which percentile of the answer times"
    )
    confidence: Annotated[float, Quantity(NUMBER, 0.9, 0.999999)] = Field(
        default=0.999, description="certainty that a look needs to roll the canary back"
    )
    accuracy: AccuracySettings | None = Field(
        default=None, description="judging it by labels; needs `quality` of both models"
    )
    drift: DriftSettings | None = Field(
        default=None, description="judging it by its answers; needs `quality` of both models"
    )


class CanarySettings(Section):
    """Another model, or version, that answers a share of a rule's requests."""

    model: ModelName | None = Field(
        default=None, description="a configured model; left out: the same one, in another version"
    )
    version: Version | None = Field(
        default=None, validate_default=True,
        description="version in the request's path; left out: none",
    )  # fmt: skip
    share: Percent = Field(description="percent of the rule's requests")
    sticky: Annotated[
        str, Text(_STICKY, "request, tenant, or header:NAME with the name of a request header")
    ] = Field(
        default="request",
        description="requests that always have the same side: each alone, a tenant's, a header's",
    )
    rollback: RollbackSettings = Field(
        default_factory=RollbackSettings, description="when the canary is taken out by itself"
    )
    promote_after: PromotionSettings | None = Field(
        default=None, description="when its share grows by itself; absent: never"
    )

    @field_validator("version")
    @classmethod
    def _is_something_else(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("model", value) is None and "model" in info.data:
            raise wrong("is required when there is no model: a canary is something else")
        return value

    @property
    def sticky_header(self) -> str:
        """The header of `sticky: header:NAME` in lower case, else empty."""
        kind, _, name = self.sticky.partition(":")
        return name.lower() if kind == "header" else ""


class CompareSettings(Section):
    """How a shadow's answers are compared with what the client got."""

    sample: Annotated[float, Quantity(NUMBER, 0, 1)] = Field(
        default=0.1, description="share of the copies whose answers are compared"
    )
    tolerance: Annotated[float, Quantity(NUMBER, 0, 1_000_000)] = Field(
        default=0.001, description="difference of numbers that is none, absolute plus relative"
    )


class ShadowSettings(Section):
    """A model that gets copies of a rule's requests, whose answers nobody sees."""

    model: ModelName = Field(description="a configured model")
    share: Percent = Field(default=100, description="percent of the rule's requests")
    timeout_s: Annotated[float, Quantity(DURATION, 0.01, HOUR_S)] = Field(
        default=10.0, alias="timeout", description="time that a copy may take in all"
    )
    max_in_flight: Annotated[int, Quantity(COUNT, 1, 10_000)] = Field(
        default=8, description="copies under way at once; more are dropped and counted"
    )
    max_bytes: Annotated[int, Quantity(SIZE, 1, 16 * GIB)] = Field(
        default=32 * MIB, description="bytes of requests and answers kept for all copies"
    )
    compare: CompareSettings = Field(
        default_factory=CompareSettings, description="comparison of the answers"
    )


def is_one_model(patterns: tuple[str, ...]) -> bool:
    """Whether a rule's condition on models fits exactly one name."""
    return len(patterns) == 1 and not re.search(r"[*?\[]", patterns[0])
