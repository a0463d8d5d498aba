import logging

import pytest

from router.domain.events import EventKind
from router.page.spending import Spending
from router.settings.budgets import Budget

HOUR = 3600.0
BUDGETS = [Budget(tenant="t", usd_per_day=10.0, usd_per_month=100.0)]


def spend(spending: Spending, usd: float, at: float) -> None:
    costs = [
        (("t", "serverless"), usd / 2),
        (("t", "warm_busy"), usd / 2),
        (("", "warm_idle"), 9.0),
    ]
    spending.add(costs, BUDGETS, at)


def left(spending: Spending) -> tuple[float, float]:
    shown = spending.shown()["t"]
    return shown["day"]["spent_usd"], shown["month"]["spent_usd"]


def test_what_was_spent_is_forgotten_after_a_day_and_after_a_month() -> None:
    spending = Spending()
    spend(spending, 2.0, 0.0)
    spend(spending, 5.0, HOUR / 2)
    assert left(spending) == (5.0, 5.0)
    spend(spending, 6.0, 23 * HOUR)
    assert left(spending) == (6.0, 6.0)
    spend(spending, 6.5, 24 * HOUR)
    assert left(spending) == (1.5, 6.5)
    spend(spending, 6.5, 800 * HOUR)
    assert left(spending) == (0.0, 0.0)


def test_counters_that_began_anew_are_no_debt_and_earlier_bills_are_not_spent_of_a_new_budget() -> (
    None
):
    spending = Spending()
    spending.add([(("t", "serverless"), 7.0)], [], 0.0)
    spend(spending, 8.0, 10.0)
    spend(spending, 8.5, 20.0)
    assert left(spending) == (0.5, 0.5)
    spend(spending, 0.25, 30.0)
    assert left(spending) == (0.5, 0.5)
    spend(spending, 1.25, 40.0)
    assert left(spending) == (1.5, 1.5)


def test_it_is_an_event_when_most_and_when_all_is_spent(caplog: pytest.LogCaptureFixture) -> None:
    spending = Spending()
    with caplog.at_level(logging.WARNING):
        for usd in (1.0, 7.9, 8.0, 9.0, 10.0, 11.0):
            spend(spending, usd, usd)
        found = [record.__dict__["event"].facts["spent_usd"] for record in caplog.records]
        assert found == [8.0, 10.0]
        spend(spending, 11.0, 30 * HOUR)  # the day is over
        spend(spending, 19.5, 31 * HOUR)
    facts = caplog.records[-1].__dict__["event"]
    assert facts.kind is EventKind.BUDGET
    assert facts.facts == {"tenant": "t", "period": "day", "budget_usd": 10.0, "spent_usd": 8.5}
    assert "tenant t has spent 8.5 of the 10 USD of its day (85 %)" in caplog.text


def test_a_tenant_without_a_budget_any_more_is_forgotten() -> None:
    spending = Spending()
    spend(spending, 2.0, 0.0)
    spending.add([], [], 10.0)
    assert spending.shown() == {}
    assert spending._spent == {}
