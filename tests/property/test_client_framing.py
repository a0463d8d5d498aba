"""However a client's bytes are cut, and whatever they are: both paths understand the same.

The reference is aiohttp's ordinary path. The fast path's memory of heads lives as long as the
module, so what one example taught it is used in the next.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from tests.fakes.client_wire import Gateway, cut, play

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

INFER = b"/v2/models/m/infer"
LONG = 66_000
"""More than the fast path takes in one piece."""


@pytest.fixture(scope="module")
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def gateway(loop):
    async def make() -> Gateway:
        return Gateway()

    return loop.run_until_complete(make())


START = b"POST " + INFER + b" HTTP/1.1"


def request(body: bytes, *lines: bytes, start: bytes = START) -> bytes:
    return b"\r\n".join([start, b"host: x", *lines, b"", b""]) + body


def plain(body: bytes, *lines: bytes) -> bytes:
    return request(body, b"content-length: %d" % len(body), *lines)


SMUGGLED = plain(b"smuggled")
BODIES = st.one_of(
    st.sampled_from(
        [
            b"{}",
            b"",
            b"\r\n\r\n",
            b"a\r\n\r\n" + SMUGGLED,
            SMUGGLED,
            b"0\r\n\r\n",
            b"2\r\n{}\r\n0\r\n\r\n",
        ]
    ),
    st.binary(max_size=40),
    st.sampled_from([b"x" * LONG, b"\r\n\r\n" * (LONG // 4), SMUGGLED * (LONG // 80)]),
)
GOOD_LINES = st.sampled_from(
    [b"x-a: 1", b"x-request-id: r", b"content-type: application/json", b"Connection: keep-alive"]
)


@st.composite
def good_requests(draw: st.DrawFn) -> bytes:
    """What clients send that mean well."""
    return plain(draw(BODIES), *draw(st.lists(GOOD_LINES, max_size=2, unique=True)))


ODD_LINES = st.sampled_from(
    [
        b"content-length: 2", b"content-length: 0", b"Content-Length: 8",
        b"content-length: 66000", b"content-length : 2", b"content-length:2",
        b"content-length: 2 ", b"content-length: 02", b"content-length: +2",
        b"content-length: -1", b"content-length: 2, 2", b"content-length: 0x2",
        b"content-length: 2\x0b", b"content-length:\t2", b"content-length: \xb2",
        b"content-length: 99999999999999999999", b"content-length:", b" content-length: 2",
        b"content_length: 2", b"content-length\x00: 2", b"x: y\r\ncontent-length: 2",
        b"transfer-encoding: chunked", b"Transfer-Encoding: chunked",
        b"transfer-encoding: Chunked", b"transfer-encoding : chunked",
        b"transfer-encoding: xchunked", b"transfer-encoding: identity",
        b"transfer-encoding: chunked, identity", b"transfer-encoding: gzip, chunked",
        b"transfer-encoding:\x0bchunked", b"transfer-encoding: chunked\r\n folded",
        b"x: a\r\n\tfolded", b"transfer-encoding", b"x: a\nb: c", b"x: a\rb", b"x: a\x00b",
        b"\x00: a", b": a", b"x", b"connection: close", b"connection: keep-alive, x-a",
        b"connection: upgrade", b"upgrade: websocket", b"upgrade: tcp", b"expect: 100-continue",
        b"host: y", b"host:", b"x-router-deadline-ms: 9000", b"content-encoding: gzip",
        b"content-type: text/html", b"sec-websocket-key1: x", b"te: trailers", b"trailer: x",
        b"x-b: caf\xc3\xa9", b"x-b: \xff",
    ]
)  # fmt: skip
STARTS = st.sampled_from(
    [
        b"POST " + INFER + b" HTTP/1.1", b"POST " + INFER + b" HTTP/1.1",
        b"POST " + INFER + b"?a=b HTTP/1.1", b"POST " + INFER + b" HTTP/1.0",
        b"POST " + INFER + b" HTTP/1.2", b"POST " + INFER + b" HTTP/2.0", b"POST " + INFER,
        b"POST  " + INFER + b" HTTP/1.1", b"POST " + INFER + b"  HTTP/1.1",
        b"post " + INFER + b" HTTP/1.1", b"GET " + INFER + b" HTTP/1.1",
        b"PUT " + INFER + b" HTTP/1.1", b"GET /v2/health/live HTTP/1.1",
        b"POST http://x" + INFER + b" HTTP/1.1", b"POST * HTTP/1.1", b"CONNECT x:1 HTTP/1.1",
        b"POST /v2/models/%6d/infer HTTP/1.1", b"POST /v1/chat/completions HTTP/1.1",
        b"POST " + INFER + b"#f HTTP/1.1", b"\tPOST " + INFER + b" HTTP/1.1",
        b"POST\t" + INFER + b" HTTP/1.1", b"POST " + INFER + b" HTTP/1.1\r\n host: y",
        b"PRI * HTTP/2.0", b"POST " + INFER + b"\x00 HTTP/1.1",
    ]
)  # fmt: skip
BEFORE = st.sampled_from([b"", b"", b"", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\r\n\r\n\r\n"])
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"])


@st.composite
def odd_requests(draw: st.DrawFn) -> bytes:
    """What they may send by mistake, or on purpose."""
    lines = [draw(STARTS), b"host: x"][: draw(st.sampled_from([2, 2, 2, 1]))]
    lines += draw(st.lists(st.one_of(ODD_LINES, GOOD_LINES), max_size=4))
    body = draw(BODIES)
    if draw(st.booleans()):
        lines.append(b"content-length: %d" % len(body))
    end = draw(ENDS)
    last = draw(ENDS)
    return draw(BEFORE) + end.join(lines) + last + last + body


@st.composite
def nearly_good_requests(draw: st.DrawFn) -> bytes:
    """All is well but for one thing, or not even that."""
    body = draw(BODIES)
    lines = [b"content-length: %d" % len(body), draw(ODD_LINES)]
    return request(
        body, *draw(st.permutations(lines)), start=draw(st.one_of(st.just(START), STARTS))
    )


@st.composite
def beginnings(draw: st.DrawFn) -> bytes:
    """Of a good one; what comes next belongs to it."""
    data = draw(good_requests())
    return data[: draw(st.integers(1, len(data)))]


@st.composite
def spoilt_requests(draw: st.DrawFn) -> bytes:
    """A good one with a few bytes changed, lost or put in."""
    data = bytearray(draw(good_requests()))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, min(len(data), 150)))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


SIZES: st.SearchStrategy[list[int]] = st.one_of(
    st.just([]),
    st.lists(
        st.one_of(st.integers(1, 200), st.sampled_from([1, 2, 3, 60_000, 65_536, 131_000])),
        max_size=8,
    ),
)
GOOD = st.tuples(good_requests(), SIZES)
ODD = st.one_of(nearly_good_requests(), odd_requests(), spoilt_requests(), beginnings())
ANY = st.tuples(st.one_of(good_requests(), ODD), SIZES)
QUICK = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def same(loop, gateway, segments, is_late) -> None:
    """Both paths see the same in these segments, and the fast path holds nothing afterwards."""
    fast = play(loop, gateway, segments, fast=True, is_late=is_late)
    ordinary = play(loop, gateway, segments, fast=False, is_late=is_late)
    assert fast.outcome == ordinary.outcome
    assert (gateway.fast.in_flight, gateway.pool.in_flight, gateway.bodies.held_bytes) == (0, 0, 0)
    event(f"{fast.log.fast} of {len(fast.log.understood)} on the fast path")


@example(before=[], odd=(plain(b"x" * LONG, b"x-request-id:! r"), []), after=[], is_late=False)
@settings(QUICK, max_examples=500)
@given(
    before=st.lists(GOOD, max_size=2), odd=st.tuples(ODD, SIZES),
    after=st.lists(GOOD, max_size=2), is_late=st.booleans(),
)  # fmt: skip
def test_anything_between_good_requests(loop, gateway, before, odd, after, is_late):
    """Each in segments of its own, as from a client that waits for its answers."""
    stream = [*before, odd, *after]
    same(loop, gateway, [part for data, sizes in stream for part in cut(data, sizes)], is_late)


@settings(QUICK, max_examples=300)
@given(stream=st.lists(ANY, min_size=1, max_size=4), sizes=SIZES, is_late=st.booleans())
def test_any_stream_in_any_segments(loop, gateway, stream, sizes, is_late):
    """As from one that does not wait."""
    same(loop, gateway, cut(b"".join(data for data, _ in stream), sizes), is_late)


@settings(QUICK, max_examples=300)
@given(stream=st.lists(GOOD, min_size=2, max_size=5), is_late=st.booleans())
def test_the_fast_path_takes_what_is_plain(loop, gateway, stream, is_late):
    """Whatever their bodies look like, and however they come."""
    segments = [part for data, sizes in stream for part in cut(data, sizes)]
    same(loop, gateway, segments, is_late)


def test_the_reference_and_the_fast_path_are_really_two(loop, gateway):
    requests = [plain(b"{}", b"x-two: 1"), plain(b"x" * LONG), plain(b"y" * LONG), plain(b"{}")]
    assert play(loop, gateway, requests, fast=True).log.fast == len(requests)
    assert play(loop, gateway, requests, fast=False).log.fast == 0
