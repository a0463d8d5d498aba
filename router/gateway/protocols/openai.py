"""OpenAI-shaped requests: the model's name and `stream` are in the body, the rest stays opaque."""

import asyncio
from collections.abc import Mapping
from functools import partial
from itertools import chain
from urllib.parse import quote

import msgspec

from router.domain.errors import InvalidRequestError, NotFoundError, UnsupportedMediaError
from router.domain.request import AnswerForm
from router.gateway.body import joined
from router.gateway.protocols.base import Asked, Document, Question, Target, WireProtocol, require
from router.gateway.protocols.forms import FORM, find_form_fields
from router.gateway.protocols.json_fields import (
    MAX_DEPTH,
    MAX_FIELDS,
    PART_BYTES,
    Field,
    find_fields,
    find_fields_in_turns,
    parts_of,
)
from router.gateway.protocols.models import listed

_PATHS = {
    ("chat", "completions"),
    ("completions",),
    ("embeddings",),
    ("moderations",),
    ("rerank",),
    ("responses",),
}
"""Also rerank, which stands beside OpenAI's at many model servers."""
_WITH_ANY_VERB = {"audio", "images"}
_BASE = "/v1/"
_MODELS = f"{_BASE}models"
_CLIENT = "x-stainless-lang"
"""What OpenAI's clients send with each request, and nobody else does."""


_JUDGED = frozenset({"model", "stream"})


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = False


class OpenAI(WireProtocol):
    """OpenAI's API, as far as it asks a model for something."""

    name = "openai"
    answers = AnswerForm.TEXT
    media = frozenset({FORM})

    def path(self, action: str, model: str, version: str | None) -> str:
        """The path, as it stands after `/v1/` or else whole: paths name no model, bodies do."""
        del model, version
        return quote(action if action.startswith("/") else _BASE + action)

    def error_document(self, message: str, code: str, status: int) -> dict[str, object]:
        """An object of a closed shape."""
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def owns(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether it is under `/v1`; what is about models, only for clients of OpenAI's."""
        if path == _MODELS or path.startswith(f"{_MODELS}/"):
            return _CLIENT in headers and not path.endswith(":predict")
        return path.startswith(_BASE)

    def resolve(self, question: Question) -> Target | Document:
        """What the path asks for. Raises NotFoundError and its like."""
        path, only = "/" + "/".join(question.segments), None
        match question.segments:
            case ["v1", "models", *parts]:
                return listed(question, parts)
            case ["v1", verb, what] if verb in _WITH_ANY_VERB and what:
                pass
            case ["v1", *action] if tuple(action) in _PATHS:
                pass
            case _:
                only = question.runtime.openai_paths.get(path)
                if only is None:
                    raise NotFoundError("this path is not part of the API")
        require(question.method, "POST")
        return Target(self, path.removeprefix(_BASE), None, only=only)

    def check_head(self, headers: Mapping[str, str]) -> None:
        """Raise UnsupportedMediaError for a body that cannot be read as it comes."""
        if headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            raise UnsupportedMediaError("the model's name is in the body: send it uncompressed")

    async def asked(self, body: bytes, headers: Mapping[str, str]) -> Asked:
        """The deciding fields of a body of any length. Raises InvalidRequestError."""
        content_type = headers.get("content-type", "")
        if content_type.lower().startswith(FORM):
            return await _asked_in_form(body, content_type)
        if len(body) <= PART_BYTES:
            return self.asked_at_once(body)
        try:
            return _asked(await find_fields_in_turns(parts_of(body), _JUDGED))
        except (msgspec.DecodeError, ValueError, KeyError) as error:
            raise _invalid(error) from None

    def asked_at_once(self, body: bytes) -> Asked:
        """The deciding fields of a body of PART_BYTES at most. Raises InvalidRequestError."""
        try:
            fields = None if _is_plain(body) else find_fields(body, _JUDGED)
            # Of what it is not asked for the decoder checks that it is JSON.
            found = msgspec.json.decode(body, type=_Body)
            if fields is not None:
                return _asked(fields)
            return Asked(found.model, found.stream or False, _renamed)
        except (msgspec.DecodeError, ValueError, KeyError) as error:
            raise _invalid(error) from None


OPENAI = OpenAI()


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


async def _asked_in_form(body: bytes, content_type: str) -> Asked:
    try:
        fields = await find_form_fields(body, content_type, _JUDGED)
        asked, stream = fields["model"], fields.get("stream")
    except (ValueError, KeyError) as error:
        raise _invalid(error) from None

    async def renamed(body: bytes, model: str) -> bytes:
        return await _with(body, (asked.start, asked.end), model.encode())

    return Asked(
        asked.value,
        stream is not None and stream.value.lower() in {"true", "1"},
        renamed,
    )


def _asked(fields: dict[str, Field]) -> Asked:
    model = fields["model"]
    stream = fields.get("stream")
    return Asked(
        msgspec.json.decode(model.value, type=str),
        # Clients send null for what their user has not set.
        bool(msgspec.json.decode(stream.value, type=bool | None)) if stream is not None else False,
        partial(_renamed, place=(model.start, model.end)),
    )


def _invalid(error: Exception) -> InvalidRequestError:
    told = "it names no model" if isinstance(error, KeyError) else error
    return InvalidRequestError(f"the body is not a valid request: {told}")


async def _renamed(body: bytes, model: str, place: tuple[int, int] | None = None) -> bytes:
    """A body that was read before, asking for another model."""
    if place is None:
        field = find_fields(body, _JUDGED)["model"]
        place = field.start, field.end
    return await _with(body, place, msgspec.json.encode(model))


async def _with(body: bytes, place: tuple[int, int], name: bytes) -> bytes:
    start, end = place
    if len(body) <= PART_BYTES:
        return body[:start] + name + body[end:]
    whole, pieces = memoryview(body), list[bytes]()
    for piece in chain(parts_of(whole[:start]), (name,), parts_of(whole[end:])):
        pieces.append(bytes(piece))
        await asyncio.sleep(0)
    return await joined(pieces)
