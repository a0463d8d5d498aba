"""What `router.upstream.response_reader` relies on in aiohttp, and no documentation promises.

If one of these fails after an upgrade of aiohttp, read the reader before changing the test.
"""

import asyncio

import pytest
from aiohttp import http_parser
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class FlowControl(BaseProtocol):
    pauses = 0

    def pause_reading(self):
        self.pauses += 1

    def resume_reading(self, resume_parser=True):
        pass


@pytest.fixture
def parser():
    loop = asyncio.new_event_loop()
    yield http_parser.HttpResponseParser(
        FlowControl(loop), loop, 2**30, read_until_eof=True, auto_decompress=False
    )
    loop.close()


def test_the_parser_is_the_one_in_c():
    assert http_parser.HttpResponseParser.__module__ == "aiohttp._http_parser"


def test_a_message_and_its_body_come_out_of_one_feed(parser):
    [(message, payload)], upgraded, tail = parser.feed_data(ANSWER)
    assert (message.code, message.reason, message.version) == (200, "OK", (1, 1))
    assert message.raw_headers == ((b"Content-Length", b"2"),)
    assert not message.chunked
    assert not message.should_close
    assert (payload.is_eof(), payload.read_nowait()) == (True, b"ok")
    assert (upgraded, tail) == (False, b"")


def test_a_body_comes_out_as_it_goes_in(parser):
    [(_, payload)], _, _ = parser.feed_data(ANSWER[:-1])
    assert (payload.is_eof(), payload.read_nowait()) == (False, b"o")
    parser.feed_data(b"k")
    assert (payload.is_eof(), payload.read_nowait()) == (True, b"k")


@pytest.mark.parametrize(
    ("extra", "has_begun"), [(b"", False), (b"\r\n", False), (b"H", True), (b"HTTP/1.1 2", True)]
)
def test_eof_after_a_message_tells_whether_another_has_begun(parser, extra, has_begun):
    parser.feed_data(ANSWER + extra)
    assert (parser.feed_eof() is not None) is has_begun


def test_garbage_after_a_message_is_an_error(parser):
    with pytest.raises(HttpProcessingError):
        parser.feed_data(ANSWER + b"x")


def test_a_large_body_does_not_pause_the_parser(parser):
    size = 4 * 1024 * 1024
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    [(_, payload)], _, _ = parser.feed_data(head + b"x" * size)
    assert parser.protocol.pauses == 0
    assert len(payload.read_nowait()) == size
