"""However the network cuts an answer, and whatever an upstream or caller makes up."""

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.domain.errors import InvalidRequestError, UpstreamBrokenError
from router.upstream.head import build_head
from router.upstream.response_reader import Piece, ResponseReader
from router.upstream.simple_response import read_simple
from tests.unit.upstream.answers import ANSWERS, BROKEN, read_all

MAX_HEAD_BYTES = 512


@pytest.fixture(scope="module")
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@given(answer=st.sampled_from(ANSWERS), sizes=st.lists(st.integers(1, 80), min_size=1, max_size=40))
def test_every_split_of_an_answer_reads_the_same(loop, answer, sizes):
    result = read_all(loop, answer, sizes)
    assert result == read_all(loop, answer, [len(answer.data)])
    assert (result.status, result.body) == (answer.status, answer.body)


@given(
    data=st.sampled_from(list(BROKEN.values())),
    sizes=st.lists(st.integers(1, 80), min_size=1, max_size=40),
)
def test_no_split_makes_a_bad_answer_good(loop, data, sizes):
    reader = make_reader(loop)
    with pytest.raises(UpstreamBrokenError):  # noqa: PT012 - any piece may be the bad one
        for size in [*sizes, len(data)]:
            piece, data = data[:size], data[size:]
            reader.feed(piece)


STATUS_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 500 Internal Server Error",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 999 Odd",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200 O\xc3\xa9K ",
        b"HTTP/1.1 200 O\tK",
        b"HTTP/1.0 200 OK",
        b"HTTP/2.0 200 OK",
        b"http/1.1 200 OK",
    ]
)
NAMES = st.sampled_from(
    [
        b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Content-Length ", b" X",
        b"Content-Type", b"Content-Encoding", b"Connection", b"Keep-Alive", b"TE", b"Trailer",
        b"Transfer-Encoding", b"Upgrade", b"Proxy-Connection", b"Proxy-X", b"Set-Cookie", b"Date",
        b"X-A", b"x-a", b"X_b", b"Sec-WebSocket-Key1", b"Server", b"", b"X:Y", b"\xc3\xa9",
    ]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [
            b"0", b"2", b"3", b"02", b"+2", b"2, 2", b"99999999999999999999", b"", b" 2", b"2 ",
            b"keep-alive", b"Keep-Alive", b"close", b"keep-alive, X-A", b"chunked", b"gzip",
            b"text/event-stream", b"application/json", b"caf\xc3\xa9", b"\xff", b"a\tb", b"a\x00b",
            b"a\x01", b"a\rb", b"a\nb", b"a\r\n folded", b"x" * 300,
        ]
    ),
    st.binary(max_size=6),
)  # fmt: skip
SEPARATORS = st.sampled_from([b": ", b":", b":  ", b":\t", b" : "])
LINE_ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n\r\n"])
HEADER_LINES = st.tuples(NAMES, SEPARATORS, VALUES, LINE_ENDS).map(b"".join)
GOOD_LENGTH = st.just(b"Content-Length: 2\r\n")
ASSEMBLED = st.builds(
    lambda start, lines, end, body: start + b"\r\n" + b"".join(lines) + end + body,
    STATUS_LINES,
    st.lists(st.one_of(HEADER_LINES, GOOD_LENGTH), max_size=6),
    st.sampled_from([b"\r\n"] * 8 + [b"\n", b""]),
    st.one_of(st.sampled_from([b"ok"] * 3 + [b"", b"okH", b"ok\r\n"]), st.binary(max_size=4)),
)
SIMPLE = st.builds(
    lambda lines: b"HTTP/1.1 200 OK\r\n" + b"".join(lines) + b"\r\nok",
    st.lists(
        st.sampled_from([b"Server: x\r\n", b"Connection: keep-alive\r\n", b"X-A:b\r\n"]),
        max_size=3,
    ).flatmap(lambda lines: st.permutations([*lines, b"Content-Length: 2\r\n"])),
)
EDITED = st.builds(
    lambda data, where, dropped, added: (
        data[: where % len(data)] + added + data[where % len(data) + dropped :]
    ),
    SIMPLE,
    st.integers(0, 200),
    st.integers(0, 2),
    st.one_of(st.binary(max_size=2), st.sampled_from([b"\r\n", b"\n", b" ", b":", b"0", b"2"])),
)
STREAMS = st.one_of(ASSEMBLED, EDITED)


