"""What `gateway.http.connection` and `framing` rely on in aiohttp, and no documentation promises.

If one of these fails after an upgrade of aiohttp, read those modules before changing the test.
"""

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import http_parser, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from aiohttp.web_protocol import RequestHandler

from router.gateway.http import connection
from router.gateway.http.connection import ClientConnection
from tests.fakes.client_wire import MemoryTransport

BUFFER = 1024
GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: x\r\ncontent-length: 4\r\n\r\n"

USED = {
    "_keepalive_handle", "_loop", "_parser", "_pause_transport_reading", "_paused",
    "_read_bufsize", "_reading_paused", "_resume_transport_reading", "force_close",
    "max_field_size", "max_headers", "max_line_size", "transport",
}  # fmt: skip
OVERRIDDEN = {
    "__init__": "(self, manager, *, loop, keepalive_timeout, tcp_keepalive, logger,"
    " access_log_class, access_log, access_log_format, debug, max_line_size, max_headers,"
    " max_field_size, lingering_time, read_bufsize, auto_decompress, timeout_ceil_threshold)",
    "close": "(self)",
    "connection_lost": "(self, exc)",
    "connection_made": "(self, transport)",
    "data_received": "(self, data)",
    "pause_writing": "(self)",
    "resume_writing": "(self)",
    "shutdown": "(self, timeout)",
    "start": "(self)",
}


def class_body() -> ast.ClassDef:
    tree = ast.parse(Path(connection.__file__).read_text())
    (found,) = (
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == ClientConnection.__name__
    )
    return found


def parameters(function: Callable[..., Any]) -> str:
    """The names of a function's parameters, with the mark before those that have to be named."""
    found, is_named = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not is_named:
            found.append("*")
            is_named = True
        found.append(parameter.name)
    return f"({', '.join(found)})"


class TestNames:
    def test_this_file_knows_all_that_is_used(self):
        own = {name for name in vars(ClientConnection) if not hasattr(RequestHandler, name)}
        reached = {
            node.attr
            for node in ast.walk(class_body())
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"self", "super()"}
        }
        assert reached - own - set(OVERRIDDEN) == USED

    def test_it_knows_all_that_is_overridden(self):
        own = {node.name for node in class_body().body if hasattr(node, "name")}
        assert {name for name in own if hasattr(RequestHandler, name)} == set(OVERRIDDEN)

    @pytest.mark.parametrize("name", sorted(USED))
    async def test_what_is_used_exists(self, name):
        assert hasattr(handler_for(web.Server(never)), name)

    @pytest.mark.parametrize("name", OVERRIDDEN)
    def test_what_is_overridden_is_called_as_before(self, name):
        assert parameters(getattr(RequestHandler, name)) == OVERRIDDEN[name]

    def test_no_slot_of_ours_hides_one_of_aiohttps(self):
        slots = {name for base in RequestHandler.__mro__ for name in getattr(base, "__slots__", ())}
        assert not slots & set(ClientConnection.__slots__)

    async def test_the_protocol_has_no_dict(self):
        """Or ten thousand idle connections would need more memory."""
        assert not hasattr(handler_for(web.Server(never)), "__dict__")

    def test_a_date_is_text_in_the_format_of_http(self):
        assert rfc822_formatted_time().endswith(" GMT")


