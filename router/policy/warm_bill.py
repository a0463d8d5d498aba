"""Who pays for the warm replicas of a model: each tenant its part of every step's bill.

What replicas cost at work goes to those whose requests ended in the step, in proportion to the
seconds for which they held slots. What they cost idle goes to those who used the model within the
billing window, in the same proportion. What nobody used is the model's own.
"""

from collections.abc import Mapping
from typing import NamedTuple

WINDOW_S = 1800.0
"""A use counts for idle time until this window and the one after it are over."""
NOBODY = ""
"""The tenant of requests without a key, and of what no request used."""


class Share(NamedTuple):
    """A tenant's part of a step's bill."""

    tenant: str
    busy_usd: float
    idle_usd: float


class WarmBill:
    """The uses of one model's replicas within the billing window; a state machine over numbers."""

    def __init__(self) -> None:
        self._window: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._since: float | None = None

    def split(
        self, used_s: Mapping[str, float], busy_usd: float, idle_usd: float, now: float
    ) -> list[Share]:
        """The shares of a step's bill, which add up to it.

        `used_s` has by tenant the seconds for which requests that ended in the step held slots,
        over the slots of their replica.
        """
        self._turn(now)
        for tenant, seconds in used_s.items():
            self._window[tenant] = self._window.get(tenant, 0.0) + seconds
        recent_s = _sum(self._window, self._before)
        at_work = _parts(used_s) or _parts(recent_s) or {NOBODY: 1.0}
        idle = _parts(recent_s) or {NOBODY: 1.0}
        return [
            Share(tenant, busy_usd * at_work.get(tenant, 0.0), idle_usd * idle.get(tenant, 0.0))
            for tenant in at_work.keys() | idle.keys()
        ]

    def _turn(self, now: float) -> None:
        """Begin another window when this one is over."""
        if self._since is None:
            self._since = now
        passed_s = now - self._since
        if passed_s >= WINDOW_S:
            self._before = self._window if passed_s < 2 * WINDOW_S else {}
            self._window, self._since = {}, now


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> Mapping[str, float]:
    if not other:
        return one
    return {tenant: one.get(tenant, 0.0) + other.get(tenant, 0.0) for tenant in {**one, **other}}


def _parts(seconds: Mapping[str, float]) -> dict[str, float]:
    """Each tenant's part of the whole; none if there is nothing to be divided by."""
    whole_s = sum(seconds.values())
    if whole_s <= 0.0:
        return {}
    return {tenant: each / whole_s for tenant, each in seconds.items()}
