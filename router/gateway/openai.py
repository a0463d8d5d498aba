"""OpenAI-shaped requests: the model's name and `stream` are in the body, the rest stays opaque."""

import msgspec

from router.domain.errors import InvalidRequestError, NotFoundError
from router.domain.request import Protocol
from router.gateway.target import Target, require

_PATHS = {("chat", "completions"), ("completions",), ("embeddings",)}


class Asked(msgspec.Struct):
    """What of the body decides where it goes."""

    model: str
    stream: bool = False


def resolve(method: str, segments: list[str]) -> Target:
    """What the path (segments after `v1`) asks for. Raises NotFoundError and its like."""
    if tuple(segments) not in _PATHS:
        raise NotFoundError("this path is not part of the API")
    require(method, "POST")
    return Target(Protocol.OPENAI, "/".join(segments), None)


def read(body: bytes) -> Asked:
    """The deciding fields. Raises InvalidRequestError."""
    try:
        return msgspec.json.decode(body, type=Asked)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is not a valid request: {error}") from None


def renamed(body: bytes, model: str) -> bytes:
    """A body that was read before, asking for another model; all other fields stay as they are."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)
