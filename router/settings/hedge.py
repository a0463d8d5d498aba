"""Settings of hedging: when a second attempt is made beside a slow one, and how often at most."""

from typing import Annotated

from pydantic import Field

from router.settings.quantities import NUMBER, Quantity
from router.settings.section import Section


class HedgeSettings(Section):
    """A second attempt, elsewhere, for requests that take unusually long."""

    percentile: Annotated[float, Quantity(NUMBER, 50, 99)] = Field(
        default=95, description="an attempt is slow when this percentage of its like took less"
    )
    budget_share: Annotated[float, Quantity(NUMBER, 0, 0.5)] = Field(
        default=0.05, alias="budget", description="most second attempts, as a share of requests"
    )
    floor_per_s: Annotated[float, Quantity(NUMBER, 0, 1000)] = Field(
        default=0, description="second attempts per second allowed beside the share"
    )
