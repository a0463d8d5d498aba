"""What tenants with a budget have spent within the last day and month, hour by hour, in memory.

Read from the counters of who pays; a gateway that starts anew knows nothing of before, which is why
alerts ask Prometheus.
"""

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

from router.domain.events import EventKind, told
from router.settings.budgets import Budget, Period
from router.telemetry.exposition import Labels

_HOUR_S = 3600
_HOURS = {Period.DAY: 24, Period.MONTH: 30 * 24}
_TOLD_AT = (0.8, 1.0)
"""Shares of a budget that are an event, each once until less is spent again."""

_log = logging.getLogger(__name__)


class _Spent:
    """One tenant's hours, the present one last; counters begin at 0 with the gateway."""

    __slots__ = ("before_usd", "hour", "told", "usd")

    def __init__(self, before_usd: float, hour: int) -> None:
        self.before_usd = before_usd
        self.hour = hour
        self.usd: deque[float] = deque([0.0], _HOURS[Period.MONTH])
        self.told: dict[Period, float] = {}

    def add(self, total_usd: float, hour: int) -> None:
        self.usd.extend([0.0] * min(hour - self.hour, _HOURS[Period.MONTH]))
        self.hour = hour
        self.usd[-1] += max(0.0, total_usd - self.before_usd)
        self.before_usd = total_usd

    def within(self, period: Period) -> float:
        hours = list(self.usd)
        return sum(hours[-_HOURS[period] :])


class Spending:
    """The hours of all tenants that have a budget."""

    def __init__(self) -> None:
        self._spent: dict[str, _Spent] = {}
        self._budgets: dict[str, Budget] = {}
        self._began = False

    def add(
        self, costs: Iterable[tuple[Labels, float]], budgets: Iterable[Budget], at: float
    ) -> None:
        """Note what tenants have paid since the start, by tenant and part; tell of budgets spent.

        `at` is in seconds since 1970.
        """
        self._budgets = {budget.tenant: budget for budget in budgets}
        totals = dict.fromkeys(self._budgets, 0.0)
        for (tenant, _), usd in costs:
            if tenant in totals:
                totals[tenant] += usd
        hour = int(at // _HOUR_S)
        # What was paid before there was a budget is not spent of it.
        before = totals if self._began else dict.fromkeys(totals, 0.0)
        self._began = True
        self._spent = {
            tenant: self._spent.get(tenant) or _Spent(before[tenant], hour) for tenant in totals
        }
        for tenant, budget in self._budgets.items():
            spent = self._spent[tenant]
            spent.add(totals[tenant], hour)
            _tell(tenant, budget, spent)

    def shown(self) -> dict[str, dict[str, Any]]:
        """Each tenant's budgets by period, with what is spent of them."""
        return {
            tenant: {
                period: {"usd": usd, "spent_usd": round(self._spent[tenant].within(period), 9)}
                for period, usd in budget.periods
            }
            for tenant, budget in self._budgets.items()
            if tenant in self._spent
        }


def _tell(tenant: str, budget: Budget, spent: _Spent) -> None:
    for period, usd in budget.periods:
        spent_usd = spent.within(period)
        share = max((each for each in _TOLD_AT if spent_usd >= each * usd), default=0.0)
        if share > spent.told.get(period, 0.0):
            _log.warning(
                "tenant %s has spent %.6g of the %.6g USD of its %s (%.0f %%)", tenant, spent_usd,
                usd, period, 100 * spent_usd / usd,
                extra=told(
                    EventKind.BUDGET, tenant=tenant, period=period, budget_usd=usd,
                    spent_usd=round(spent_usd, 9),
                ),
            )  # fmt: skip
        spent.told[period] = share
