"""What the router knows of a request before its body has been read."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from typing import ClassVar

from router.domain.decision import Backend


class AnswerForm(Enum):
    """How the answers of a protocol hold what a model has computed."""

    TENSORS = auto()
    PREDICTIONS = auto()
    TEXT = auto()


class Protocol(ABC):
    """The wire protocol a client speaks, as far as it matters behind the edge.

    Each one is an object without state, made once: `gateway.protocols` has them.
    """

    name: ClassVar[str]
    answers: ClassVar[AnswerForm]

    @abstractmethod
    def path(self, action: str, model: str, version: str | None) -> str:
        """The raw path that asks a backend for `action` of a model, in a version unless None."""

    @abstractmethod
    def error_document(self, message: str, code: str, status: int) -> dict[str, object]:
        """The JSON document that tells a client what went wrong."""


class Priority(IntEnum):
    """The class of a request that has to wait; the lowest number goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """The facts of one inference request; its body stays opaque and travels beside it.

    `action` is what it asks of the model, `path` where a backend answers that: see
    `Protocol.path`. `payload_bytes` is the length as received (compressed if the client
    compressed it).
    `is_text` says that the body is plain JSON, which a function takes without base64.
    `is_inference` is false for questions about a model (metadata, config, statistics), which run
    like a request but tell nothing about load. `deadline` is the client's hard deadline (monotonic
    seconds) or None; `received_at` is monotonic too. `headers` has lower-case names and holds
    end-to-end headers only. `priority` is None where nobody states one; `weight` is the tenant's
    share of the turns when requests wait. `kept_bytes` is what is kept of a body that is passed on
    as it comes, None where all of it is. `is_job` says that nobody waits for the answer now.
    """

    request_id: str
    protocol: Protocol
    model: str
    method: str
    action: str
    path: str
    payload_bytes: int
    received_at: float
    version: str | None = None
    query: str = ""
    is_text: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    tenant: str | None = None
    deadline: float | None = None
    hint: Backend | None = None
    stream: bool = False
    priority: Priority | None = None
    weight: float = 1.0
    sequence_id: str | None = None
    is_idempotent: bool = True
    is_inference: bool = True
    kept_bytes: int | None = None
    is_job: bool = False

    @property
    def waiting_bytes(self) -> int:
        """What a queue holds of the request while it waits."""
        return self.payload_bytes if self.kept_bytes is None else self.kept_bytes

    @property
    def target(self) -> str:
        """Path and query, as they go upstream."""
        return f"{self.path}?{self.query}" if self.query else self.path
