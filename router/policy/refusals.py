"""What a request is told that no backend can take now: what is missing, and when to come back.

Tells *no endpoints* from *all full*. Decides nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

from router.domain.decision import Backend, Cause
from router.domain.errors import (
    NoEndpointError,
    PayloadTooLargeError,
    QueueFullError,
    RouterError,
    ShedError,
)
from router.domain.request import InferenceRequest
from router.domain.snapshot import PoolSnapshot, ServerlessSnapshot
from router.policy.feasibility import pool_cause, serverless_cause

Causes = Mapping[Backend, Cause | None]

_CROWDED = frozenset({Cause.QUEUE_FULL, Cause.CONCURRENCY})
_PASSING = _CROWDED | {
    Cause.BREAKER_OPEN,
    Cause.NO_ENDPOINT,
    Cause.NO_REPLICA,
    Cause.STARTING,
    None,
}
"""What may be over by the time the client comes back."""
_UNKNOWN_S = 1.0


class Backends(NamedTuple):
    """Both backends as the request finds them; None where there is none."""

    serverless: ServerlessSnapshot | None
    pool: PoolSnapshot | None


def refusal(request: InferenceRequest, backends: Backends, causes: Causes) -> RouterError:
    """The error that says what was missing; every backend has a cause here."""
    found = set(causes.values())
    if Cause.PAYLOAD in found and Cause.QUEUE_FULL not in found:
        return _too_large(request, backends)
    come_back_s = back_in_s(backends, causes)
    if is_all_full(backends, causes):
        queued = sum(backend.queued for backend in backends if backend is not None)
        return QueueFullError(
            f"all capacity of model {request.model} is busy and its queue is full"
            f" ({queued} requests wait)",
            come_back_s,
        )
    told = ", ".join(f"{backend}: {cause}" for backend, cause in causes.items())
    return NoEndpointError(
        f"no backend of model {request.model} can take the request ({told})", come_back_s
    )


def given_up(
    request: InferenceRequest, backends: Backends, waited_for: Backend, error: ShedError
) -> ShedError:
    """The error for a request that waited in vain, or had to leave its place in a queue."""
    causes: Causes = {
        Backend.SERVERLESS: serverless_cause(request, backends.serverless),
        Backend.POOL: pool_cause(request, backends.pool),
    }
    come_back_s = back_in_s(backends, causes)
    pool = backends.pool
    if waited_for is Backend.POOL and pool is not None and not pool.ready:
        return NoEndpointError(
            f"model {request.model} has no healthy replica and none became ready in time"
            + (f": {pool.missing}" if pool.missing else ""),
            come_back_s,
        )
    function = backends.serverless
    if waited_for is Backend.SERVERLESS and function is not None and function.breaker_open:
        return NoEndpointError(
            f"the function of model {request.model} fails or asked for a pause, and was not to be"
            " called again in time",
            come_back_s,
        )
    return type(error)(f"all capacity of model {request.model} is busy: {error}", come_back_s)


def is_all_full(backends: Backends, causes: Causes) -> bool:
    """Whether something runs that could take the request, were it not full."""
    if causes[Backend.SERVERLESS] in _CROWDED:
        return True
    pool = backends.pool
    return causes[Backend.POOL] in _CROWDED and pool is not None and pool.ready > 0


def back_in_s(backends: Backends, causes: Causes) -> float:
    """When one of the backends is expected to have served those that wait, or to be back."""
    serverless, pool = backends
    times = []
    if serverless is not None and causes[Backend.SERVERLESS] in _PASSING:
        drain_s = serverless.expected_s / max(serverless.max_concurrency, 1)
        times.append(serverless.open_for_s + (serverless.queued + 1) * drain_s)
    if pool is not None and causes[Backend.POOL] in _PASSING:
        drain_s = (pool.queued + 1) * pool.expected_s / pool.slots if pool.slots else 0.0
        times.append(pool.ready_in_s + drain_s)
    return min(times, default=_UNKNOWN_S)


def _too_large(request: InferenceRequest, backends: Backends) -> RouterError:
    assert backends.serverless is not None  # noqa: S101  only a function has such a limit
    limit = backends.serverless.limits.max_payload_bytes
    return PayloadTooLargeError(
        f"the payload is over the {limit} bytes that the function of model {request.model}"
        f" takes once encoded, and the model has no usable pool"
    )
