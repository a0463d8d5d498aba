"""CloudEvents as they come over HTTP: binary, structured, and in batches.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md

The official SDK is the tests' sender, and reads the answers. It does not read here: to a missing id
it makes one up, with which no event would be known again, and it knows no batches.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from router.domain.errors import InvalidRequestError

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
_VERSION = "1.0"
_REQUIRED = ("id", "source", "type")
_NAME = re.compile(r"[a-z0-9]{1,64}")
_MAX_ATTRIBUTES = 50
_MAX_VALUE_CHARS = 2048
_MAX_SHOWN_CHARS = 80
_JSON = re.compile(r"(?:application|text)/(?:[a-z0-9.+_-]+\+)?json\b")


class Event(msgspec.Struct, frozen=True):
    """An event: its attributes, all of them texts, and its data as bytes of a media type."""

    attributes: Mapping[str, str]
    content: bytes = b""
    media: str = "application/json"

    @property
    def id(self) -> str:
        """Unique for its source."""
        return self.attributes["id"]

    @property
    def source(self) -> str:
        """Where it comes from."""
        return self.attributes["source"]

    @property
    def is_json(self) -> bool:
        """Whether its data is JSON."""
        return _JSON.match(self.media.lower()) is not None

    def data(self) -> object:
        """Its data as a value: of JSON, else a text. Raises LookupError where it is neither."""
        if not self.content:
            return None
        try:
            return msgspec.json.decode(self.content) if self.is_json else self.content.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise LookupError("data is neither JSON nor text") from None

    def base64(self) -> str:
        """Its data in base64."""
        return base64.b64encode(self.content).decode()


def event(attributes: Mapping[str, str], content: bytes, media: str) -> Event:
    """An event whose attributes have been checked. Raises InvalidRequestError."""
    if len(attributes) > _MAX_ATTRIBUTES:
        raise InvalidRequestError(f"an event may have {_MAX_ATTRIBUTES} attributes")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(
                f"attribute {name[:_MAX_SHOWN_CHARS]!r} must be named by 1..64 of a-z 0-9"
            )
        if len(value) > _MAX_VALUE_CHARS or not value.isprintable():
            raise InvalidRequestError(
                f"attribute {name} must have at most {_MAX_VALUE_CHARS} printable characters"
            )
    for name in _REQUIRED:
        if not attributes.get(name):
            raise InvalidRequestError(f"the event has no {name}")
    return Event(attributes, content, media)


def binary(headers: Mapping[str, str], body: bytes) -> Event:
    """The event of a request whose headers are its attributes. Raises InvalidRequestError."""
    attributes = {
        name.lower()[3:]: unquote(value)
        for name, value in headers.items()
        if name.lower().startswith("ce-")
    }
    _check_version(attributes.pop("specversion", ""))
    # The SDK writes JSON without saying so.
    media = headers.get("content-type") or ("application/json" if is_json(body) else "")
    return event(attributes, body, media)


def structured(body: bytes | msgspec.Raw) -> Event:
    """The event that a body is. Raises InvalidRequestError."""
    fields = decoded(body, dict[str, msgspec.Raw])
    data, data_base64 = fields.pop("data", None), fields.pop("data_base64", None)
    texts = {name: _text(name, value) for name, value in fields.items()}
    attributes = {name: value for name, value in texts.items() if value is not None}
    _check_version(attributes.pop("specversion", ""))
    media = attributes.pop("datacontenttype", "application/json")
    if data_base64 is not None:
        return event(attributes, of_base64(decoded(data_base64, str), "data_base64"), media)
    content = bytes(data) if data is not None else b""
    found = event(attributes, content, media)
    if data is not None and not found.is_json:
        # Data of another type is a JSON text that holds it.
        value = decoded(data, Any)
        return event(attributes, value.encode() if isinstance(value, str) else content, media)
    return found


def batch(body: bytes, most: int) -> list[Event]:
    """The events of a batch. Raises InvalidRequestError."""
    return [structured(one) for one in items(body, most)]


def items(body: bytes | msgspec.Raw, most: int) -> list[msgspec.Raw]:
    """The parts of a JSON list that may have so many. Raises InvalidRequestError."""
    found: list[msgspec.Raw] = decoded(body, list[msgspec.Raw])
    if len(found) > most:
        raise InvalidRequestError(f"a request may have {most} events, this one has {len(found)}")
    return found


def decoded(body: bytes | msgspec.Raw, kind: Any) -> Any:  # noqa: ANN401  what `kind` says
    """JSON as values of that type. Raises InvalidRequestError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = str(error)[:200]
        raise InvalidRequestError(f"the body is not a valid event: {message}") from None


def of_base64(text: str, what: str) -> bytes:
    """What a text in base64 stands for. Raises InvalidRequestError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestError(f"{what} is not valid base64") from None


def is_json(content: bytes) -> bool:
    """Whether bytes are valid JSON."""
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _check_version(version: str) -> None:
    if version != _VERSION:
        raise InvalidRequestError(
            f"specversion = {version[:_MAX_SHOWN_CHARS]!r}, must be {_VERSION}"
        )


def _text(name: str, raw: msgspec.Raw) -> str | None:
    value = decoded(raw, Any)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return str(value).lower()
    raise InvalidRequestError(
        f"attribute {name[:_MAX_SHOWN_CHARS]!r} must be a text, a whole number or a truth value"
    )