async def never(_: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError


def handler_for(server: web.Server, kind: type[RequestHandler] = RequestHandler) -> Any:
    """aiohttp's own class, with the options that the gateway uses."""
    options: dict[str, Any] = {"access_log": None}  # which the types do not allow
    return kind(
        server,
        loop=asyncio.get_running_loop(),
        keepalive_timeout=0.0,
        read_bufsize=BUFFER,
        auto_decompress=False,
        **options,
    )


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Silent(RequestHandler):
    """As the gateway's: aiohttp's task ends at once, and what comes is fed to the parser."""

    async def start(self) -> None:
        """Nothing."""

    def data_received(self, data: bytes) -> None:
        parser: Any = self._parser
        self.seen = [*getattr(self, "seen", []), *parser.feed_data(data)[0]]


class Served:
    """A connection of such a class, and its server."""

    def __init__(self) -> None:
        self.server = web.Server(never)
        self.handler: Any = handler_for(self.server, Silent)
        self.handler._keepalive_handle = connection._NO_TIMER
        self.transport = MemoryTransport()
        self.handler.connection_made(self.transport)


@pytest.fixture
async def served() -> AsyncIterator[Any]:
    made = Served()
    await turns()
    yield made
    made.handler.connection_lost(None)
    await turns()
    assert not made.server.connections


class TestRequestHandler:
    async def test_its_task_is_only_what_start_does(self, served):
        assert served.handler._task_handler.done()
        assert not served.transport.is_closed
        assert served.server.connections == [served.handler]

    async def test_no_timer_is_set(self, served):
        assert served.handler._keepalive_handle is connection._NO_TIMER

    async def test_closing_by_force_waits_for_nothing(self, served):
        served.handler.force_close()
        assert served.transport.is_closed
        assert served.handler.transport is None

    async def test_shutting_down_closes_at_once(self, served):
        async with asyncio.timeout(1):
            await served.handler.shutdown(60.0)
        assert served.transport.is_closed

    async def test_a_client_that_does_not_read_is_known(self, served):
        seen = [served.handler._paused]
        served.handler.pause_writing()
        seen.append(served.handler._paused)
        served.handler.resume_writing()
        assert [*seen, served.handler._paused] == [False, True, False]

    async def test_a_body_that_nobody_reads_pauses_its_sender(self, served):
        served.handler.data_received(POST.replace(b": 4", b": 9999") + b"x" * (3 * BUFFER))
        assert served.handler._reading_paused is True
        assert not served.transport.reads
        served.handler._resume_transport_reading()
        assert served.transport.reads
        served.handler._pause_transport_reading()
        assert not served.transport.reads

    async def test_and_who_reads_it_has_the_parser_go_on(self, served):
        """By `data_received` without bytes."""
        size = 3 * BUFFER
        served.handler.data_received(POST.replace(b": 4", b": %d" % size) + b"x" * size)
        ((_, payload),) = served.handler.seen
        assert not payload.is_eof()
        assert payload.read_nowait()
        assert payload.is_eof()
        assert served.transport.reads
        assert not served.handler._reading_paused


class FlowControl:
    """What a parser asks of its protocol."""

    def __init__(self, parser: Callable[["FlowControl"], Any]) -> None:
        self.parser = parser(self)
        self._reading_paused = False

    def pause_reading(self) -> None:
        self._reading_paused = True
        self.parser.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        self._reading_paused = False


@pytest.fixture
async def parser():
    """Made with the arguments of `ClientConnection._new_parser`."""
    loop = asyncio.get_running_loop()

    def make(protocol: FlowControl) -> Any:
        return HttpRequestParser(
            cast(BaseProtocol, protocol), loop, BUFFER, max_line_size=2048, max_field_size=2048,
            max_headers=8,
            payload_exception=web.RequestPayloadError, auto_decompress=False,
        )  # fmt: skip

    return FlowControl(make).parser


class TestRequestParser:
    def test_it_is_the_one_in_c(self):
        assert http_parser.HttpRequestParser.__module__ == "aiohttp._http_parser"

    async def test_a_head_says_what_the_fast_path_asks(self, parser):
        [(message, payload)], upgraded, tail = parser.feed_data(POST + b"body")
        assert (message.method, message.path, message.version) == ("POST", "/b", HttpVersion11)
        assert (message.should_close, message.chunked, message.upgrade) == (False, False, False)
        assert message.headers.getall("content-length", []) == ["4"], "whatever its case"
        assert message.headers["HOST"] == "x"
        assert (payload.is_eof(), upgraded, tail) == (True, False, b"")

    async def test_a_head_comes_before_its_body(self, parser):
        [(_, payload)], _, _ = parser.feed_data(POST)
        assert not payload.is_eof()
        assert not parser.feed_data(b"bod")[0]
        assert not payload.is_eof()
        parser.feed_data(b"y")
        assert payload.is_eof()

    async def test_an_older_version_is_told(self, parser):
        [(message, _)], _, _ = parser.feed_data(GET.replace(b"1.1", b"1.0"))
        assert (message.version, message.should_close) == (HttpVersion10, True)

    @pytest.mark.parametrize(
        ("line", "name"),
        [(b"transfer-encoding: chunked", "chunked"), (b"connection: close", "should_close")],
    )
    async def test_special_framing_is_told(self, parser, line, name):
        [(message, _)], _, _ = parser.feed_data(GET.replace(b"host: x", b"host: x\r\n" + line))
        assert getattr(message, name) is True

    async def test_an_upgrade_is_told(self, parser):
        lines = b"host: x\r\nconnection: upgrade\r\nupgrade: websocket"
        [(message, _)], upgraded, tail = parser.feed_data(GET.replace(b"host: x", lines) + b"more")
        assert (message.upgrade, upgraded, tail) == (True, True, b"more")

    async def test_a_coding_comes_as_it_was_written(self, parser):
        """For `framing` refuses what the parser lets pass."""
        line = b"host: x\r\ntransfer-encoding: gzip, chunked"
        [(message, _)], _, _ = parser.feed_data(GET.replace(b"host: x", line))
        assert (message.chunked, message.headers["transfer-encoding"]) == (True, "gzip, chunked")

    @pytest.mark.parametrize(
        "data",
        [
            b"nonsense\r\n\r\n",
            POST.replace(b"\r\n\r\n", b"\r\ncontent-length: 4\r\n\r\n"),
            GET.replace(b"host: x", b"x-a: " + b"a" * 2049),
            GET.replace(b"host: x", b"\r\n".join(b"x-%d: a" % number for number in range(9))),
        ],
        ids=["no HTTP", "two lengths", "a long line", "many headers"],
    )
    async def test_what_it_refuses_is_one_kind_of_error(self, parser, data):
        with pytest.raises(HttpProcessingError) as error:
            parser.feed_data(data)
        assert isinstance(error.value.message, str)

    def test_that_kind_is_what_framing_raises(self):
        assert issubclass(BadHttpMessage, HttpProcessingError)
        assert BadHttpMessage("why").message == "why"

    async def test_a_full_payload_stands_still_and_goes_on_without_new_bytes(self, parser):
        size = 3 * BUFFER
        [(_, payload)], _, _ = parser.feed_data(POST.replace(b": 4", b": %d" % size) + b"x" * size)
        assert payload.total_bytes in range(2 * BUFFER, size + 1)
        payload.read_nowait()
        parser.feed_data(b"")
        assert payload.is_eof()

    async def test_a_body_can_be_told_that_it_is_broken(self, parser):
        [(_, payload)], _, _ = parser.feed_data(POST)
        payload.set_exception(web.RequestPayloadError("why"))
        with pytest.raises(web.RequestPayloadError):
            await payload.readany()
