"""HTTP request -> function event, payload format 2.0, bodies byte-exact. Pure."""

from base64 import b64encode
from collections.abc import Collection
from functools import lru_cache

import msgspec

from router.backends.forwarding import read_line
from router.domain.request import InferenceRequest


class EventForm:
    """The events of requests that are alike: what they share is JSON already.

    `own` are the headers (lower case) that each has among lines of its own.
    """

    def __init__(self, request: InferenceRequest, own: Collection[str] = ()) -> None:
        shared = {
            name: _text(value)
            for name, value in request.headers.items()
            if name not in own and name != "x-request-id"
        }
        start = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": request.path,
            "rawQueryString": request.query,
            "headers": shared,
        }
        http = {"method": request.method, "path": request.path, "protocol": "HTTP/1.1"}
        self._start = msgspec.json.encode(start)[:-2] + b"," * bool(shared)
        self._end = b',"http":%b},"isBase64Encoded":' % msgspec.json.encode(http)
        self._is_text = request.is_text

    def event(self, lines: bytes, request_id: bytes, body: bytes) -> bytes:
        """One event. Text goes as text unless base64 is shorter; the rest as base64.

        `lines` are whole lines of the request's head, `request_id` is printable ASCII.
        """
        name = msgspec.json.encode(request_id.decode("ascii"))
        head = b'%b%b"x-request-id":%b},"requestContext":{"requestId":%b%b' % (
            self._start, _members(lines), name, name, self._end,
        )  # fmt: skip
        text = _as_json_text(body) if self._is_text else None
        # A body full of quotes may grow more by escaping than by base64.
        if text is not None and len(text) <= 4 * len(body) // 3 + 64:
            return b'%bfalse,"body":%b}' % (head, text)
        return b'%btrue,"body":"%b"}' % (head, b64encode(body))


def _members(lines: bytes) -> bytes:
    """Lines of a head as members of the event's headers, each with a comma behind it."""
    if not lines:
        return b""
    pairs = [_member(line) for line in lines.split(b"\r\n")[:-1]]
    members = dict(pairs)
    if len(members) == len(pairs):
        return b"".join(members.values())
    together: dict[str, str] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, value = read_line(line)
        before = together.get(name)
        together[name] = value if before is None else f"{before}, {value}"
    return b"".join(_as_member(name, value) for name, value in together.items())


@lru_cache(maxsize=1024)
def _member(line: bytes) -> tuple[str, bytes]:
    """Most lines come again and again."""
    name, value = read_line(line)
    return name, _as_member(name, value)


def _as_member(name: str, value: str) -> bytes:
    return b"%b:%b," % (msgspec.json.encode(name), msgspec.json.encode(_text(value)))


def _text(value: str) -> str:
    """A header's value as JSON can have it: what is no UTF-8 as characters of Latin-1."""
    if value.isascii():
        return value
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _as_json_text(body: bytes) -> bytes | None:
    try:
        return msgspec.json.encode(body.decode())
    except UnicodeDecodeError:
        return None
