"""What the admin port shows of jobs that wait for a model's replicas. Reads only."""

from math import isfinite
from typing import Any

from router.domain.decision import TraceStep
from router.policy.deferral import NOTHING, Deferral, Way
from router.runtime import ModelRuntime, Runtime

_WAYS = {
    Way.FREE: "idle time of replicas that requests keep anyway does it until its window ends",
    Way.FUNCTION: "what idle time does not do goes to the function when its window forces it",
    Way.REPLICAS: "what idle time does not do is done by replicas that are started for it",
}


def deferral_of(runtime: Runtime, model: ModelRuntime) -> Deferral:
    """What becomes of all that waits for the replicas that a model runs on."""
    return (runtime.groups[model.group] if model.group else model).sizing.deferral


def described(deferral: Deferral) -> dict[str, Any] | None:
    """The part of a status document about jobs; None while none wait."""
    if deferral is NOTHING or not deferral.work:
        return None
    return {
        "way": deferral.way,
        "work_replica_s": round(deferral.work, 3),
        "idle_replicas": round(deferral.spare, 4),
        "replicas_for_jobs": deferral.replicas,
        "expected_cost_usd": deferral.usd if isfinite(deferral.usd) else None,
    }


def explained(deferral: Deferral) -> TraceStep | None:
    """A step of an explanation for a request that is to be answered later; None if none wait."""
    if deferral is NOTHING or not deferral.work:
        return None
    told = (
        f"{_WAYS[deferral.way]}: {deferral.work:.0f} s of a replica wait, {deferral.spare:.2f}"
        f" replicas are idle, {deferral.replicas} are there for jobs, {deferral.usd:.3g} USD"
    )
    return TraceStep("jobs", deferral.way, told)
