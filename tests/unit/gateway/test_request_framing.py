"""Requests whose extent is in doubt: refused with 400, whatever came before and however cut.

Each is sent alone, after a request that the fast path served, and in two segments cut at any
place. The request that hides behind each is never understood as one.
"""

import asyncio

import pytest

from tests.fakes.client_wire import Gateway, Wire, play

POST = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\n"
PLAIN = POST + b"content-length: 2\r\n\r\n{}"
HIDDEN = POST + b"content-length: 6\r\n\r\nhidden"
LENGTH = b"content-length: %d\r\n" % len(HIDDEN)
CHUNKED = b"transfer-encoding: chunked\r\n"

AMBIGUOUS = {
    "two lengths that differ": POST + b"content-length: 2\r\n" + LENGTH + b"\r\n" + HIDDEN,
    "two lengths that agree": POST + LENGTH + LENGTH + b"\r\n" + HIDDEN,
    "a list of lengths": POST + b"content-length: 0, 96\r\n\r\n" + HIDDEN,
    "a length with a sign": POST + b"content-length: +2\r\n\r\n{}" + HIDDEN,
    "a negative length": POST + b"content-length: -1\r\n\r\n" + HIDDEN,
    "a length in hexadecimal": POST + b"content-length: 0x2\r\n\r\n{}" + HIDDEN,
    "a length with a blank in it": POST + b"content-length: 2 0\r\n\r\n{}" + HIDDEN,
    "a length beyond 64 bits": POST + b"content-length: 18446744073709551618\r\n\r\n{}" + HIDDEN,
    "a length with a vertical tab": POST + b"content-length: 2\x0b\r\n\r\n{}" + HIDDEN,
    "a length that is a superscript": POST + b"content-length: \xc2\xb2\r\n\r\n{}" + HIDDEN,
    "no length in the header": POST + b"content-length:\r\n\r\n" + HIDDEN,
    "length, then chunked": POST + LENGTH + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunked, then length": POST + CHUNKED + LENGTH + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunked twice": POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "a coding that is nearly chunked": POST + b"transfer-encoding: xchunked\r\n\r\n" + HIDDEN,
    "chunked, but not last": POST + b"transfer-encoding: chunked, gzip\r\n\r\n" + HIDDEN,
    "chunked, but not alone": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked in HTTP/1.0":
        POST.replace(b"1.1", b"1.0") + b"connection: keep-alive\r\n" + CHUNKED
        + b"\r\n0\r\n\r\n" + HIDDEN,
    "identity": POST + LENGTH + b"transfer-encoding: identity\r\n\r\n" + HIDDEN,
    "chunked behind a vertical tab": POST + b"transfer-encoding:\x0bchunked\r\n\r\n" + HIDDEN,
    "a blank before the colon": POST + b"content-length : 2\r\n\r\n{}" + HIDDEN,
    "a blank before the colon of chunked":
        POST + LENGTH + b"transfer-encoding : chunked\r\n\r\n" + HIDDEN,
    "a folded header": POST + b"x-a: b\r\n c\r\ncontent-length: 2\r\n\r\n{}" + HIDDEN,
    "a folded length": POST + b"content-length:\r\n 2\r\n\r\n{}" + HIDDEN,
    "a folded first header": POST[:34] + b" x-a: b\r\n" + POST[34:] + b"\r\n" + HIDDEN,
    "a bare LF between headers": POST + b"x-a: b\ncontent-length: 2\r\n\r\n{}" + HIDDEN,
    "a bare LF at the head's end": POST + b"content-length: 2\r\n\n{}" + HIDDEN,
    "nothing but bare LFs": PLAIN.replace(b"\r\n", b"\n") + HIDDEN,
    "a bare CR in a value": POST + b"x-a: b\rc\r\ncontent-length: 2\r\n\r\n{}" + HIDDEN,
    "a bare CR between headers": POST + b"x-a: b\rcontent-length: 2\r\n\r\n{}" + HIDDEN,
    "NUL in a value": POST + b"x-a: b\0c\r\ncontent-length: 2\r\n\r\n{}" + HIDDEN,
    "NUL in a name": POST + b"x-a\0: b\r\ncontent-length: 2\r\n\r\n{}" + HIDDEN,
    "NUL in the target": PLAIN.replace(b"/infer", b"/infer\0") + HIDDEN,
    "a header without a name": POST + b": a\r\ncontent-length: 2\r\n\r\n{}" + HIDDEN,
    "a header without a colon": POST + b"x-a\r\ncontent-length: 2\r\n\r\n{}" + HIDDEN,
    "a chunk size that is none": POST + CHUNKED + b"\r\nzz\r\n" + HIDDEN,
    "a chunk size with 0x": POST + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk size with a sign": POST + CHUNKED + b"\r\n+2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk size beyond 64 bits": POST + CHUNKED + b"\r\n10000000000000002\r\n{}" + HIDDEN,
    "a chunk longer than its size": POST + CHUNKED + b"\r\n1\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that ends in a bare LF": POST + CHUNKED + b"\r\n2\r\n{}\n0\r\n\r\n" + HIDDEN,
    "a chunk size that ends in a bare LF": POST + CHUNKED + b"\r\n2\n{}\r\n0\r\n\r\n" + HIDDEN,
    "no version": b"POST /v2/models/m/infer\r\n" + PLAIN[34:] + HIDDEN,
    "a version of the future": PLAIN.replace(b"1.1", b"2.0") + HIDDEN,
    "a version of the past": PLAIN.replace(b"1.1", b"0.9") + HIDDEN,
    "a version that never was": PLAIN.replace(b"1.1", b"1.2") + HIDDEN,
    "two hosts": POST + b"host: y\r\ncontent-length: 2\r\n\r\n{}" + HIDDEN,
    "no host": PLAIN.replace(b"host: x\r\n", b"") + HIDDEN,
    "a blank before the method": b" " + PLAIN + HIDDEN,
}  # fmt: skip


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def gateway(loop):
    async def make() -> Gateway:
        return Gateway()

    return loop.run_until_complete(make())


