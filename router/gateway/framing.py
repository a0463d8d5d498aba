"""Where requests begin and end on a connection, told from aiohttp's parser and the bytes it read.

aiohttp's hardened parser decides framing; this module refuses what it lets pass (versions other
than 1.0 and 1.1, codings beside chunked), and says when framing is so plain that the bytes can be
cut without a parser. In doubt it says so, for good: then every request is an ordinary one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from router.gateway.body import STREAM_ABOVE_BYTES

_VERSIONS = (HttpVersion10, HttpVersion11)

Message = tuple[RawRequestMessage, StreamReader]


class Begun(NamedTuple):
    """A request whose head lies at the start of what was read; its body begins at `start`.

    `missing` is how much of the `length` bytes of the body has not been read yet.
    """

    message: RawRequestMessage
    payload: StreamReader
    start: int
    length: int
    missing: int


class Framing:
    """What the connection still owes of the request under way.

    `owed` is 0 between requests, and None once that cannot be told from the bytes any more.
    """

    __slots__ = ("owed",)

    def __init__(self) -> None:
        self.owed: int | None = 0

    def lose(self) -> None:
        """Something came whose extent is not known."""
        self.owed = None

    def read(self, messages: Sequence[Message], data: bytes, *, upgraded: bool) -> Begun | None:
        """Note what the parser made of `data`; the request that began in it, if that is certain."""
        if not data:  # aiohttp goes on with what its parser had kept
            if messages:
                self.lose()
            return None
        owed, self.owed = self.owed, None
        if owed is None or upgraded:
            return None
        if owed:
            if not messages and len(data) <= owed:
                self.owed = owed - len(data)
            return None
        begun = _begun(messages[0], data) if len(messages) == 1 else None
        if begun is not None:
            self.owed = begun.missing
        return begun


class ParserTap:
    """Stands before aiohttp's parser; `on_read` sees what was read, and says what to take of it."""

    __slots__ = ("_framing", "_on_read", "_parser")

    def __init__(self, parser: Any, framing: Framing, on_read: Callable[..., bool]) -> None:  # noqa: ANN401
        self._parser = parser
        self._framing = framing
        self._on_read = on_read

    def feed_data(self, data: bytes) -> tuple[Sequence[Message], bool, bytes]:
        """As the parser's, without what the fast path has taken."""
        try:
            messages, upgraded, tail = self._parser.feed_data(data)
            _check(messages)
        except HttpProcessingError:
            self._framing.lose()
            raise
        begun = self._framing.read(messages, data, upgraded=upgraded)
        if begun is not None and self._on_read(begun, data):
            self._parser.message_consumed()
            return (), False, b""
        return messages, upgraded, tail

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the parser has
        return getattr(self._parser, name)


def _check(messages: Sequence[Message]) -> None:
    """Refuse what the parser lets pass although others would read it in another way."""
    for message, _ in messages:
        if message.version not in _VERSIONS:  # a request line without one, for instance
            raise BadHttpMessage("this is not HTTP/1.1")
        if message.chunked and not _is_just_chunked(message):
            raise BadHttpMessage("a transfer coding is not supported here")


def _is_just_chunked(message: RawRequestMessage) -> bool:
    """Whether a body is in chunks and nothing else, where it may be (RFC 9112 section 6.1)."""
    coding = message.headers.get("transfer-encoding", "")
    return message.version == HttpVersion11 and coding.lower() == "chunked"


def _begun(message: Message, data: bytes) -> Begun | None:
    head, payload = message
    length = _declared_length(head)
    start = data.find(b"\r\n\r\n") + 4
    if length is None or start < 4 or data[0] in b"\r\n":
        return None  # empty lines first are no part of the head, however they look
    missing = length - (len(data) - start)
    # A parser whose payload is full stands still before the end of what it was given.
    agrees = payload.is_eof() == (missing == 0) or (missing == 0 and length > STREAM_ABOVE_BYTES)
    return Begun(head, payload, start, length, missing) if missing >= 0 and agrees else None


def _declared_length(message: RawRequestMessage) -> int | None:
    """The length of a body that nothing but one Content-Length frames."""
    lengths = message.headers.getall("content-length", [])
    if message.chunked or message.upgrade or len(lengths) > 1:
        return None
    if not lengths:
        return 0
    return int(lengths[0]) if lengths[0].isascii() and lengths[0].isdecimal() else None
