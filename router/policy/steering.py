"""Deadline and cost: which of two feasible backends gets a request.

Predicts both completion times and takes the cheapest that meets the deadline; a free slot on a
running replica costs nothing more, and waiting for one is free while the function could still be
called in time. Never looks at limits: `feasibility` has done that.
"""

from math import inf, sqrt
from typing import NamedTuple

from router.domain.decision import Backend, Reason
from router.domain.request import InferenceRequest
from router.domain.snapshot import PoolSnapshot, ServerlessSnapshot

BEGUN = 0.5
"""How much of its work a request that is being served still has to do, on average."""
SPARE = 0.25
"""A call after a wait has no other way out: a quarter of its high estimate's margin comes on top.

More would cost more than it saves: about half a percent of the bill for each quarter."""
_WORTHWHILE_COLD = 10.0
"""A cold start that takes up to so many objectives warms the function for those that follow."""


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


class Steered(NamedTuple):
    """The choice. A request that waits for the pool goes to the function after `patience_s`."""

    backend: Backend
    reason: Reason
    patience_s: float = inf


def time_left_s(request: InferenceRequest, slo: Slo, now: float) -> float:
    """Seconds until the client's deadline, or until the model's objective where it has none."""
    if request.deadline is not None:
        return request.deadline - now
    return slo.latency_s - (now - request.received_at)


def forecast_pool(pool: PoolSnapshot) -> Forecast:
    """Queue wait plus service. Requests ahead drain at one per `expected_s / slots`.

    The high estimate lets the durations of those ahead deviate too.
    """
    if pool.free_slots:
        return Forecast(pool.expected_s, pool.upper_s, 0.0)
    slots = max(pool.slots, 1)
    wait_s = pool.ready_in_s + (pool.queued + BEGUN) * pool.expected_s / slots
    margin_s = (pool.upper_s - pool.expected_s) * sqrt(1 + (pool.queued + 1) / slots**2)
    return Forecast(wait_s + pool.expected_s, wait_s + pool.expected_s + margin_s, 0.0)


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


def has_room(serverless: ServerlessSnapshot) -> bool:
    """Whether the function would take a call now."""
    return serverless.in_flight < serverless.max_concurrency


def keeps_replica_by_prior(slo: Slo, serverless: ServerlessSnapshot) -> bool:
    """Whether nothing but a prior says that the function alone would break the objective.

    A replica that is kept for that takes all requests, so that none would ever show what is true.
    """
    return serverless.is_untried and serverless.expected_s > slo.latency_s


def steer(
    request: InferenceRequest,
    slo: Slo,
    serverless: ServerlessSnapshot,
    pool: PoolSnapshot,
    now: float,
) -> Steered:
    """Choose between two backends that can both carry the request."""
    left_s = time_left_s(request, slo, now)
    on_pool = forecast_pool(pool)
    if pool.free_slots and on_pool.upper_s <= left_s:
        if keeps_replica_by_prior(slo, serverless) and _may_try(request, serverless, left_s):
            return Steered(Backend.SERVERLESS, Reason.EXPLORE)
        return Steered(Backend.POOL, Reason.WARM_CAPACITY)
    counts_cold = request.deadline is not None or not slo.cold_allowed
    on_serverless = forecast_serverless(serverless, counts_cold)
    return (
        (
            _explored(request, pool, left_s)
            if pool.free_slots
            else _waiting(serverless, on_serverless, pool, left_s)
        )
        or _called(request, serverless, on_serverless, pool, left_s)
        or Steered(_late(request, slo, serverless, pool, left_s), Reason.DEADLINE)
    )


def _may_try(
    request: InferenceRequest, place: PoolSnapshot | ServerlessSnapshot, left_s: float
) -> bool:
    """Whether the request may find out how fast a place is.

    One that is of no use after its client's deadline only if it is not expected to miss that.
    """
    return place.may_try and (request.deadline is None or place.expected_s <= left_s)


def _explored(request: InferenceRequest, pool: PoolSnapshot, left_s: float) -> Steered | None:
    """A free slot that is believed to be too slow, if that is to be found out."""
    return Steered(Backend.POOL, Reason.EXPLORE) if _may_try(request, pool, left_s) else None


def _waiting(
    serverless: ServerlessSnapshot, on_serverless: Forecast, pool: PoolSnapshot, left_s: float
) -> Steered | None:
    """The pool's queue, while the function could still be called in time or the pool will be."""
    on_pool = forecast_pool(pool)
    spare_s = SPARE * (serverless.upper_s - serverless.expected_s)
    # A slot that comes free at the last moment must be in time as well: full replicas may be slow.
    needed_s = max(on_serverless.upper_s + spare_s, pool.upper_s)
    patience_s = left_s - needed_s if has_room(serverless) else -inf
    if on_pool.expected_s - pool.expected_s <= patience_s:
        return Steered(Backend.POOL, Reason.WARM_CAPACITY, patience_s)
    if on_pool.upper_s <= left_s:
        return Steered(Backend.POOL, Reason.WARM_CAPACITY)
    return None


def _called(
    request: InferenceRequest,
    serverless: ServerlessSnapshot,
    on_serverless: Forecast,
    pool: PoolSnapshot,
    left_s: float,
) -> Steered | None:
    """The function, if it is in time, or if that is to be found out."""
    may_try = has_room(serverless) and _may_try(request, serverless, left_s)
    if serverless.upper_s > left_s and may_try:
        return Steered(Backend.SERVERLESS, Reason.EXPLORE)
    if on_serverless.upper_s > left_s:
        return None
    reason = Reason.DEADLINE if pool.free_slots else Reason.SPILLOVER
    return Steered(Backend.SERVERLESS, reason)


def _late(
    request: InferenceRequest,
    slo: Slo,
    serverless: ServerlessSnapshot,
    pool: PoolSnapshot,
    left_s: float,
) -> Backend:
    """Where a request goes that is likely to be late on either side: where it finishes first.

    But if the pool's queue makes it late anyway, it should not make those behind it late as well:
    then a function that would be in time if it were warm gets it, and is warm for the next one.
    """
    pool_s = forecast_pool(pool).expected_s
    on_serverless = forecast_serverless(serverless, counts_cold=False)
    if (
        request.deadline is None
        and pool_s > left_s >= on_serverless.upper_s
        and not pool.free_slots
        and serverless.init_s <= _WORTHWHILE_COLD * slo.latency_s
    ):
        return Backend.SERVERLESS
    return Backend.POOL if pool_s <= on_serverless.expected_s else Backend.SERVERLESS
