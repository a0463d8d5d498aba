"""OpenAI-shaped requests: the model's name and `stream` are in the body, the rest stays opaque."""

import asyncio
from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

import msgspec

from router.domain.errors import InvalidRequestError, NotFoundError, UnsupportedMediaError
from router.domain.request import Protocol
from router.gateway.body import joined
from router.gateway.json_fields import (
    MAX_DEPTH,
    MAX_FIELDS,
    PART_BYTES,
    Field,
    find_fields,
    find_fields_in_turns,
    parts_of,
)
from router.gateway.target import Target, require

_PATHS = {("chat", "completions"), ("completions",), ("embeddings",)}


_JUDGED = frozenset({"model", "stream"})


class _Body(msgspec.Struct):
    model: str
    stream: bool = False


class Asked(NamedTuple):
    """What of the body decides where it goes; `place` is where the model's name stands in it."""

    model: str
    stream: bool = False
    place: tuple[int, int] | None = None


def resolve(method: str, segments: list[str]) -> Target:
    """What the path (segments after `v1`) asks for. Raises NotFoundError and its like."""
    if tuple(segments) not in _PATHS:
        raise NotFoundError("this path is not part of the API")
    require(method, "POST")
    return Target(Protocol.OPENAI, "/".join(segments), None)


def check_head(headers: Mapping[str, str]) -> None:
    """Raise UnsupportedMediaError for a body that cannot be read as it comes."""
    if headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise UnsupportedMediaError("the model's name is in the body: send it uncompressed")


async def read(body: bytes) -> Asked:
    """The deciding fields of a body of any length. Raises InvalidRequestError."""
    if len(body) <= PART_BYTES:
        return read_small(body)
    try:
        return _asked(await find_fields_in_turns(parts_of(body), _JUDGED))
    except (msgspec.DecodeError, ValueError, KeyError) as error:
        raise _invalid(error) from None


def read_small(body: bytes) -> Asked:
    """The deciding fields of a body of PART_BYTES at most. Raises InvalidRequestError."""
    try:
        fields = None if _is_plain(body) else find_fields(body, _JUDGED)
        # Of what it is not asked for the decoder checks that it is JSON.
        found = msgspec.json.decode(body, type=_Body)
        return Asked(found.model, found.stream) if fields is None else _asked(fields)
    except (msgspec.DecodeError, ValueError, KeyError) as error:
        raise _invalid(error) from None


def _is_plain(body: bytes) -> bool:
    """Whether `find_fields` is sure to allow a body that is JSON: a look that costs little.

    Without `\\u` a name is written in its own letters. Few letters that are not ASCII are `s` or
    `st` in another case, and none is a part of `ream` or `model`.
    """
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    lower = body.lower()
    return (
        b"\\u" not in body
        and body.count(b'"model"') == lower.count(b'"model"') == 1
        and body.count(b'"stream"') == lower.count(b'ream"') <= 1
        and body.count(b"{") + body.count(b"[") <= MAX_DEPTH
        and body.count(b":") <= MAX_FIELDS
    )


def _asked(fields: dict[str, Field]) -> Asked:
    model = fields["model"]
    stream = fields.get("stream")
    return Asked(
        msgspec.json.decode(model.value, type=str),
        msgspec.json.decode(stream.value, type=bool) if stream is not None else False,
        (model.start, model.end),
    )


def _invalid(error: Exception) -> InvalidRequestError:
    told = "it names no model" if isinstance(error, KeyError) else error
    return InvalidRequestError(f"the body is not a valid request: {told}")


async def renamed(body: bytes, place: tuple[int, int] | None, model: str) -> bytes:
    """A body that was read before, asking for another model; all other bytes stay as they are."""
    if place is None:
        field = find_fields(body, _JUDGED)["model"]
        place = field.start, field.end
    start, end = place
    name = msgspec.json.encode(model)
    if len(body) <= PART_BYTES:
        return body[:start] + name + body[end:]
    whole, pieces = memoryview(body), list[bytes]()
    for piece in chain(parts_of(whole[:start]), (name,), parts_of(whole[end:])):
        pieces.append(bytes(piece))
        await asyncio.sleep(0)
    return await joined(pieces)
