"""How many tokens an answer says it took: read from its `usage`, which stands at its end.

Only answers of OpenAI's and Anthropic's shapes are looked at. A bounded part is searched, not
parsed: what is compressed, or tells nothing there, has no tokens. A stream of OpenAI's tells them
if its client asks for it (`stream_options.include_usage`).
"""

import re
from collections.abc import AsyncIterator

from router.domain.ports import BackendResponse
from router.domain.request import AnswerForm, Protocol
from router.domain.tokens import Tokens

END_BYTES = 4096
"""Of the end of an answer; what follows `usage` there is short."""
_BEGIN_BYTES = 1024
"""Of the beginning: Anthropic's streams tell there what went in."""
TELLING_BELOW = 300
"""Statuses of answers that count tokens."""
# In a text of the model each quote has a backslash before it: what ends in a bare one is a name.
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_INPUT = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,12})')
_OUTPUT = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,12})')


def tells_tokens(protocol: Protocol) -> bool:
    """Whether answers of the protocol count tokens."""
    return protocol.answers is AnswerForm.TEXT


def tokens_of(body: bytes) -> Tokens | None:
    """The tokens of an answer that is here; None if it tells none."""
    return _told(body[:_BEGIN_BYTES], body[-END_BYTES:])


def _told(begin: bytes, end: bytes) -> Tokens | None:
    usages = list(_USAGE.finditer(end))
    if not usages:
        return None
    usage = end[usages[-1].end() - 1 :]
    took, gave = _INPUT.search(usage), _OUTPUT.search(usage)
    if took is None and (first := _USAGE.search(begin)) is not None:
        took = _INPUT.search(begin, first.end() - 1)
    if took is None and gave is None:
        return None
    return Tokens(int(took[1]) if took else 0, int(gave[1]) if gave else 0)


class Passing:
    """The beginning and the end of an answer that is passed on as it comes."""

    __slots__ = ("_begin", "_end")

    def __init__(self) -> None:
        self._begin = self._end = b""

    def add(self, part: bytes) -> None:
        """Take note of a part that was passed on."""
        if len(self._begin) < _BEGIN_BYTES:
            self._begin += part[: _BEGIN_BYTES - len(self._begin)]
        self._end = (self._end + part[-END_BYTES:])[-END_BYTES:]

    @property
    def tokens(self) -> Tokens | None:
        """What it has told so far."""
        return _told(self._begin, self._end)


class Watched:
    """An answer, whole or still to come, whose tokens are wanted once it has passed."""

    def __init__(self, response: BackendResponse) -> None:
        self._passing = Passing()
        self._passing.add(response.body)
        if response.rest is not None:
            response.rest = _Rest(response.rest, self._passing)

    @staticmethod
    def of(protocol: Protocol, response: BackendResponse) -> "Watched | None":
        """None for an answer that tells no tokens, or has failed."""
        if tells_tokens(protocol) and response.status < TELLING_BELOW:
            return Watched(response)
        return None

    @property
    def tokens(self) -> Tokens | None:
        """What it has told so far."""
        return self._passing.tokens


class _Rest:
    """The rest of an answer, told to `passing` as it is passed on."""

    def __init__(self, rest: AsyncIterator[bytes], passing: Passing) -> None:
        self._rest = rest
        self._passing = passing

    def __aiter__(self) -> "_Rest":
        return self

    async def __anext__(self) -> bytes:
        part = await anext(self._rest)
        self._passing.add(part)
        return part

    async def aclose(self) -> None:
        """Drop what has not been read."""
        if hasattr(self._rest, "aclose"):
            await self._rest.aclose()
