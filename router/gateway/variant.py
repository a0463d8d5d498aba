"""Which model answers a request: the one it names, or the canary of the rule that applies to it.

Decides nothing about backends: the model found is routed by its own rules, and no canary of a
canary is followed.
"""

import logging
from dataclasses import dataclass

from router.domain.decision import Outcome, TraceStep
from router.domain.events import EventKind, told
from router.domain.request import InferenceRequest
from router.policy.canary import Shadow, Side, side_of
from router.policy.rules import Rule, first_match
from router.policy.trial import CanaryTrial
from router.runtime import ModelRuntime, Runtime

_log = logging.getLogger(__name__)

_NOBODYS_FAULT = frozenset({Outcome.CLIENT_CLOSED, Outcome.RATE_LIMITED})


@dataclass(frozen=True, slots=True)
class Assignment:
    """A request's place in a canary's trial."""

    rule: str
    side: Side
    trial: CanaryTrial

    @property
    def explained(self) -> TraceStep:
        """The assignment as a line of an explanation."""
        told = f"{self.trial.share:.4g} of the requests go to the canary, this one is {self.side}"
        if self.trial.finding is not None:
            told += f" (rolled back: {self.trial.finding.text})"
        return TraceStep("canary", self.rule, told)

    def ended(self, outcome: Outcome, latency_s: float, now: float) -> None:
        """Count how the request ended; reports a rollback, and a larger share.

        An error of the client's counts as well: a canary that refuses what the stable side takes is
        broken, and what both refuse makes no difference.
        """
        if outcome in _NOBODYS_FAULT:
            return
        step = self.trial.step
        finding = self.trial.record(self.side, latency_s if outcome is Outcome.OK else None, now)
        if self.trial.step != step:
            share = self.trial.share
            facts = told(
                EventKind.CANARY, self.trial.canary.stable_model, rule=self.rule, share=share
            )
            _log.warning(
                "canary of rule %s is promoted: it gets %.4g of the requests", self.rule, share,
                extra=facts,
            )  # fmt: skip
        if finding is not None:
            facts = told(EventKind.CANARY, self.trial.canary.stable_model, rule=self.rule)
            _log.error("canary of rule %s is rolled back: %s", self.rule, finding.text, extra=facts)


@dataclass(frozen=True, slots=True)
class Variant:
    """A request as it goes on. `assignment` and `shadow` are None where no rule asks for them.

    What a canary answers is not shadowed: a shadow is compared with the stable side.
    """

    model: ModelRuntime
    request: InferenceRequest
    assignment: Assignment | None = None
    shadow: Shadow | None = None


def variant_of(runtime: Runtime, model: ModelRuntime, request: InferenceRequest) -> Variant:
    """What the rules make of a request for `model`."""
    if not model.policy.may_divert:
        return Variant(model, request)
    rule = first_match(model.policy.rules, request)
    if not rule.diverts(request):
        return Variant(model, request)
    assignment = assignment_of(runtime, rule, request)
    if assignment is None:
        return Variant(model, request, None, rule.shadow)
    return assigned_variant(runtime, model, request, assignment, rule.shadow)


def assigned_variant(
    runtime: Runtime,
    model: ModelRuntime,
    request: InferenceRequest,
    assignment: Assignment,
    shadow: Shadow | None = None,
) -> Variant:
    """What becomes of a request for `model` on its side of a canary."""
    if assignment.side is Side.CANARY:
        canary = assignment.trial.canary
        other = runtime.models[canary.model] if canary.model is not None else model
        return Variant(other, other.addressed(request, canary.version), assignment)
    return Variant(model, request, assignment, shadow)


def assignment_of(runtime: Runtime, rule: Rule, request: InferenceRequest) -> Assignment | None:
    """The side of the rule's canary that the request is on; None if there is no canary."""
    trial = runtime.trials.get(rule.name)
    if trial is None:
        return None
    is_out = trial.is_rolled_back
    side = Side.STABLE if is_out else side_of(trial.current, rule.name, request)
    return Assignment(rule.name, side, trial)
