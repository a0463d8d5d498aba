"""Byte streams of answers, good and bad, shared by table and property tests."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from router.upstream.response_head import ResponseHead
from router.upstream.response_reader import ResponseReader


@dataclass(frozen=True)
class Answer:
    """Bytes of one answer and what they mean; `until_close` ends it with the connection."""

    name: str
    data: bytes
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]
    keep_alive: bool = True
    until_close: bool = False


@dataclass
class Result:
    """What a reader made of an answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    keep_alive: bool


def read_all(loop: asyncio.AbstractEventLoop, answer: Answer, sizes: Sequence[int]) -> Result:
    """Feed an answer in segments of these sizes (the last one repeating) to a new reader."""
    reader = ResponseReader(loop, max_head_bytes=65536, is_head_request=False)
    head: ResponseHead | None = None
    body, rest, index, is_complete = b"", answer.data, 0, False
    while rest:
        assert not is_complete, "complete before its last byte"
        size = sizes[min(index, len(sizes) - 1)]
        piece = reader.feed(rest[:size])
        if piece.head is not None:
            assert head is None, "two heads"
            head = piece.head
        body += piece.body
        is_complete = piece.is_complete
        rest, index = rest[size:], index + 1
    if answer.until_close:
        reader.feed_eof()
    else:
        assert is_complete
    assert head is not None
    return Result(head.status, head.headers, body, reader.keep_alive)


_JSON = ("Content-Type", "application/json")


ANSWERS = [
    Answer(
        "content length",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        (_JSON, ("Content-Length", "5")),
    ),
    Answer(
        "empty body",
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
        500,
        b"",
        (("content-length", "0"),),
    ),
    Answer(
        "chunked with extensions and trailers",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b'3;a="b"\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n',
        200,
        b"abc0123456789",
        (),
    ),
    Answer(
        "empty chunked",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        200,
        b"",
        (),
    ),
    Answer(
        "until close",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\nhello",
        200,
        b"hello",
        (_JSON,),
        keep_alive=False,
        until_close=True,
    ),
    Answer(
        "until close, without a body",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        200,
        b"",
        (),
        keep_alive=False,
        until_close=True,
    ),
    Answer(
        "connection close with a length",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        (("Content-Length", "2"),),
        keep_alive=False,
    ),
    Answer(
        "http/1.0 closes",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        (("Content-Length", "2"),),
        keep_alive=False,
    ),
    Answer(
        "http/1.0 with keep-alive",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        (("Content-Length", "2"),),
    ),
    Answer(
        "interim answers are skipped",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
        201,
        b"ok",
        (("Content-Length", "2"),),
    ),
    Answer("no content", b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 204, b"", (("X", "y"),)),
    Answer(
        "no content with a length",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n",
        204,
        b"",
        (),
    ),
    Answer(
        "not modified keeps its length",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        304,
        b"",
        (("Content-Length", "7"),),
    ),
    Answer(
        "hop-by-hop headers are removed",
        b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive, X-Private\r\nKeep-Alive: timeout=5\r\n"
        b"X-Private: 1\r\nX-Public: 2\r\nProxy-Authenticate: x\r\nProxy-Foo: y\r\nTE: trailers\r\n"
        b"Upgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        (("X-Public", "2"), ("Content-Length", "2")),
    ),
    Answer(
        "repeated and odd headers stay as they are",
        b"HTTP/1.1 200\r\nSet-Cookie: a\r\nset-cookie: b\r\nEmpty:\r\nSpaced: \t x y \t\r\n"
        b"Utf: caf\xc3\xa9\r\nLatin: \xe9\r\nContent-Length:2\r\n\r\nok",
        200,
        b"ok",
        (
            ("Set-Cookie", "a"),
            ("set-cookie", "b"),
            ("Empty", ""),
            ("Spaced", "x y"),
            ("Utf", "caf\u00e9"),
            ("Latin", "\udce9"),
            ("Content-Length", "2"),
        ),
    ),
]

_OK = b"HTTP/1.1 200 OK\r\n"

BROKEN = {
    "not http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "tls alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "http/2 preface": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "http/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "http/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "nul in the reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "two lengths": _OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "the same length twice": _OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "a list of lengths": _OK + b"Content-Length: 2, 2\r\n\r\nab",
    "length with a sign": _OK + b"Content-Length: +2\r\n\r\nab",
    "length in hex": _OK + b"Content-Length: 0x2\r\n\r\nab",
    "length over 64 bits": _OK + b"Content-Length: 99999999999999999999\r\n\r\nab",
    "length then chunked": _OK
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked then length": _OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "gzip as transfer encoding": _OK + b"Transfer-Encoding: gzip\r\n\r\nx",
    "gzip, chunked": _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": _OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "chunked in http/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size not hex": _OK + b"Transfer-Encoding: chunked\r\n\r\nxy\r\n",
    "negative chunk size": _OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    "chunk size over 64 bits": _OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
    "chunk longer than its size": _OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
    "blank before the colon": _OK + b"Content-Length : 2\r\n\r\nab",
    "header without a colon": _OK + b"nonsense\r\n\r\n",
    "control character in a value": _OK + b"X: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "nul in a value": _OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "carriage return in a value": _OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
    "folded length": _OK + b"Content-Length: 2\r\n 3\r\n\r\nab",
}
