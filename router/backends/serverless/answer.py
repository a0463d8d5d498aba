"""A function's event answer -> HTTP answer, bodies byte-exact. Pure.

Answers of one function mostly differ in their body alone: what stands before and after it was read
once by the complete parser, and only the body is read from then on.
"""

import re
from base64 import b64decode
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from router.domain.errors import ModelFailedError
from router.domain.ports import BackendResponse
from router.upstream.response_head import ResponseHead

_UNSUPPORTED = {"content-length", "connection", "transfer-encoding", "keep-alive"}
_BODYLESS = {204, 304}
_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_BODY = (b'"body":"', b'"body": "')
_TEXT = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*(?=")', re.DOTALL)
"""What is in a JSON string; its end is a quote that no backslash stands before."""
_MARK = "a text that no function answers"
_MAX_BYTES = 64 * 1024
_MAX_START_BYTES = 1024
_MAX_END_BYTES = 256
_MAX_KNOWN = 16


class _Answer(msgspec.Struct):
    statusCode: int  # noqa: N815  wire names
    headers: dict[str, Any] = {}
    body: str = ""
    isBase64Encoded: bool = False  # noqa: N815
    cookies: list[str] = []


class _Known(NamedTuple):
    """What answers with the same start have: their end, and what both say."""

    end: bytes
    head: ResponseHead
    is_encoded: bool


class AnswerReader:
    """Reads one function's answers. Equal heads are mostly one object."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known | None] = {}

    def read(self, payload: bytes) -> tuple[ResponseHead, bytes]:
        """Head and body of an answer. Raises ModelFailedError if it is none."""
        # A long one is read in a thread, which must not touch what is known.
        at = _body_at(payload) if len(payload) <= _MAX_BYTES else -1
        if at < 0:
            return _parsed(payload)
        start = payload[:at]
        known = self._known.get(start)
        if known is not None and payload.endswith(known.end, at):
            body = _body(payload[at : len(payload) - len(known.end)], known)
            if body is not None:
                return known.head, body
        head, body = _parsed(payload)
        if start in self._known:
            self._known[start] = _learned(payload, at, head)
        else:  # one that never comes again is not worth more
            if len(self._known) >= _MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[start] = None
        return head, body


def decode_answer(payload: bytes) -> BackendResponse:
    """The answer of a function that is asked once. Raises ModelFailedError if it is none."""
    head, body = _parsed(payload)
    return BackendResponse(head.status, list(head.headers), body)


def _body_at(payload: bytes) -> int:
    """Where the text of the body begins, as far as a look at the start can tell; -1: nowhere."""
    for name in _BODY:
        at = payload.find(name, 0, _MAX_START_BYTES)
        if at >= 0:
            return at + len(name)
    return -1


def _body(text: bytes, known: _Known) -> bytes | None:
    """What the text between a known start and end stands for; None if it is no JSON string."""
    try:
        if known.is_encoded:
            body = b64decode(text, validate=True)
        else:
            body = msgspec.json.decode(b'"%b"' % text, type=str).encode()
    except (msgspec.DecodeError, ValueError):
        return None
    return b"" if known.head.status in _BODYLESS else body


def _learned(payload: bytes, at: int, head: ResponseHead) -> _Known | None:
    """What a start and an end say, if they say so whatever text stands between them."""
    text = _TEXT.match(payload, at)
    if text is None or len(payload) - text.end() > _MAX_END_BYTES:
        return None
    end = payload[text.end() :]
    try:
        marked = msgspec.json.decode(payload[:at] + _MARK.encode() + end, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # Where the name stood in a header or stands twice, the mark is not what is read.
    is_body = marked.body == _MARK and _head(marked) == head
    return _Known(end, head, marked.isBase64Encoded) if is_body else None


def _parsed(payload: bytes) -> tuple[ResponseHead, bytes]:
    """Head and body, read by a complete parser. Raises ModelFailedError."""
    try:
        answer = msgspec.json.decode(payload, type=_Answer)
        # Strictly: what is not base64 would otherwise be dropped, and a cut answer passed on.
        encoded = answer.isBase64Encoded
        body = b64decode(answer.body, validate=True) if encoded else answer.body.encode()
    except (msgspec.DecodeError, ValueError) as error:
        raise ModelFailedError("the function's answer is not an HTTP response") from error
    if not 200 <= answer.statusCode <= 599:
        raise ModelFailedError("the function's answer has no valid status")
    return _head(answer), b"" if answer.statusCode in _BODYLESS else body


def _head(answer: _Answer) -> ResponseHead:
    given = [*answer.headers.items(), *(("set-cookie", cookie) for cookie in answer.cookies)]
    headers = tuple(
        (name.lower(), str(value))
        for name, value in given
        if name.lower() not in _UNSUPPORTED and _is_clean(name) and _is_clean(str(value))
    )
    phrase = _PHRASES.get(answer.statusCode, "")
    return ResponseHead(answer.statusCode, phrase, headers, None, is_event_stream=False)


def _is_clean(text: str) -> bool:
    """No control characters: a function must not be able to split the response."""
    return text.isprintable() and text.isascii()
