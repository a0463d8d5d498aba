"""What a wire protocol is to the gateway, and what a request line may ask for.

One protocol is one file beside this one, and a line in `registry`: its paths, the shape of its
errors, and what of its bodies decides where a request goes. All else works with what is named here.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from router.domain.errors import MethodNotAllowedError
from router.domain.request import Priority, Protocol
from router.runtime import Runtime
from router.settings.keys import ApiKey
from router.telemetry.metrics import ModelCounts
from router.turns import Steps


@dataclass(frozen=True, slots=True)
class Question:
    """A request line, and who asks: `segments` are those of the path, decoded."""

    method: str
    segments: list[str]
    runtime: Runtime
    caller: ApiKey | None
    now: float
    is_ready: bool = True


class Asked(NamedTuple):
    """What decides where a body goes, beside its head.

    `renamed` makes of the body that was read one for another model; None: the path names it.
    """

    model: str
    stream: bool = False
    renamed: Callable[..., Awaitable[bytes]] | None = None


class Told(NamedTuple):
    """What else a body says of its request. `timeout_s` counts from when the request came."""

    timeout_s: float | None = None
    priority: Priority | None = None
    sequence_id: str | None = None


class WireProtocol(Protocol):
    """A wire protocol as the edge sees it.

    One whose paths name the model need not implement what reads bodies.
    """

    tells_in_body = False
    """Whether a body may say what `Told` holds."""
    media: frozenset[str] = frozenset()
    """Media types of bodies that it takes beside those that all take."""

    def owns(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether the (decoded) path is the protocol's, if only to say that nothing is there.

        `headers` may tell apart the clients of two protocols with the same path. Raises
        NotImplementedError unless a protocol overrides it.
        """
        raise NotImplementedError

    def resolve(self, question: Question) -> "Target | Own":
        """What the request line asks for. Raises NotFoundError and its like."""
        raise NotImplementedError

    def runs(self, action: str) -> bool:
        """Whether the action runs the model; else it asks about it."""
        del action
        return True

    def check_head(self, headers: Mapping[str, str]) -> None:
        """Raise UnsupportedMediaError for a body that cannot be read as it comes."""

    async def asked(self, body: bytes, headers: Mapping[str, str]) -> Asked:
        """The deciding fields of a body of any length. Raises InvalidRequestError."""
        raise NotImplementedError

    def asked_at_once(self, body: bytes) -> Asked:
        """The deciding fields of a body of PART_BYTES at most. Raises InvalidRequestError."""
        raise NotImplementedError

    async def told(self, body: bytes, headers: Mapping[str, str]) -> Told:
        """What else the body says, where `tells_in_body`. Raises InvalidRequestError."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Target:
    """A request that a backend answers: `action` is what `Protocol.path` calls so.

    `model` None: its name is in the body. `only` are the models that may be asked so; None: all.
    """

    protocol: WireProtocol
    action: str
    model: str | None
    version: str | None = None
    only: frozenset[str] | None = None

    def is_for(self, model: str) -> bool:
        """Whether a model of that name may be asked so."""
        return self.only is None or model in self.only

    @property
    def is_inference(self) -> bool:
        """Whether it runs the model; else it asks about it."""
        return self.protocol.runs(self.action)


@dataclass(frozen=True, slots=True)
class Document:
    """An answer the gateway gives by itself: a JSON document."""

    content: object
    status: int = 200


@dataclass(frozen=True, slots=True)
class BodyQuestion:
    """A question to the gateway that is in a (short) body; `answer` raises RouterError."""

    answer: Callable[[bytes], Document]


@dataclass(frozen=True, slots=True)
class CountsQuestion:
    """A question about what the gateway has counted; `answer` is given what tells it of a model."""

    answer: Callable[[Callable[[str], ModelCounts]], Steps[Document]]


Own = Document | BodyQuestion | CountsQuestion
"""What the gateway answers itself."""


def require(method: str, *allowed: str) -> None:
    """Raise MethodNotAllowedError unless the method is one of those."""
    if method not in allowed:
        # What may be asked with GET may be asked with HEAD: see `intake`.
        names = ", ".join("GET, HEAD" if name == "GET" else name for name in allowed)
        raise MethodNotAllowedError(f"method {method[:20]} is not allowed here, use {names}", names)
