"""What the sizing policy is told of a model's traffic: rates in, demand out.

Also the latency duty: whether the function alone would break the objective. Knows no counters and
no clock; the gateway's controller and the replay both come through here.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from router.policy.sizing import Demand
from router.policy.steering import Slo

USUAL_PAYLOAD_BYTES = 1024
"""The payload for which the latency duty is judged."""


class Rates(NamedTuple):
    """Increase per second of a model's running totals: arrivals, the service time they need in the
    pool, their price on serverless, and the part of both that only the pool can carry.
    """

    arrivals: float
    work_s: float
    serverless_usd: float
    captive: float
    captive_work_s: float


class PoolFacts(NamedTuple):
    """The pool at one moment: requests a replica takes at once, requests that wait for a place,
    replicas that take any.
    """

    concurrency: int
    queued: int
    ready: int


class FunctionFacts(Protocol):
    """What the latency duty goes by; the fields are those of `ServerlessSnapshot`."""

    @property
    def enabled(self) -> bool: ...  # noqa: D102
    @property
    def in_flight(self) -> int: ...  # noqa: D102
    @property
    def expected_s(self) -> float: ...  # noqa: D102
    @property
    def upper_s(self) -> float: ...  # noqa: D102
    @property
    def is_learned(self) -> bool: ...  # noqa: D102
    @property
    def init_s(self) -> float: ...  # noqa: D102
    @property
    def p_cold(self) -> float: ...  # noqa: D102


def demand_from(rates: Rates, pool: PoolFacts, slo: Slo, function: FunctionFacts | None) -> Demand:
    """Demand in replicas; `function` as seen for `USUAL_PAYLOAD_BYTES`, None without one."""
    return Demand(
        load=rates.work_s / pool.concurrency,
        serverless_usd_per_s=rates.serverless_usd,
        captive_load=rates.captive_work_s / pool.concurrency,
        # With replicas running, a queue is load like any other; without one it asks for the first.
        held=0 if pool.ready else pool.queued,
        latency_duty=breaks_objective(slo, function),
    )


def summed(demands: Sequence[Demand]) -> Demand:
    """The demand of models that share replicas, as one."""
    return Demand(
        load=sum(demand.load for demand in demands),
        serverless_usd_per_s=sum(demand.serverless_usd_per_s for demand in demands),
        captive_load=sum(demand.captive_load for demand in demands),
        held=sum(demand.held for demand in demands),
        latency_duty=any(demand.latency_duty for demand in demands),
    )


def starting_since(
    before: float | None, wanted_before: int, wanted: int, ready: int, now: float
) -> float | None:
    """Since when the pool is on its way from nothing to a first replica, None if it is not."""
    if not wanted_before and wanted and not ready:
        return now
    return None if ready or not wanted else before


def breaks_objective(slo: Slo, function: FunctionFacts | None) -> bool:
    """Whether serverless alone would break the model's objective.

    Either a warm call is too slow, or cold starts count and are too likely. `function` is the
    function as seen for `USUAL_PAYLOAD_BYTES`.
    """
    if function is None or not function.enabled:
        return False
    # A guess of the spread must not keep a replica: then no call would ever show what is true.
    slow_s = function.upper_s if function.is_learned else function.expected_s
    if slow_s > slo.latency_s:
        return True
    # While it serves calls it is warm for most, even if each of its environments is busy now.
    if slo.cold_allowed or function.in_flight:
        return False
    cold_breaks = function.upper_s + function.init_s > slo.latency_s
    return cold_breaks and function.p_cold > 1 - slo.percentile / 100
