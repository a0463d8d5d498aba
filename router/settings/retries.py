"""Settings of retries: how much they may add to what a model is asked."""

from typing import Annotated

from pydantic import Field

from router.settings.quantities import NUMBER, Quantity
from router.settings.section import Section


class RetrySettings(Section):
    """A budget of attempts after the first one, so that a failing model is not asked ever more."""

    budget_share: Annotated[float, Quantity(NUMBER, 0, 1)] = Field(
        default=0.2, alias="budget", description="most retries, as a share of requests"
    )
    floor_per_s: Annotated[float, Quantity(NUMBER, 0, 1000)] = Field(
        default=5, description="retries per second allowed beside the share"
    )
