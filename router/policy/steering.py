"""Deadline and cost: which of two feasible backends gets a request.

Predicts both completion times and takes the cheapest that meets the deadline; a free slot on a
running replica costs nothing more. Never looks at limits: `feasibility` has done that.
"""

from typing import NamedTuple

from router.domain.decision import Backend, Reason
from router.domain.request import InferenceRequest
from router.domain.snapshot import PoolSnapshot, ServerlessSnapshot


class Slo(NamedTuple):
    """A model's latency objective; with `cold_allowed`, cold starts are counted apart from it."""

    latency_s: float
    percentile: float
    cold_allowed: bool


class Forecast(NamedTuple):
    """Predicted completion of one attempt from now: mean and high estimate, and its price."""

    expected_s: float
    upper_s: float
    price_usd: float


def time_left_s(request: InferenceRequest, slo: Slo, now: float) -> float:
    """Seconds until the client's deadline, or until the model's objective where it has none."""
    if request.deadline is not None:
        return request.deadline - now
    return slo.latency_s - (now - request.received_at)


def forecast_pool(pool: PoolSnapshot) -> Forecast:
    """Queue wait plus service. Waiting requests drain at one per `expected_s / slots`."""
    if pool.free_slots:
        wait_s = 0.0
    else:
        wait_s = pool.ready_in_s + (pool.queued + 1) * pool.expected_s / max(pool.slots, 1)
    return Forecast(wait_s + pool.expected_s, wait_s + pool.upper_s, 0.0)


def forecast_serverless(serverless: ServerlessSnapshot, counts_cold: bool) -> Forecast:
    """Warm service plus P(cold) x init.

    `counts_cold` false leaves cold starts out of the high estimate, for objectives that do.
    """
    cold_s = serverless.p_cold * serverless.init_s
    wait_s = serverless.open_for_s
    if serverless.in_flight >= serverless.max_concurrency:
        drain = (serverless.queued + 1) / max(serverless.max_concurrency, 1)
        wait_s += drain * serverless.expected_s
    upper_s = wait_s + serverless.upper_s + (cold_s if counts_cold else 0.0)
    return Forecast(wait_s + serverless.expected_s + cold_s, upper_s, serverless.price_usd)


def steer(
    request: InferenceRequest,
    slo: Slo,
    serverless: ServerlessSnapshot,
    pool: PoolSnapshot,
    now: float,
) -> tuple[Backend, Reason]:
    """Choose between two backends that can both carry the request."""
    left_s = time_left_s(request, slo, now)
    on_pool = forecast_pool(pool)
    if on_pool.upper_s <= left_s:
        return Backend.POOL, Reason.WARM_CAPACITY
    counts_cold = request.deadline is not None or not slo.cold_allowed
    on_serverless = forecast_serverless(serverless, counts_cold)
    if on_serverless.upper_s <= left_s:
        crowded = not pool.free_slots
        return Backend.SERVERLESS, Reason.SPILLOVER if crowded else Reason.DEADLINE
    if on_pool.expected_s <= on_serverless.expected_s:
        return Backend.POOL, Reason.DEADLINE
    return Backend.SERVERLESS, Reason.DEADLINE
