"""What tenants mean to spend: shown, counted and told of; nothing is refused for it."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from router.settings.keys import ApiKey, Label
from router.settings.problems import KeyPath
from router.settings.quantities import NUMBER, Quantity, wrong
from router.settings.section import Section


class Period(StrEnum):
    """How long a budget is for: the last 24 hours, the last 30 days."""

    DAY = "day"
    MONTH = "month"


class Budget(Section):
    """One tenant's budgets."""

    tenant: Label = Field(description="the tenant of keys in auth.api_keys_file; unique")
    usd_per_day: Annotated[float, Quantity(NUMBER, 0.000001, 1e9)] | None = Field(
        default=None, description="USD that it means to spend in 24 hours; absent: no matter"
    )
    usd_per_month: Annotated[float, Quantity(NUMBER, 0.000001, 1e9)] | None = Field(
        default=None, description="USD that it means to spend in 30 days; absent: no matter"
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Budget":
        if self.usd_per_day is None and self.usd_per_month is None:
            raise wrong("needs usd_per_day, usd_per_month, or both")
        return self

    @property
    def periods(self) -> Iterator[tuple[Period, float]]:
        """Each period that has a budget, and how many USD that is."""
        if self.usd_per_day is not None:
            yield Period.DAY, self.usd_per_day
        if self.usd_per_month is not None:
            yield Period.MONTH, self.usd_per_month


def nobodys_budgets(
    budgets: Iterable[Budget], keys: Iterable[ApiKey]
) -> Iterator[tuple[KeyPath, str]]:
    """Budgets of tenants that no key has: nobody could ever spend them."""
    tenants = {key.tenant for key in keys}
    for index, budget in enumerate(budgets):
        if budget.tenant not in tenants:
            message = "is not the tenant of a key in auth.api_keys_file"
            yield ("budgets", index, "tenant"), message
