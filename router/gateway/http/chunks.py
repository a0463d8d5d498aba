"""Where a chunked body ends, and how many bytes beside its data it may bring.

Counts only: whether chunks are well formed is the parser's to say, which reads the same bytes.
"""

import re

from aiohttp.http_exceptions import BadHttpMessage

from router.domain.errors import HeadTooLargeError

_SIZE = re.compile(rb"([0-9A-Fa-f]+)[;\r]")
_FREE = 18
"""A size of 64 bits and its line's end; what a line has more is an extension."""


class ChunkedExtent:
    """How much of what comes belongs to one chunked body.

    All its extensions and trailers together may have `most` bytes, as a head may: nobody needs
    them, and they would come without end.
    """

    __slots__ = ("_is_in_trailers", "_left", "_line", "_owed", "is_over")

    def __init__(self, most: int) -> None:
        self._left = most
        self._line = b""
        self._owed = 0
        self._is_in_trailers = False
        self.is_over = False

    def take(self, data: bytes) -> int:
        """How many of these bytes are the body's. Raises HeadTooLargeError, BadHttpMessage."""
        at, end = 0, len(data)
        while at < end and not self.is_over:
            if self._owed:
                step = min(self._owed, end - at)
                self._owed -= step
                at += step
                continue
            line_end = data.find(b"\n", at) + 1
            line = data[at : line_end or end]
            at += len(line)
            line = self._line = self._line + line if self._line else line
            if len(line) > _FREE or self._is_in_trailers:
                self._check(len(line))
            if line_end:
                self._line = b""
                self._read(line)
        return at

    def _cost(self, size: int) -> int:
        return size if self._is_in_trailers else max(0, size - _FREE)

    def _check(self, size: int) -> None:
        if self._cost(size) > self._left:
            raise HeadTooLargeError("a body's chunk extensions and trailers are too large")

    def _read(self, line: bytes) -> None:
        self._left -= self._cost(len(line))
        if self._is_in_trailers:
            self.is_over = line == b"\r\n"
            return
        size = _SIZE.match(line)
        if size is None:
            raise BadHttpMessage("a chunk has no size")
        length = int(size[1], 16)
        self._is_in_trailers = not length
        self._owed = length + 2 if length else 0  # with its line's end
