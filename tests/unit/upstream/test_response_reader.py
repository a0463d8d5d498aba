"""Framings, and answers that must be refused; the property tests split these same streams."""

import asyncio

import pytest

from router.domain.errors import ResponseLostError, UpstreamBrokenError
from router.upstream.response_reader import ResponseReader
from tests.unit.upstream.answers import ANSWERS, BROKEN, read_all

MAX_HEAD_BYTES = 4096


@pytest.fixture(scope="module")
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def make_reader(
    loop: asyncio.AbstractEventLoop, *, is_head_request: bool = False
) -> ResponseReader:
    return ResponseReader(loop, max_head_bytes=MAX_HEAD_BYTES, is_head_request=is_head_request)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
@pytest.mark.parametrize("size", [1, 7, 10**6], ids=["bytes", "sevens", "whole"])
def test_reads_every_framing(loop, answer, size):
    result = read_all(loop, answer, [size])
    assert (result.status, result.body, result.headers) == (
        answer.status,
        answer.body,
        answer.headers,
    )
    assert result.keep_alive is answer.keep_alive


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("size", [1, 7, 10**6], ids=["bytes", "sevens", "whole"])
def test_refuses_what_is_ambiguous_or_not_http(loop, data, size):
    reader = make_reader(loop)
    with pytest.raises(UpstreamBrokenError):  # noqa: PT012 - any piece may be the bad one
        for start in range(0, len(data), size):
            reader.feed(data[start : start + size])


@pytest.mark.parametrize(
    "extra", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"x", b"\x00"]
)
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\n\r\nok",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"Content-Length: 0\r\n\r\n",
    ],
    ids=["length", "chunked", "empty"],
)
def test_refuses_bytes_after_the_answer(loop, framing, extra):
    with pytest.raises(UpstreamBrokenError):
        make_reader(loop).feed(b"HTTP/1.1 200 OK\r\n" + framing + extra)


@pytest.mark.parametrize("size", [1, 100, 10**6])
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])
@pytest.mark.parametrize(("excess", "fits"), [(0, True), (1, False)])
def test_the_limit_of_the_head_is_exact(loop, size, interim, excess, fits):
    empty = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\nX: \r\n\r\n"
    filler = b"x" * (MAX_HEAD_BYTES + excess - len(empty) - len(interim))
    data = interim + empty.replace(b"X: ", b"X: " + filler) + b"body"
    reader = make_reader(loop)
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    if fits:
        assert any(reader.feed(piece).head for piece in pieces)
        return
    with pytest.raises(UpstreamBrokenError, match="longer than 4096 bytes"):  # noqa: PT012
        for piece in pieces:
            reader.feed(piece)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nConte",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
    ],
)
def test_a_close_before_the_end_loses_the_answer(loop, data):
    reader = make_reader(loop)
    assert not (data and reader.feed(data).is_complete)
    with pytest.raises(ResponseLostError):
        reader.feed_eof()


def test_the_answer_to_head_has_no_body_whatever_it_says(loop):
    reader = make_reader(loop, is_head_request=True)
    piece = reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n")
    assert (piece.is_complete, piece.body, reader.keep_alive) == (True, b"", True)
    assert piece.head is not None
    assert piece.head.headers == (("Content-Length", "5000000"),)
    assert piece.head.content_length == 0


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"text/event-stream", True),
        (b"Text/Event-Stream; charset=utf-8", True),
        (b"application/json", False),
    ],
)
def test_knows_an_event_stream(loop, content_type, expected):
    for framing in (b"Content-Length: 2\r\n\r\nok", b"Transfer-Encoding: chunked\r\n\r\n"):
        data = b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type + b"\r\n" + framing
        head = make_reader(loop).feed(data).head
        assert head is not None
        assert head.is_event_stream is expected


@pytest.mark.parametrize(("count", "fits"), [(128, True), (129, False)])
def test_the_number_of_headers_is_bounded(loop, count, fits):
    headers = b"".join(b"X-%d: y\r\n" % index for index in range(count - 1))
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + headers + b"\r\n"
    if fits:
        assert make_reader(loop).feed(data).is_complete
    else:
        with pytest.raises(UpstreamBrokenError):
            make_reader(loop).feed(data)
