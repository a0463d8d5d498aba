"""Where jobs are kept and what they run on: what all that deals with them shares."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from router.dispatch.director import Director
from router.domain.clock import Clock
from router.gateway.body import BodyBudget
from router.gateway.intake import Intake
from router.jobs.objects import Objects
from router.jobs.records import Job, Result
from router.jobs.store import JobStore
from router.runtime import RuntimeRef
from router.settings.jobs import JobsSettings
from router.telemetry.tracer import Tracer


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs are kept and what they run on."""

    store: JobStore
    objects: Objects
    runtime: RuntimeRef
    settings: JobsSettings
    wall_clock: Clock


@dataclass(frozen=True, slots=True)
class Calling:
    """What a call takes beside its model."""

    director: Director
    intake: Intake
    bodies: BodyBudget
    clock: Clock
    rng: Random
    tracer: Tracer


Step = Callable[[Job], Awaitable[Result]]
"""What a job does that calls no model. Raises RouterError."""
