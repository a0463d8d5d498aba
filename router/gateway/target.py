"""What a request line asks for: something to be run for a model, or something the gateway knows."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from router.domain.errors import InvalidRequestError, MethodNotAllowedError
from router.domain.request import Protocol
from router.runtime import ModelRuntime

_AUTHORITY = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """A request that a backend answers: `action` is what `domain.addressing` calls so.

    `model` None: its name is in the body.
    """

    protocol: Protocol
    action: str
    model: str | None
    version: str | None = None

    @property
    def is_inference(self) -> bool:
        """Whether it runs the model; else it asks about it."""
        return self.protocol is not Protocol.OIP or self.action == "infer"


@dataclass(frozen=True, slots=True)
class Document:
    """An answer the gateway gives by itself: a JSON document."""

    content: object
    status: int = 200


def origin_form(target: str) -> str:
    """Path and query of a request target: clients of a proxy name scheme and authority as well."""
    authority = _AUTHORITY.match(target)
    if authority is None:
        return target
    rest = target[authority.end() :]
    return rest if rest.startswith("/") else "/" + rest


def segments_of(path: str) -> list[str]:
    """The decoded segments of a raw path. Raises InvalidRequestError for what is not text."""
    try:
        segments = [unquote(part, errors="strict") for part in path.split("/")[1:]]
    except UnicodeDecodeError:
        raise InvalidRequestError("the path is not valid UTF-8") from None
    if any(not segment.isprintable() for segment in segments):
        raise InvalidRequestError("the path contains control characters")
    return segments


def require(method: str, *allowed: str) -> None:
    """Raise MethodNotAllowedError unless the method is one of those."""
    if method not in allowed:
        names = ", ".join(allowed)
        raise MethodNotAllowedError(f"method {method[:20]} is not allowed here, use {names}", names)


def can_serve(model: ModelRuntime, now: float) -> bool:
    """Whether a request for the model would find a backend, if need be after a start."""
    pool, function = model.pool, model.serverless
    if function is not None and function.params.enabled and not function.circuit.is_open(now):
        return True
    return pool is not None and pool.params.enabled and (pool.ready > 0 or pool.params.can_start)
