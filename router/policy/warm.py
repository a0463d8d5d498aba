"""The common decision, prepared: a free slot on a warm replica.

Most requests have a head that was seen before and a replica with room. What of `decide` depends on
the head and the configuration alone is worked out once; the rest is a handful of comparisons.
Whatever `reason` answers, `decide` answers too (a property test holds them together); when it
answers None, `decide` must be asked.
"""

from dataclasses import dataclass

from router.domain.decision import Backend, Cause, Reason
from router.domain.request import InferenceRequest
from router.domain.snapshot import ServerlessLimits
from router.policy.feasibility import is_too_large
from router.policy.rules import Route, Rule, first_match


@dataclass(frozen=True, slots=True)
class Warm:
    """A head's part of the decision. `settled` is the reason where nothing else can change it.

    `timeout_s` is the function's time limit. `is_captive` as in `decide.captive`, but for the time
    limit, which depends on what has been measured.
    """

    rule: str
    settled: Reason | None
    timeout_s: float
    is_captive: bool

    def reason(
        self, left_s: float, pool_upper_s: float, function_s: float, *, breaker_open: bool
    ) -> Reason | None:
        """Why the pool has it, given that a slot is free; None if that is not certain."""
        if self.settled is not None:
            return self.settled
        if function_s > self.timeout_s:
            return Reason.LIMIT_TIMEOUT
        if breaker_open:
            return Reason.BREAKER_OPEN
        return Reason.WARM_CAPACITY if pool_upper_s <= left_s else None


def prepare(
    request: InferenceRequest,
    rules: tuple[Rule, ...],
    limits: ServerlessLimits | None,
    *,
    is_assigned: bool = False,
) -> Warm | None:
    """What is certain from the head; None if the pool is not where such a request goes by itself.

    `limits` are those of the model's function, None where it has none or it is disabled.
    `is_assigned` says that it is decided already who answers a request that a rule may divert.
    """
    if request.hint is Backend.SERVERLESS or request.stream:
        return None
    rule = first_match(rules, request)
    if (rule.diverts(request) and not is_assigned) or not _may_be_pool(rule.route):
        return None
    out = _out(request, limits)
    is_captive = out is not None
    timeout_s = limits.timeout_s if limits is not None else 0.0
    if request.hint is Backend.POOL:
        return Warm(rule.name, Reason.HINT, timeout_s, is_captive)
    if rule.route.backend is Backend.POOL:
        return Warm(rule.name, Reason.RULE, timeout_s, is_captive)
    if out is Cause.PAYLOAD:
        return Warm(rule.name, Reason.LIMIT_PAYLOAD, timeout_s, is_captive)
    settled = Reason.ONLY_BACKEND if out is Cause.NOT_CONFIGURED else None
    return Warm(rule.name, settled, timeout_s, is_captive)


def _may_be_pool(route: Route) -> bool:
    return route.serverless_share is None and route.backend is not Backend.SERVERLESS


def _out(request: InferenceRequest, limits: ServerlessLimits | None) -> Cause | None:
    if limits is None:
        return Cause.NOT_CONFIGURED
    return Cause.PAYLOAD if is_too_large(request, limits) else None
