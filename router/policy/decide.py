"""One request's decision: rule, then feasibility, then steering.

The only place that joins the three; the gateway, `explain` and the replay all call `decide`.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import NamedTuple
from zlib import crc32

from router.domain.decision import Backend, Cause, Decision, Reason, TraceStep
from router.domain.request import InferenceRequest
from router.domain.snapshot import PoolSnapshot, ServerlessSnapshot
from router.policy.estimates import BUCKET_STARTS
from router.policy.feasibility import (
    WAITABLE,
    encoded_bytes,
    pool_cause,
    reopens_in_time,
    serverless_cause,
)
from router.policy.refusals import Backends, refusal
from router.policy.rules import Rule, RuleIndex, first_match
from router.policy.steering import (
    Forecast,
    Slo,
    forecast_pool,
    forecast_serverless,
    steer,
    time_left_s,
)

Trace = list[TraceStep]


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """What decides a model's requests besides their own facts.

    `may_divert` says whether a rule has a canary or a shadow. Bodies of sizes between two
    neighbours of `sizes` are alike to the rules and to the estimates.
    """

    rules: tuple[Rule, ...]
    slo: Slo
    may_divert: bool = field(init=False)
    sizes: tuple[int, ...] = field(init=False, repr=False, compare=False)
    index: RuleIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", RuleIndex(self.rules))
        may_divert = any(rule.canary or rule.shadow for rule in self.rules)
        object.__setattr__(self, "may_divert", may_divert)
        ends = {size for rule in self.rules for size in rule.match.sizes}
        object.__setattr__(self, "sizes", tuple(sorted(ends | BUCKET_STARTS)))

    def alike(self, payload_bytes: int) -> tuple[int, int]:
        """The smallest and the largest size that rules and estimates take for this one."""
        place = bisect_right(self.sizes, payload_bytes)
        return self.sizes[place - 1], self.sizes[place] - 1


def prioritised(request: InferenceRequest, policy: ModelPolicy) -> InferenceRequest:
    """The request with the class that its rule states; the rule's word is above the client's."""
    if all(rule.priority is None for rule in policy.rules):
        return request
    stated = first_match(policy.rules, request).priority
    return request if stated is None else replace(request, priority=stated)


class State(NamedTuple):
    """Both backends at one instant; `failed` holds those that this request already tried.

    The reason kept with a failed backend is the one its successor is chosen for.
    """

    serverless: ServerlessSnapshot | None
    pool: PoolSnapshot | None
    failed: Mapping[Backend, Reason]


class _Choice(NamedTuple):
    backend: Backend
    reason: Reason
    patience_s: float = inf


_SERVERLESS_OUT = {
    Cause.NOT_CONFIGURED: Reason.ONLY_BACKEND,
    Cause.DISABLED: Reason.ONLY_BACKEND,
    Cause.PAYLOAD: Reason.LIMIT_PAYLOAD,
    Cause.TIMEOUT: Reason.LIMIT_TIMEOUT,
    Cause.STREAM: Reason.LIMIT_STREAM,
    Cause.BREAKER_OPEN: Reason.BREAKER_OPEN,
    Cause.CONCURRENCY: Reason.SPILLOVER,
    Cause.QUEUE_FULL: Reason.SPILLOVER,
}
_POOL_OUT = {
    Cause.NOT_CONFIGURED: Reason.ONLY_BACKEND,
    Cause.DISABLED: Reason.ONLY_BACKEND,
    Cause.NO_ENDPOINT: Reason.NO_ENDPOINT,
    Cause.NO_REPLICA: Reason.BELOW_BREAK_EVEN,
    Cause.STARTING: Reason.POOL_STARTING,
    Cause.QUEUE_FULL: Reason.SPILLOVER,
}
# With no other way out, waiting for an endpoint to recover beats failing at once.
_POOL_MAY_RETURN = WAITABLE | {Cause.NO_ENDPOINT}
_MAY_COME_BACK = _POOL_MAY_RETURN | {Cause.BREAKER_OPEN, Cause.QUEUE_FULL, Cause.FAILED, None}
_PINNED = frozenset({Reason.RULE, Reason.HINT})


def decide(
    request: InferenceRequest,
    policy: ModelPolicy,
    state: State,
    now: float,
    trace: Trace | None = None,
) -> Decision:
    """Where this attempt goes and why.

    Raises PayloadTooLargeError, QueueFullError or NoEndpointError when no backend can take it.
    `trace`, where given, collects every step.
    """
    if trace is None:
        rule = policy.index.first_match(request)
    else:
        rule = first_match(policy.rules, request, trace)
    causes = {
        Backend.SERVERLESS: serverless_cause(request, state.serverless),
        Backend.POOL: pool_cause(request, state.pool),
    }
    for backend, reason in state.failed.items():
        # An event measured too large is a limit like one known from the head.
        causes[backend] = Cause.PAYLOAD if reason is Reason.LIMIT_PAYLOAD else Cause.FAILED
    if trace is not None:
        _trace_backends(trace, request, policy.slo, state, causes, now)
    choice = _wished(request, rule, causes) or _chosen(request, policy.slo, state, causes, now)
    if choice is None:
        raise refusal(request, Backends(state.serverless, state.pool), causes)
    if trace is not None:
        trace.append(TraceStep("choice", choice.backend, choice.reason))
        if choice.patience_s < inf:
            told = f"after {choice.patience_s * 1e3:.0f} ms without a slot"
            trace.append(TraceStep("choice", choice.backend.other, told))
    decision = _decision(choice, rule, state, causes, tuple(trace or ()))
    if trace is not None and decision.anywhere:
        trace.append(TraceStep("choice", choice.backend.other, "if it has a slot sooner"))
        return replace(decision, trace=tuple(trace))
    return decision


def captive(request: InferenceRequest, serverless: ServerlessSnapshot | None) -> bool:
    """Whether only the pool can ever carry the request, however busy both backends are."""
    return serverless_cause(request, serverless) in {
        Cause.NOT_CONFIGURED,
        Cause.DISABLED,
        Cause.PAYLOAD,
        Cause.TIMEOUT,
        Cause.STREAM,
    }


def _wished(
    request: InferenceRequest, rule: Rule, causes: Mapping[Backend, Cause | None]
) -> _Choice | None:
    """The hint's or the rule's backend, unless it cannot carry the request at all."""
    if request.hint is not None and _possible(causes[request.hint]):
        return _Choice(request.hint, Reason.HINT)
    wish = rule.route.wish(crc32(request.request_id.encode()) / 2**32)
    if wish is not None and _possible(causes[wish]):
        return _Choice(wish, Reason.RULE)
    return None


def _possible(cause: Cause | None) -> bool:
    return cause is None or cause in WAITABLE


def _chosen(
    request: InferenceRequest,
    slo: Slo,
    state: State,
    causes: Mapping[Backend, Cause | None],
    now: float,
) -> _Choice | None:
    serverless_out, pool_out = causes[Backend.SERVERLESS], causes[Backend.POOL]
    if pool_out is None and (serverless_out is None or _both_wait(serverless_out, state)):
        assert state.serverless is not None  # noqa: S101  a missing backend has a cause
        assert state.pool is not None  # noqa: S101
        return _Choice(*steer(request, slo, state.serverless, state.pool, now))
    if serverless_out is None:
        return _Choice(Backend.SERVERLESS, _without_pool(pool_out, state))
    if pool_out is None:
        return _Choice(Backend.POOL, _without_serverless(serverless_out, state))
    left_s = time_left_s(request, slo, now)
    return _held(state, causes) or _until_reopened(request, state, causes, left_s)


def _both_wait(serverless_out: Cause, state: State) -> bool:
    """Whether a request would queue on either side, so that the shorter queue is the question."""
    crowded = state.pool is not None and not state.pool.free_slots
    return crowded and serverless_out is Cause.CONCURRENCY


def _held(state: State, causes: Mapping[Backend, Cause | None]) -> _Choice | None:
    """Neither can start the request now: wait where it is predicted to finish first."""
    waits: list[tuple[float, _Choice]] = []
    if causes[Backend.SERVERLESS] in WAITABLE and state.serverless is not None:
        reason = _without_pool(causes[Backend.POOL], state)
        finish_s = forecast_serverless(state.serverless, counts_cold=True).expected_s
        waits.append((finish_s, _Choice(Backend.SERVERLESS, reason)))
    if causes[Backend.POOL] in _POOL_MAY_RETURN and state.pool is not None:
        reason = _without_serverless(causes[Backend.SERVERLESS], state)
        if reason is Reason.ONLY_BACKEND:
            gone = causes[Backend.POOL] is Cause.NO_ENDPOINT
            reason = Reason.NO_ENDPOINT if gone else Reason.POOL_STARTING
        waits.append((forecast_pool(state.pool).expected_s, _Choice(Backend.POOL, reason)))
    return min(waits)[1] if waits else None


def _until_reopened(
    request: InferenceRequest, state: State, causes: Mapping[Backend, Cause | None], left_s: float
) -> _Choice | None:
    """The function whose breaker is open, if it may be tried again before the request is late.

    The last resort: a backend that has not failed is waited for before one that has. Whoever would
    be late anyway is better told when to come back, and waits no longer if the trial takes long.
    """
    is_open = causes[Backend.SERVERLESS] is Cause.BREAKER_OPEN
    if not is_open or state.serverless is None:
        return None
    if not reopens_in_time(request, state.serverless, left_s):
        return None
    return _Choice(Backend.SERVERLESS, Reason.BREAKER_OPEN, left_s)


def _without_pool(cause: Cause | None, state: State) -> Reason:
    """Why serverless has it, given why the pool has not."""
    if cause is Cause.FAILED:
        return state.failed[Backend.POOL]
    reason = _POOL_OUT[cause] if cause is not None else Reason.BELOW_BREAK_EVEN
    unsized = reason in {Reason.NO_ENDPOINT, Reason.BELOW_BREAK_EVEN}
    if unsized and state.pool is not None and state.pool.signals_stale:
        return Reason.STALE_SIGNALS
    return reason


def _without_serverless(cause: Cause | None, state: State) -> Reason:
    """Why the pool has it, given why serverless has not."""
    if cause is Cause.FAILED:
        return state.failed[Backend.SERVERLESS]
    reason = _SERVERLESS_OUT[cause] if cause is not None else Reason.WARM_CAPACITY
    if reason is Reason.SPILLOVER and state.pool is not None and state.pool.free_slots:
        return Reason.WARM_CAPACITY
    return reason


def _may_be_anywhere(choice: _Choice, state: State, causes: Mapping[Backend, Cause | None]) -> bool:
    """Whether a request that has to wait for one backend may be had by the other one meanwhile.

    It may, unless somebody asked for that one, or the other could have it now and is not to. The
    pool may have it again that failed it: its other endpoints, or the same one recovered. The
    function only if it was full: what else failed there fails again.
    """
    if choice.reason in _PINNED:
        return False
    if choice.backend is Backend.SERVERLESS:
        return causes[Backend.POOL] in _MAY_COME_BACK
    cause = causes[Backend.SERVERLESS]
    if cause is Cause.FAILED:
        return state.failed[Backend.SERVERLESS] is Reason.SPILLOVER
    return cause is not None and cause in _MAY_COME_BACK


def _decision(
    choice: _Choice,
    rule: Rule,
    state: State,
    causes: Mapping[Backend, Cause | None],
    trace: tuple[TraceStep, ...],
) -> Decision:
    if choice.backend is Backend.POOL:
        assert state.pool is not None  # noqa: S101
        forecast, hold = forecast_pool(state.pool), not state.pool.free_slots
    else:
        assert state.serverless is not None  # noqa: S101
        forecast = forecast_serverless(state.serverless, counts_cold=True)
        is_full = state.serverless.in_flight >= state.serverless.max_concurrency
        hold = is_full or state.serverless.breaker_open
    return Decision(
        choice.backend,
        choice.reason,
        rule.name,
        hold,
        forecast.expected_s,
        forecast.price_usd,
        trace,
        choice.patience_s,
        hold and _may_be_anywhere(choice, state, causes),
    )


def _trace_backends(
    trace: Trace,
    request: InferenceRequest,
    slo: Slo,
    state: State,
    causes: Mapping[Backend, Cause | None],
    now: float,
) -> None:
    left_ms = time_left_s(request, slo, now) * 1e3
    kind = "deadline" if request.deadline is not None else "objective"
    trace.append(TraceStep("deadline", kind, f"{left_ms:.0f} ms left"))
    forecasts: dict[Backend, Forecast] = {}
    if state.serverless is not None:
        forecasts[Backend.SERVERLESS] = forecast_serverless(state.serverless, counts_cold=True)
    if state.pool is not None:
        forecasts[Backend.POOL] = forecast_pool(state.pool)
    for backend, cause in causes.items():
        verdict = "can take it" if cause is None else f"out: {cause}"
        if cause is Cause.PAYLOAD and state.serverless is not None:
            limit = state.serverless.limits.max_payload_bytes
            verdict += f" ({encoded_bytes(request)} bytes encoded, limit {limit})"
        trace.append(TraceStep("feasible", backend, verdict))
        if forecast := forecasts.get(backend):
            trace.append(TraceStep("predict", backend, _told(forecast, backend, state)))


def _told(forecast: Forecast, backend: Backend, state: State) -> str:
    told = (
        f"finishes in {forecast.expected_s * 1e3:.1f} ms (high estimate"
        f" {forecast.upper_s * 1e3:.1f} ms), costs {forecast.price_usd:.3g} USD"
    )
    if backend is Backend.SERVERLESS and state.serverless is not None:
        return f"{told}, P(cold) {state.serverless.p_cold:.2f}"
    if state.pool is not None:
        pool = state.pool
        return f"{told}, {pool.ready} ready, {pool.free_slots} free slots, {pool.queued} queued"
    return told
