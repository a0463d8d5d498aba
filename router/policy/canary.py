"""Which of a rule's requests its canary answers: a fixed share, drawn by hash.

The same key always falls on the same side, and a larger share only adds keys to the canary's.
Whether the canary is still trusted is decided in `trial`.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from router.domain.request import InferenceRequest
from router.policy.rollback import RollbackParams


class Side(StrEnum):
    """Who answers a request under a canary rule."""

    STABLE = "stable"
    CANARY = "canary"


class Sticky(StrEnum):
    """What keeps requests on one side."""

    REQUEST = "request"
    TENANT = "tenant"
    HEADER = "header"


@dataclass(frozen=True, slots=True)
class Canary:
    """A share (0..1) of a rule's requests for another model, or another version of the same.

    `stable_model` is the one that the rule is about. `model` None means the same one, `version`
    None that the request names none. `header` is the one that counts with `Sticky.HEADER`.
    `rollback` None: nobody watches. `promotion` None: the share stays as it is.
    """

    stable_model: str
    model: str | None
    version: str | None
    share: float
    sticky: Sticky = Sticky.REQUEST
    header: str = ""
    rollback: RollbackParams | None = None
    promotion: "Promotion | None" = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """When a canary's share grows: to the next of `steps` (0..1) that is larger.

    Each step lasts `after_s` and has that many requests of the canary, and labels of its answers.
    """

    after_s: float
    requests: int
    labels: int
    steps: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Shadow:
    """A share (0..1) of a rule's requests that `model` gets a copy of, for nobody to see.

    At most `max_in_flight` copies of at most `max_bytes` together are under way, each for at most
    `timeout_s`. `compared` is the share of the answers that are compared, numbers within
    `tolerance` (absolute plus relative).
    """

    model: str
    share: float
    timeout_s: float
    max_in_flight: int
    max_bytes: int
    compared: float
    tolerance: float


def side_of(canary: Canary, rule: str, request: InferenceRequest) -> Side:
    """Who answers. A request without the tenant or header that it would stick to is drawn alone."""
    return side_by(canary, rule, key_of(canary, request) or own_key(request.request_id))


def side_by(canary: Canary, rule: str, key: str) -> Side:
    """Who answers the requests with that key."""
    return Side.CANARY if draw(rule, key) < canary.share else Side.STABLE


def is_copied(shadow: Shadow, request_id: str) -> bool:
    """Whether the shadow is to get a copy of the request with that id."""
    return draw(f"shadow {shadow.model}", request_id) < shadow.share


def draw(salt: str, key: str) -> float:
    """A number in [0, 1) that is the same for the same texts and looks random otherwise."""
    # Not a checksum: those of two salts differ by a constant, so that two draws would agree.
    digest = blake2b(f"{salt}\0{key}".encode(errors="surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def key_of(canary: Canary, request: InferenceRequest) -> str | None:
    """What the request shares with those that it stays together with; None if with none."""
    match canary.sticky:
        case Sticky.TENANT if request.tenant is not None:
            return f"t:{request.tenant}"
        case Sticky.HEADER if canary.header in request.headers:
            return f"h:{request.headers[canary.header]}"
        case _:
            return None


def own_key(request_id: str) -> str:
    """The key of a request that is drawn alone."""
    return f"r:{request_id}"
