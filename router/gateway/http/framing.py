"""Where requests begin and end on a connection, and how many bytes that are no body may come.

aiohttp's hardened parser decides what a request is; it gets whole heads only, so that an unfinished
one costs the bytes it has and no more. This module refuses what the parser lets pass (versions
other than 1.0 and 1.1, codings beside chunked) and what is too large, while it comes.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import BadHttpMessage, BadHttpMethod, HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from router.domain.errors import HeadTooLargeError, RouterError, ShedError, UnsupportedError
from router.gateway.http.chunks import ChunkedExtent

_VERSIONS = (HttpVersion10, HttpVersion11)
_END = b"\r\n\r\n"
_MAX_LINES = 128
"""Header lines of a head; the parser takes no more."""
_PLAIN_LINE = re.compile(rb"[A-Za-z]+ [!-~]+ HTTP/1\.[01]\r\n")
_FIRST, _LAST = b"AZ"

_Found = tuple[RawRequestMessage, StreamReader]


class RefusedError(BadHttpMessage):
    """What came is refused for a reason of ours, `error`; to aiohttp it is bad HTTP."""

    def __init__(self, error: RouterError) -> None:
        super().__init__(str(error))
        self.error = error


class Arrival(NamedTuple):
    """A request whose head has come: `raw`, and as `message` what aiohttp's parser made of it.

    `payload` is its body as it comes, and `length` what it declares, None if it is in chunks.
    """

    message: RawRequestMessage
    payload: StreamReader
    raw: bytes
    length: int | None

    @property
    def closes(self) -> bool:
        """Whether its client wants nothing more of the connection, or cannot be understood after.

        What follows a CONNECT is a tunnel's to those who believe that there is one.
        """
        return self.message.should_close or self.message.method == "CONNECT"

    @property
    def is_old(self) -> bool:
        """Whether its client speaks HTTP/1.0, and knows no chunks."""
        return self.message.version == HttpVersion10


class _PlainExtent:
    """A body whose length is known."""

    __slots__ = ("_owed",)

    def __init__(self, length: int) -> None:
        self._owed = length

    @property
    def is_over(self) -> bool:
        return not self._owed

    def take(self, data: bytes) -> int:
        size = min(self._owed, len(data))
        self._owed -= size
        return size


class Framing:
    """Stands before aiohttp's parser, and gives it one whole head or a part of one body at a time.

    `make` makes a parser. `has_room` says whether so many bytes may be held. `held` are those of an
    unfinished head.
    """

    __slots__ = ("_extent", "_has_room", "_make", "_max_head", "_parser", "_payload", "held")

    def __init__(
        self, make: Callable[[], Any], has_room: Callable[[int], bool], *, max_head: int
    ) -> None:
        self._make = make
        self._parser = make()
        self._has_room = has_room
        self._max_head = max_head
        self._extent: _PlainExtent | ChunkedExtent | None = None
        self._payload: StreamReader | None = None
        self.held = b""

    @property
    def is_between_requests(self) -> bool:
        """Whether all of the last body has come, and its reader has let it in."""
        return self._payload is None

    @property
    def is_owed(self) -> bool:
        """Whether the next byte is the body's."""
        return self._extent is not None and not self._extent.is_over

    def head(self, data: bytes) -> tuple[Arrival, bytes] | None:
        """The request that begins with what has come, and the rest of it; None if it is too little.

        Raises HttpProcessingError for what is refused: then nothing more may be read.
        """
        rest = self.held + data if self.held else data
        self.held = b""
        size = self._head_size(rest)
        if not size:
            self._hold(rest.lstrip(b"\r\n"))
            return None
        raw, rest = rest[:size].lstrip(b"\r\n"), rest[size:]
        found, is_upgraded = self._read_head(raw)
        message, payload = _only(found)
        length = _length_of(message)
        if message.chunked:
            self._extent = ChunkedExtent(self._max_head)
        elif length:
            self._extent = _PlainExtent(length)
        if self._extent is not None:
            self._payload = payload
        elif is_upgraded:
            self.renew()  # nobody goes on to another protocol here
        return Arrival(message, payload, raw, None if message.chunked else length), rest

    def body(self, data: bytes) -> bytes:
        """Give the parser what belongs to the body; returns the rest. A broken one says so itself.

        Also without new bytes: it goes on with what it had kept while its reader was slow.
        """
        payload, extent = self._payload, self._extent
        if payload is None or extent is None:
            return b""
        try:
            size = extent.take(data)
            _, is_upgraded, tail = self._parser.feed_data(data[:size])
            if payload.is_eof() and (tail or not extent.is_over):
                raise BadHttpMessage("where the body ends is in doubt")
        except (HttpProcessingError, HeadTooLargeError) as error:
            self._break(payload, error)
            return b""
        if payload.is_eof():
            self._payload = self._extent = None
            if is_upgraded:
                self.renew()
        return data[size:]

    def renew(self) -> None:
        """Begin anew: what was read is over, or somebody else reads the rest of it."""
        self._parser = self._make()
        self._payload = self._extent = None

    def _break(self, payload: StreamReader, error: HttpProcessingError | HeadTooLargeError) -> None:
        error.__traceback__ = None  # its frames would keep what came as long as it
        broken = web.RequestPayloadError("the body's framing is broken")
        broken.__cause__ = RefusedError(error) if isinstance(error, HeadTooLargeError) else error
        payload.set_exception(broken)
        self._extent = None  # nothing can be understood any more, and it never ends

    def pause_reading(self) -> None:
        """The body's reader is slow: aiohttp says so."""
        self._parser.pause_reading()

    def _head_size(self, rest: bytes) -> int:
        """The size of the head that `rest` begins with; 0 if it has not all come."""
        start = len(rest) - len(rest.lstrip(b"\r\n"))  # empty lines before a head are none of it
        end = rest.find(_END, start, start + self._max_head)
        if end >= 0:
            _check_lines(rest.count(b"\r\n", start, end))
            return end + len(_END)
        if len(rest) - start >= self._max_head:
            begun = rest[start : start + self._max_head]
            what = "the head of the request" if b"\r\n" in begun else "the URL alone"
            limit = f"the {self._max_head} bytes that a head may have (server.max_header)"
            raise RefusedError(HeadTooLargeError(f"{what} is over {limit}"))
        if len(rest) > start:
            _check_beginning(rest[start:])
        return 0

    def _read_head(self, head: bytes) -> tuple[Sequence[_Found], bool]:
        try:
            found, is_upgraded, _ = self._parser.feed_data(head)
        except BadHttpMethod:
            if _PLAIN_LINE.match(head) is None:
                raise
            told = "the method of the request is not known here: send GET, HEAD or POST"
            raise RefusedError(UnsupportedError(told)) from None
        return found, is_upgraded

    def _hold(self, rest: bytes) -> None:
        if rest and not self._has_room(len(rest)):
            raise RefusedError(ShedError("the gateway holds as many bytes as it may; try again"))
        self.held = rest