def bodies(wire: Wire) -> list[bytes]:
    return [request.body for request in wire.log.understood]


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_requests_are_refused_and_end_the_connection(loop, gateway, data):
    fast = play(loop, gateway, [PLAIN, PLAIN, data], fast=True)
    assert fast.log.fast == 2, "the connection was on the fast path"
    assert (fast.statuses, fast.was_closed) == ([200, 200, 400], True)
    assert bodies(fast) == [b"{}", b"{}"]
    alone = play(loop, gateway, [data], fast=True)
    assert (alone.statuses, alone.was_closed, bodies(alone)) == ([400], True, [])


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_however_they_are_cut(loop, gateway, data):
    for place in range(1, len(data)):
        segments = [PLAIN, data[:place], data[place:]]
        wire = play(loop, gateway, segments, fast=True)
        assert wire.was_closed
        assert wire.statuses[:1] == [200]
        assert b"hidden" not in bodies(wire)
        assert set(wire.statuses[1:]) <= {200, 400}
        assert wire.statuses[-1] == 400
        reference = play(loop, gateway, segments, fast=False)
        assert wire.outcome == reference.outcome


HARMLESS = {
    "an empty line before the request": (b"\r\n" + PLAIN, [b"{}"]),
    "two of them, that look like a head's end": (b"\r\n\r\n" + PLAIN, [b"{}"]),
    "a body that ends like a head": (POST + b"content-length: 4\r\n\r\n\r\n\r\n", [b"\r\n\r\n"]),
    "a body that is a request": (POST + LENGTH + b"\r\n" + HIDDEN, [HIDDEN]),
    "a chunked one": (POST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n", [b"{}"]),
    "one with a chunk extension": (POST + CHUNKED + b"\r\n2;a=b\r\n{}\r\n0\r\n\r\n", [b"{}"]),
    "one with a trailer": (POST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nx-a: b\r\n\r\n", [b"{}"]),
    "a long body": (POST + b"content-length: 70000\r\n\r\n" + b"x" * 70_000, [b"x" * 70_000]),
}


@pytest.mark.parametrize(("data", "expected"), HARMLESS.values(), ids=HARMLESS)
def test_what_is_odd_but_clear_is_understood_wherever_it_is_cut(loop, gateway, data, expected):
    places = [*range(1, min(len(data), 200)), len(data) - 1]
    for place in places:
        wire = play(loop, gateway, [PLAIN, data[:place], data[place:], PLAIN], fast=True)
        assert bodies(wire) == [b"{}", *expected, b"{}"]
        assert (wire.statuses, wire.was_closed) == ([200] * 3, False)


def test_an_empty_line_cannot_shift_what_is_owed(loop, gateway):
    """A head's end that is none: the length that is still owed would be told wrong by it."""
    size = len(HIDDEN)
    odd = b"\r\n\r\n" + POST + LENGTH + b"\r\n"
    body = HIDDEN
    for place in range(size + 1):
        segments = [PLAIN, odd + body[:place], body[place:], PLAIN, PLAIN]
        wire = play(loop, gateway, [part for part in segments if part], fast=True)
        assert bodies(wire) == [b"{}", HIDDEN, b"{}", b"{}"]


def test_a_client_that_pipelines_is_answered_in_order_and_stopped_at_some_point(loop, gateway):
    stream = [POST + b"content-length: 3\r\n\r\n%03d" % number for number in range(400)]
    wire = play(loop, gateway, [b"".join(stream)], fast=True)
    assert bodies(wire) == [b"%03d" % number for number in range(400)]
    assert wire.statuses == [200] * 400
