"""What a delivery is: a POST that tells somebody what came of a call. Pure values and rules.

Times are seconds of the wall clock, because they outlive processes and are compared by several.
"""

from enum import StrEnum
from random import Random

import msgspec

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 3600.0
_FIRST_LOOK_S = 30.0
_MAX_CAUSE_CHARS = 300
_GONE = 410


class Progress(StrEnum):
    """How far a delivery has got; `gone` is what its receiver wants no more of."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"
    GONE = "gone"


class About(StrEnum):
    """What a delivery tells of, and so what is sent."""

    JOB = "job"
    BATCH = "batch"
    EVENT = "event"


class Delivery(msgspec.Struct, frozen=True):
    """One delivery; it has the id of the job or batch that it is about.

    It is made together with the job, waits for its end, and is tried from then on: `begun_at` is
    when it was first tried. `host` is whose rate it counts for. `version` counts its changes.
    """

    id: str
    tenant: str
    about: About
    url: str
    host: str
    created_at: float
    due_at: float
    next_at: float
    state: Progress = Progress.WAITING
    attempts: int = 0
    begun_at: float = 0.0
    ended_at: float = 0.0
    cause: str = ""
    version: int = 0

    @property
    def message_id(self) -> str:
        """By which the receiver knows a message again; a job that is retried has a new one."""
        return f"msg_{self.id}_{int(self.created_at * 1e3):x}"

    def told(self) -> dict[str, object]:
        """What clients are told of it."""
        told: dict[str, object] = {"status": self.state, "attempts": self.attempts}
        if self.cause:
            told["error"] = self.cause
        if self.ended_at:
            told["ended_at"] = int(self.ended_at)
        return told


class Reply(msgspec.Struct, frozen=True):
    """What a receiver answered: a status, or why there is none; and how long it wants to rest."""

    status: int = 0
    cause: str = ""
    retry_after_s: float = 0.0


def first_look(created_at: float, due_at: float) -> float:
    """When to look for the end of what a delivery is about, if nobody has told of it."""
    return min(due_at + 1.0, created_at + _FIRST_LOOK_S)


def looked(delivery: Delivery, now: float) -> Delivery:
    """The delivery, when what it is about has not ended: the longer it takes, the rarer looks are.

    A gateway tells when a job ends. This is for those that ended with their gateway.
    """
    waited_s = max(_FIRST_LOOK_S, now - delivery.created_at)
    next_at = now + min(waited_s, _LONGEST_PAUSE_S)
    if now < delivery.due_at:
        next_at = min(next_at, delivery.due_at + 1.0)
    return msgspec.structs.replace(delivery, next_at=next_at)


def tried(
    delivery: Delivery, reply: Reply, now: float, give_up_after_s: float, rng: Random
) -> Delivery:
    """What becomes of a delivery that was tried.

    Only 2xx means that it was taken. All else is tried again after pauses that double up to an
    hour, each of 0.5 to 1.5 times its length, or as long as the receiver asks; 410 is not.
    """
    attempts, begun_at = delivery.attempts + 1, delivery.begun_at or now
    state, next_at, cause = Progress.WAITING, 0.0, ""
    if 200 <= reply.status < 300:
        state = Progress.DELIVERED
    else:
        cause = (reply.cause or f"its receiver answered {reply.status}")[:_MAX_CAUSE_CHARS]
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 20))
        pause_s = max(pause_s * rng.uniform(0.5, 1.5), min(reply.retry_after_s, _LONGEST_PAUSE_S))
        next_at = now + pause_s
        if reply.status == _GONE:
            state = Progress.GONE
        elif next_at > begun_at + give_up_after_s:
            state = Progress.DEAD
    return msgspec.structs.replace(
        delivery, state=state, attempts=attempts, begun_at=begun_at, next_at=next_at, cause=cause,
        ended_at=0.0 if state is Progress.WAITING else now,
    )  # fmt: skip


def given_up(delivery: Delivery, cause: str, now: float) -> Delivery:
    """The delivery, when there is nothing to send any more."""
    return msgspec.structs.replace(
        delivery, state=Progress.DEAD, cause=cause[:_MAX_CAUSE_CHARS], ended_at=now
    )
