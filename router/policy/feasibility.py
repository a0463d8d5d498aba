"""Which backend can carry a request, and if not, why.

Hard limits and state only: cost and deadlines are the business of `steering`.
"""

from router.domain.decision import Cause
from router.domain.request import InferenceRequest
from router.domain.snapshot import PoolSnapshot, ServerlessLimits, ServerlessSnapshot

EVENT_OVERHEAD_BYTES = 2048
"""Room kept for the event around a body: method, path, the headers that are forwarded."""

WAITABLE = frozenset({Cause.CONCURRENCY, Cause.NO_REPLICA, Cause.STARTING})
"""Causes that pass by themselves: a request may be held until they do."""


def encoded_bytes(request: InferenceRequest) -> int:
    """Size of the request as a function's event.

    Binary bodies grow by 4/3 in base64. JSON text is sent as a string, whose escaped quotes
    and headers are unknown before the body is read: the adapter measures again after encoding.
    """
    if request.is_text:
        return request.payload_bytes + EVENT_OVERHEAD_BYTES
    return (request.payload_bytes + 2) // 3 * 4 + EVENT_OVERHEAD_BYTES


def is_too_large(request: InferenceRequest, limits: ServerlessLimits) -> bool:
    """Whether the function's size limit excludes the request."""
    sent_bytes = encoded_bytes(request) if limits.takes_events else request.payload_bytes
    return sent_bytes > limits.max_payload_bytes


def serverless_cause(
    request: InferenceRequest, serverless: ServerlessSnapshot | None
) -> Cause | None:
    """Why the function cannot take the request now, None if it can."""
    if serverless is None:
        return Cause.NOT_CONFIGURED
    limits = serverless.limits
    if not serverless.enabled:
        cause = Cause.DISABLED
    elif is_too_large(request, limits):
        cause = Cause.PAYLOAD
    elif serverless.expected_s > limits.timeout_s:
        cause = Cause.TIMEOUT
    elif request.stream and not limits.can_stream:
        cause = Cause.STREAM
    elif serverless.breaker_open:
        cause = Cause.BREAKER_OPEN
    elif serverless.in_flight >= serverless.max_concurrency:
        cause = Cause.CONCURRENCY if has_room(request, serverless) else Cause.QUEUE_FULL
    else:
        return None
    return cause


def pool_cause(request: InferenceRequest, pool: PoolSnapshot | None) -> Cause | None:
    """Why the pool cannot take the request now, None if it can (if need be after queueing)."""
    if pool is None:
        return Cause.NOT_CONFIGURED
    if not pool.enabled:
        return Cause.DISABLED
    if not pool.free_slots and not has_room(request, pool):
        return Cause.QUEUE_FULL
    if pool.ready:
        return None
    if not pool.can_start:
        return Cause.NO_ENDPOINT
    return Cause.STARTING if pool.wanted else Cause.NO_REPLICA


def reopens_in_time(
    request: InferenceRequest, serverless: ServerlessSnapshot, left_s: float
) -> bool:
    """Whether a request that has so long may be held until the open breaker lets calls through."""
    in_time = serverless.open_for_s < min(left_s, serverless.max_wait_s)
    return in_time and has_room(request, serverless)


def has_room(request: InferenceRequest, queue: PoolSnapshot | ServerlessSnapshot) -> bool:
    """Whether a backend's queue may take one more request of that size."""
    return (
        queue.queued < queue.max_queued
        and queue.queued_bytes + request.waiting_bytes <= queue.max_queued_bytes
    )
