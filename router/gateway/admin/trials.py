"""The canaries on trial as the admin port and the metrics show them, and what it may do to them.

How a trial is judged is the policy's.
"""

import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from router.domain.errors import NotFoundError
from router.domain.events import EventKind, told
from router.policy.canary import Side
from router.policy.rollback import Tally
from router.policy.trial import CanaryTrial
from router.runtime import Runtime
from router.telemetry.readings import CanaryReading

_log = logging.getLogger(__name__)

_SHOWN_QUANTILE = 0.95


class CanaryAction(StrEnum):
    """What can be asked for a canary."""

    ROLL_BACK = "roll_back"
    RESUME = "resume"


class CanaryQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """Which rule's canary, and what shall become of it."""

    rule: str
    action: CanaryAction


def act(runtime: Runtime, question: CanaryQuestion, now: float) -> dict[str, Any]:
    """Roll a canary back or resume it; returns its status. Raises NotFoundError for no canary."""
    trial = runtime.trials.get(question.rule)
    if trial is None:
        raise NotFoundError(f"no rule {question.rule[:100]!r} with a canary is configured")
    changed = trial.roll_back() if question.action is CanaryAction.ROLL_BACK else trial.resume()
    if changed:
        facts = told(EventKind.CANARY, trial.canary.stable_model, rule=question.rule)
        _log.warning("canary of rule %s: %s, as asked", question.rule, question.action, extra=facts)
    return described(question.rule, trial, now)


def described(rule: str, trial: CanaryTrial, now: float) -> dict[str, Any]:
    """One canary's part of the status document."""
    canary, finding = trial.canary, trial.finding
    stable, tried = trial.window(now)
    return {
        "rule": rule,
        "model": canary.stable_model,
        "canary_model": canary.model or canary.stable_model,
        "canary_version": canary.version,
        "state": "rolled_back" if finding is not None else "running",
        "share_percent": round(trial.share * 100, 3),
        "configured_share_percent": round(canary.share * 100, 3),
        "promotions": trial.step,
        "labels": dict(trial.labels),
        "fault": finding.fault if finding is not None else None,
        "finding": finding.text if finding is not None else None,
        "rollbacks": trial.rollbacks,
        "window": {Side.STABLE: _tally(stable), Side.CANARY: _tally(tried)},
    }


def _tally(tally: Tally) -> dict[str, Any]:
    p95_s = tally.quantile_s(_SHOWN_QUANTILE)
    return {
        "requests": tally.requests,
        "failed": tally.errors,
        "p95_ms": None if p95_s is None else round(p95_s * 1e3, 1),
    }


def canary_readings(trials: Mapping[str, CanaryTrial]) -> list[CanaryReading]:
    """What metrics show of all canaries."""
    return [
        CanaryReading(
            model=trial.canary.stable_model,
            rule=rule,
            share=trial.share,
            rollbacks_total=trial.rollbacks,
            requests_total={
                (side, "failed" if failed else "ok"): count
                for (side, failed), count in trial.totals.items()
            },
        )
        for rule, trial in trials.items()
    ]