def _only(messages: Sequence[_Found]) -> _Found:
    """The message of a whole head, if others would not read it in another way."""
    if len(messages) != 1:
        raise BadHttpMessage("a head is not one request")
    message = messages[0][0]
    if message.version not in _VERSIONS:  # a request line without one, for instance
        raise BadHttpMessage("this is not HTTP/1.1")
    if message.chunked and not _is_just_chunked(message):
        raise BadHttpMessage("a transfer coding is not supported here")
    return messages[0]


def _is_just_chunked(message: RawRequestMessage) -> bool:
    """Whether a body is in chunks and nothing else, where it may be (RFC 9112 section 6.1)."""
    coding = message.headers.get("transfer-encoding", "")
    return message.version == HttpVersion11 and coding.lower() == "chunked"


def _check_lines(number: int) -> None:
    if number > _MAX_LINES:
        told = f"the head has {number} header lines, and may have {_MAX_LINES}"
        raise RefusedError(HeadTooLargeError(told))


def _length_of(message: RawRequestMessage) -> int:
    """The length that a head declares, 0 for none."""
    lengths = message.headers.getall("content-length", ("0",))
    if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdecimal()):
        raise BadHttpMessage("the length is in doubt")
    return int(lengths[0])


def _check_beginning(head: bytes) -> None:
    """Refuse at once what cannot become a request, instead of waiting for its end."""
    if not _FIRST <= head[0] <= _LAST or head.count(b"\n") != head.count(b"\r\n"):
        raise BadHttpMessage("this is not HTTP")
