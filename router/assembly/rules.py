"""Settings of routing rules to what the policy asks of them, and the trials of their canaries.

Given the runtime in force, a canary's trial goes on as long as its settings stay the same.
"""

from router.domain.decision import Backend
from router.domain.request import Priority
from router.policy.canary import Canary, Promotion, Shadow, Sticky
from router.policy.rollback import RollbackParams
from router.policy.rules import Glob, Match, Route, Rule
from router.policy.trial import CanaryTrial
from router.runtime import Runtime
from router.settings.rules import PriorityName, RouteName, RuleSettings, Weights
from router.settings.traffic import PromotionSettings, RollbackSettings, ShadowSettings


def kept_trials(rules: tuple[Rule, ...], previous: Runtime | None) -> dict[str, CanaryTrial]:
    """The trial of each rule's canary, by the rule's name; the present one if nothing changed."""
    old = previous.trials if previous is not None else {}
    trials = {}
    for rule in rules:
        if rule.canary is not None:
            kept = old.get(rule.name)
            is_same = kept is not None and kept.canary == rule.canary
            trials[rule.name] = kept if kept is not None and is_same else CanaryTrial(rule.canary)
    return trials


def rule_of(rule: RuleSettings) -> Rule:
    """The rule that these settings describe."""
    match = rule.match
    sizes = match.payload
    limits = {} if sizes is None else {"min_bytes": sizes.min_bytes}
    if sizes is not None and sizes.max_bytes is not None:
        limits["max_bytes"] = sizes.max_bytes
    return Rule(
        rule.name,
        Match(
            models=tuple(Glob(pattern) for pattern in match.model),
            versions=frozenset(match.version),
            tenants=frozenset(match.tenant),
            headers=tuple((name, Glob(value)) for name, value in match.header.items()),
            **limits,
        ),
        _route(rule.route),
        _canary(rule),
        _shadow(rule.shadow),
        priority=None if rule.priority is None else _PRIORITIES[rule.priority],
    )


_PRIORITIES = {
    PriorityName.HIGH: Priority.HIGH,
    PriorityName.NORMAL: Priority.NORMAL,
    PriorityName.LOW: Priority.LOW,
}


def _route(route: RouteName | Weights) -> Route:
    if isinstance(route, Weights):
        return Route(serverless_share=route.serverless / (route.serverless + route.pool))
    backends = {RouteName.POOL: Backend.POOL, RouteName.SERVERLESS: Backend.SERVERLESS}
    return Route(backend=backends.get(route))


def _canary(rule: RuleSettings) -> Canary | None:
    canary = rule.canary
    if canary is None:
        return None
    return Canary(
        stable_model=rule.match.model[0],
        model=canary.model,
        version=canary.version,
        share=canary.share / 100,
        sticky=Sticky(canary.sticky.partition(":")[0]),
        header=canary.sticky_header,
        rollback=_rollback(canary.rollback) if canary.rollback.enabled else None,
        promotion=_promotion(canary.promote_after),
    )


def _rollback(rollback: RollbackSettings) -> RollbackParams:
    return RollbackParams(
        min_requests=rollback.min_requests,
        window_s=rollback.window_s,
        error_margin=rollback.error_margin,
        latency_margin=rollback.latency_margin,
        latency_quantile=rollback.latency_percentile / 100,
        confidence=rollback.confidence,
        accuracy_margin=rollback.accuracy.margin if rollback.accuracy is not None else None,
        drift_psi=rollback.drift.psi if rollback.drift is not None else None,
    )


def _promotion(promotion: PromotionSettings | None) -> Promotion | None:
    if promotion is None:
        return None
    steps = tuple(share / 100 for share in promotion.steps)
    return Promotion(promotion.time_s, promotion.requests, promotion.labels, steps)


def _shadow(shadow: ShadowSettings | None) -> Shadow | None:
    if shadow is None:
        return None
    return Shadow(
        model=shadow.model,
        share=shadow.share / 100,
        timeout_s=shadow.timeout_s,
        max_in_flight=shadow.max_in_flight,
        max_bytes=shadow.max_bytes,
        compared=shadow.compare.sample,
        tolerance=shadow.compare.tolerance,
    )