NOT_SIMPLE = [
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSec-WebSocket-Key1: x\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nProxy-X: y\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nUpgrade: h2c\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: Text/event-stream\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokH",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + (b"X: " + b"x" * 99 + b"\r\n") * 5 + b"\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"X: y\r\n" * 128 + b"\r\nok",
]


@pytest.mark.parametrize("data", NOT_SIMPLE)
def test_the_shortcut_declines(data):
    # A roomy limit where the limit is not the reason, so that each case has one reason only.
    max_head_bytes = MAX_HEAD_BYTES if b"x" * 99 in data else 10**6
    assert read_simple(data, max_head_bytes) is None


@pytest.mark.parametrize(("limit", "accepted"), [(37, False), (38, True)])
def test_the_shortcut_keeps_the_limit_of_the_head(limit, accepted):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert (read_simple(data, limit) is not None) is accepted


def test_the_shortcut_takes_a_long_line():
    """Such as the log that AWS Lambda sends with each answer."""
    data = (
        b"HTTP/1.1 200 OK\r\nX-Amz-Log-Result: " + b"x" * 4000 + b"\r\nContent-Length: 2\r\n\r\nok"
    )
    assert read_simple(data, 10**6) is not None


@settings(max_examples=1000)
@given(data=STREAMS)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok")
@example(b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 400 + b"\r\nContent-Length: 2\r\n\r\nok")
@example(b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 400 + b"\xe9\r\nContent-Length: 2\r\n\r\nok")
@example(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
def test_the_shortcut_reads_what_the_parser_reads_or_declines(loop, data):
    simple = read_simple(data, MAX_HEAD_BYTES)
    if simple is None:
        return
    reader = make_reader(loop)
    by_parser = reader._feed_parser(reader._make_parser(), data)
    assert Piece(*simple, is_complete=True) == by_parser
    assert reader.keep_alive
    assert not simple[0].is_event_stream


@given(data=STREAMS)
def test_no_answer_raises_anything_else_or_gives_out_an_unsafe_header(loop, data):
    try:
        head = make_reader(loop).feed(data).head
    except UpstreamBrokenError:
        return
    for name, value in head.headers if head else []:
        assert not set("\r\n\0") & set(name + value)
        assert name
        assert name.isascii()


TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)


@given(
    method=st.one_of(st.just("POST"), TEXT),
    target=st.one_of(st.just("/x"), TEXT.map("/".__add__)),
    headers=st.lists(st.tuples(st.one_of(st.just("X-A"), TEXT), TEXT), max_size=4),
)
def test_a_head_is_refused_or_has_exactly_the_lines_asked_for(method, target, headers):
    try:
        head = build_head(method, target, "h:1", headers, 3)
    except InvalidRequestError:
        return
    text = head.decode("utf-8", "surrogateescape")
    given_lines = [f"{name}: {value}" for name, value in headers]
    kept = [line for line in given_lines if not line.lower().startswith("content-length:")]
    host = [] if any(line.lower().startswith("host:") for line in kept) else ["Host: h:1"]
    lines = [f"{method} {target} HTTP/1.1", *host, *kept, "Content-Length: 3"]
    assert text.split("\r\n") == [*lines, "", ""]
    assert text.count("\n") == text.count("\r") == len(lines) + 1


def make_reader(loop: asyncio.AbstractEventLoop) -> ResponseReader:
    return ResponseReader(loop, max_head_bytes=MAX_HEAD_BYTES, is_head_request=False)
