"""Where requests begin and end on a connection, and how many bytes that are no body may come.

aiohttp's hardened parser decides what a request is; it gets whole heads only, so that an unfinished
one costs the bytes it has and no more. This module refuses what the parser lets pass (versions
other than 1.0 and 1.1, codings beside chunked) and what is too large, while it comes.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import BadHttpMessage, BadHttpMethod, HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from router.domain.errors import HeadTooLargeError, RouterError, ShedError, UnsupportedError
from router.gateway.chunks import ChunkedExtent

_VERSIONS = (HttpVersion10, HttpVersion11)
_END = b"\r\n\r\n"
_MAX_LINES = 128
"""Header lines of a head; the parser takes no more."""
_PLAIN_LINE = re.compile(rb"[A-Za-z]+ [!-~]+ HTTP/1\.[01]\r\n")
_FIRST, _LAST = b"AZ"

Message = tuple[RawRequestMessage, StreamReader]
Offer = Callable[[RawRequestMessage, bytes, int, bytes], bool]
_NOTHING: tuple[Sequence[Message], bool, bytes] = ((), False, b"")


class RefusedError(BadHttpMessage):
    """What came is refused for a reason of ours, `error`; to aiohttp it is bad HTTP."""

    def __init__(self, error: RouterError) -> None:
        super().__init__(str(error))
        self.error = error


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

    `offer` sees each head that stands first (message, its bytes, the body's length, what has come
    after it) and says whether the fast path takes it all. `has_room` says whether so many bytes may
    be held. `held` are the bytes that wait: of an unfinished head, or of requests whose turn has
    not come. `refusal` is what comes after the requests that were read last.
    """

    __slots__ = (
        "_extent", "_has_room", "_is_over", "_max_head", "_max_queue", "_offer", "_on_refused",
        "_parser", "_payload", "_queued", "held", "refusal",
    )  # fmt: skip

    def __init__(
        self,
        parser: Any,  # noqa: ANN401  aiohttp's
        offer: Offer,
        on_refused: Callable[[HttpProcessingError], bool],
        has_room: Callable[[int], bool],
        *,
        max_head: int,
        max_queue: int,
    ) -> None:
        self._parser = parser
        self._offer = offer
        self._on_refused = on_refused
        self._has_room = has_room
        self._max_head = max_head
        self._max_queue = max_queue
        self._queued = 0
        self._extent: _PlainExtent | ChunkedExtent | None = None
        self._payload: StreamReader | None = None
        self._is_over = False
        self.held = b""
        self.refusal: HttpProcessingError | None = None

    @property
    def is_between_requests(self) -> bool:
        """Whether the next byte begins a head."""
        return self._payload is None and not self.held and not self._is_over

    def message_consumed(self) -> None:
        """A message that was waiting is taken up."""
        self._queued -= 1
        self._parser.message_consumed()

    def feed_data(self, data: bytes) -> tuple[Sequence[Message], bool, bytes]:
        """Read on, like the parser's method; without what the fast path has taken.

        What is refused ends the reading: its body breaks, or `on_refused` answers it, or
        HttpProcessingError is raised, after the requests before it.
        """
        if self.refusal is not None:
            error, self.refusal = self.refusal, None
            raise error
        if self._is_over:
            return _NOTHING
        messages: list[Message] = []
        try:
            return self._read(data, messages)
        except HttpProcessingError as error:
            self.stop()
            error.__traceback__ = None  # its frames would keep what came as long as it
            if self._payload is not None:  # the answer to its request says so
                broken = web.RequestPayloadError("the body's framing is broken")
                broken.__cause__ = error
                self._payload.set_exception(broken)
            elif messages:
                self.refusal = error
            elif not self._on_refused(error):
                raise
            return messages, False, b""

    def _read(self, data: bytes, messages: list[Message]) -> tuple[Sequence[Message], bool, bytes]:
        rest = self.held + data if self.held else data
        self.held = b""
        while True:
            if self._payload is not None:
                rest, is_upgraded = self._read_body(rest)
                if is_upgraded:
                    return messages, True, rest
                if self._payload is not None:
                    break
            size = self._head_size(rest) if self._queued < self._max_queue else 0
            if not size:
                rest = rest.lstrip(b"\r\n")
                break
            head, rest = rest[:size].lstrip(b"\r\n"), rest[size:]
            found, is_upgraded = self._read_head(head)
            message = _only(found)
            if is_upgraded:
                messages.append(message)
                return messages, True, rest
            length = _length_of(message[0])
            if not messages and not self._queued and self._offer(message[0], head, length, rest):
                return _NOTHING
            messages.append(message)
            self._queued += 1
            self._expect_body(message, length)
        self._hold(rest)
        return messages, False, b""

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

    def _read_head(self, head: bytes) -> tuple[Sequence[Message], bool]:
        try:
            found, is_upgraded, _ = self._parser.feed_data(head)
        except BadHttpMethod:
            if _PLAIN_LINE.match(head) is None:
                raise
            told = "the method of the request is not known here: send GET, HEAD or POST"
            raise RefusedError(UnsupportedError(told)) from None
        return found, is_upgraded

    def _expect_body(self, message: Message, length: int) -> None:
        head, payload = message
        if head.chunked:
            self._extent = ChunkedExtent(self._max_head)
        elif length:
            self._extent = _PlainExtent(length)
        else:
            return
        self._payload = payload

    def _read_body(self, rest: bytes) -> tuple[bytes, bool]:
        """Give the parser what belongs to the body; returns the rest, and whether all changes."""
        assert self._extent is not None  # noqa: S101
        assert self._payload is not None  # noqa: S101
        try:
            size = self._extent.take(rest)
        except HeadTooLargeError as error:
            raise RefusedError(error) from None
        # Also without new bytes: it goes on with what it had kept while its reader was slow.
        _, is_upgraded, tail = self._parser.feed_data(rest[:size])
        if self._payload.is_eof():
            if not self._extent.is_over:
                raise BadHttpMessage("where the body ends is in doubt")
            self._payload = self._extent = None
        return tail + rest[size:], is_upgraded

    def _hold(self, rest: bytes) -> None:
        if rest and not self._has_room(len(rest)):
            raise RefusedError(ShedError("the gateway holds as many bytes as it may; try again"))
        self.held = rest

    def stop(self) -> None:
        """Read nothing more, whatever comes."""
        self._is_over = True
        self.held = b""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the parser has
        return getattr(self._parser, name)


def _only(messages: Sequence[Message]) -> Message:
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
