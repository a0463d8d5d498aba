"""What a job is: what is asked, how far it has got, what came of it. Pure values.

Times are seconds of the wall clock, because they outlive processes and are compared by several.
"""

from collections.abc import Collection
from enum import StrEnum
from math import frexp

import msgspec

NAME_SEPARATOR = "|"
"""In no name of a model, a tenant or a batch."""
NOBODY = "~"
"""The tenant of calls to a gateway without keys; no key's tenant can be called so."""


class State(StrEnum):
    """How far a job has got."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


OPEN: Collection[State] = (State.QUEUED, State.RUNNING)


class Kind(StrEnum):
    """What a job does: call a model, or take a batch apart and put its answers together."""

    CALL = "call"
    PREPARE = "prepare"
    GATHER = "gather"


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked; never changes.

    `key` names the caller's API key, whose rights are looked up again when the job runs. The body
    is here, or it is a part of an object: `payload` with its beginning and its length. `callback`
    is where to tell what came of it; `event` are the attributes of the answer to an event.
    """

    kind: Kind = Kind.CALL
    key: str = ""
    method: str = "POST"
    target: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    payload: str = ""
    start: int = 0
    length: int = 0
    own_payload: bool = False
    custom_id: str = ""
    fingerprint: str = ""
    callback: str = ""
    event: dict[str, str] = {}


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a job: a backend's answer as it was given, or the cause of its failure.

    `content` names the object that holds the answer's body, of `length` bytes; else it is here.
    """

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content: str = ""
    cause: str = ""
    request_id: str = ""
    length: int = 0


class Job(msgspec.Struct, frozen=True):
    """One job. `attempt` is how often it was begun; who ends it has to name the same one."""

    id: str
    lane: str
    tenant: str
    created_at: float
    due_at: float
    spec: Spec
    batch: str = ""
    line: int = 0
    state: State = State.QUEUED
    attempt: int = 0
    worker: str = ""
    ended_at: float = 0.0
    cost_usd: float = 0.0
    result: Result | None = None

    @property
    def held_bytes(self) -> int:
        """What is kept of it alone: a line of a batch is in a file that has its own limits."""
        spec = self.spec
        asked = spec.length if spec.own_payload else len(spec.body)
        return asked + (answer_bytes(self.result) if self.result is not None else 0)

    @property
    def model(self) -> str:
        """The model that it is for."""
        return self.lane.partition(NAME_SEPARATOR)[0]


class Lane(msgspec.Struct, frozen=True):
    """Jobs of one tenant for one model, due at about the same time: first come, first served.

    `waiting` of them wait; the first of these is due at `due_at`.
    """

    name: str
    waiting: int
    due_at: float

    @property
    def model(self) -> str:
        """The model of all its jobs."""
        return self.name.split(NAME_SEPARATOR)[0]

    @property
    def tenant(self) -> str:
        """The tenant of all its jobs."""
        return self.name.split(NAME_SEPARATOR)[1]

    @property
    def batch(self) -> str:
        """The batch of all its jobs, empty for calls that came alone."""
        return self.name.split(NAME_SEPARATOR)[2]


class End(msgspec.Struct, frozen=True):
    """How an attempt of a job has ended."""

    id: str
    attempt: int
    state: State
    at: float
    result: Result
    cost_usd: float = 0.0


def answer_bytes(result: Result) -> int:
    """How much is kept of an answer."""
    return result.length or len(result.body)


def plain(text: str) -> str:
    """A piece of a head as it can be written down: what came need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def as_it_came(text: str) -> str:
    """What `plain` was made of."""
    return text.encode("latin-1").decode("utf-8", "surrogateescape")


def lane_of(model: str, tenant: str, batch: str, window_s: float) -> str:
    """The lane of a job that has so long.

    Windows of one lane differ by a factor of two at most: in it, who comes first is due first.
    """
    magnitude = frexp(max(window_s, 1.0))[1]
    return NAME_SEPARATOR.join((model, tenant, batch, str(magnitude)))
