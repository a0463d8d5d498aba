"""Settings of the routing rules: conditions on a request, and where it goes then.

Matching itself is the policy's; nothing here looks at a request.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from router.settings.quantities import COUNT, Quantity, wrong
from router.settings.section import Section
from router.settings.traffic import CanarySettings, ShadowSettings, is_one_model
from router.settings.values import Described, PayloadRange, Text, TextList

RuleName = Annotated[str, Text(r"[A-Za-z0-9._-]{1,100}", "1..100 characters of A-Z a-z 0-9 . _ -")]
HeaderName = Annotated[
    str, Text(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}", "an HTTP header name of 1..200 characters")
]
HeaderValue = Annotated[str, Text(r".+", "a value or glob of 1..4096 characters")]


class RouteName(StrEnum):
    """Where a rule sends a request; `auto` is steering by deadline and cost."""

    AUTO = "auto"
    POOL = "pool"
    SERVERLESS = "serverless"


class PriorityName(StrEnum):
    """Whose turn it is among requests that wait, and who has to go when too many do."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class MatchSettings(Section):
    """Conditions of a rule; all must hold, and an absent one always does."""

    payload: PayloadRange | None = Field(default=None, description="size of the request body")
    model: Annotated[tuple[str, ...], TextList()] = Field(
        default=(), description="model name or glob, or a list of them"
    )
    version: Annotated[tuple[str, ...], TextList()] = Field(
        default=(), description="model version or a list of them"
    )
    tenant: Annotated[tuple[str, ...], TextList()] = Field(
        default=(), description="tenant of the API key, or a list of them"
    )
    header: Mapping[HeaderName, HeaderValue] = Field(
        default={}, max_length=50, description="header names with the value or glob each must have"
    )

    @field_validator("header")
    @classmethod
    def _lower_names(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return {name.lower(): wanted for name, wanted in value.items()}

    @property
    def is_everything(self) -> bool:
        """Whether every request matches."""
        conditional = self.version or self.tenant or self.header
        any_size = self.payload is None or self.payload.is_everything
        any_model = not self.model or "*" in self.model
        return not conditional and any_size and any_model

    @model_serializer(mode="wrap")
    def _conditions_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # An empty condition could not be read back: no value stands for it.
        return {key: value for key, value in handler(self).items() if value}


class Weights(Section):
    """Shares of a split; they need not add up to 100."""

    serverless: Annotated[int, Quantity(COUNT, 0, 10_000)] = Field(
        default=0, description="share sent to the function"
    )
    pool: Annotated[int, Quantity(COUNT, 0, 10_000)] = Field(
        default=0, validate_default=True, description="share sent to the pool"
    )

    @field_validator("pool")
    @classmethod
    def _something_is_sent(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("serverless") == 0:
            raise wrong(
                "must be above 0 when serverless is 0: a split sends its requests somewhere"
            )
        return value


def _route_tag(value: object) -> str:
    return "weights" if isinstance(value, Mapping | Weights) else "name"


_ROUTES = "one of auto, pool, serverless, or weights such as {serverless: 5, pool: 95}"

Route = Annotated[
    Annotated[RouteName, Tag("name"), Described(_ROUTES)] | Annotated[Weights, Tag("weights")],
    Discriminator(_route_tag),
    Described(_ROUTES),
]


class RuleSettings(Section):
    """One routing rule; the first that matches decides."""

    name: RuleName = Field(description="shown with every decision; unique")
    match: MatchSettings = Field(
        default_factory=MatchSettings, description="which requests; {}: all of them"
    )
    route: Route = Field(
        description="the backend, auto, or weights such as {serverless: 5, pool: 95}"
    )
    priority: PriorityName | None = Field(
        default=None,
        description="class of its requests when they have to wait; "
        "absent: what the client asks for (see read_parameters), else normal",
    )
    canary: CanarySettings | None = Field(
        default=None, description="another model or version that answers a share of the requests"
    )

    shadow: ShadowSettings | None = Field(
        default=None, description="another model that gets copies of the requests"
    )

    @field_validator("canary", "shadow")
    @classmethod
    def _is_about_one_model(
        cls, value: CanarySettings | ShadowSettings | None, info: ValidationInfo
    ) -> CanarySettings | ShadowSettings | None:
        match: MatchSettings | None = info.data.get("match")
        if value is None or match is None:
            return value
        if not is_one_model(match.model):
            raise wrong("needs match.model to be one model's name: one model stands in for another")
        if value.model == match.model[0]:
            raise wrong("must not be the model that the rule is about")
        return value
