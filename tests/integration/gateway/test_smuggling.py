"""Known ways to hide one request in another, sent through the gateway to a real worker.

Whatever is in doubt is refused with 400 and ends the connection, and the worker hears nothing of
it; whatever is clear, however odd, reaches the worker as the requests that it is. The request that
hides in a vector never reaches it. What the worker saw is told from its own answers.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from tests.fakes.models import write_identity
from tests.fakes.tap import Tap, tapped
from tests.fakes.upstreams import ok
from tests.fakes.worker_process import WorkerProcess, running_worker
from tests.integration.harness import Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_S = 10.0
PATH = b"/v2/models/m/infer"
START = b"POST " + PATH + b" HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"


def body_of(name: str) -> bytes:
    """An inference that the worker answers with `name` as its id."""
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}
    return json.dumps({"id": name, "inputs": [tensor]}).encode()


def length_of(data: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(data)


def post(name: str, *lines: bytes) -> bytes:
    body = body_of(name)
    return START + b"".join(lines) + length_of(body) + b"\r\n" + body


def in_chunks(body: bytes, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n0\r\n%b\r\n" % (len(body), extension, body, trailer)


OUTER = body_of("outer")
OWN = length_of(OUTER)
HIDDEN = post("hidden")
OVER = length_of(HIDDEN)
AS_CHUNKS = START + CHUNKED + b"\r\n"

REFUSED = {
    # CL.TE and TE.CL: one side would go by the length, the other by the chunks.
    "CL.TE": START + length_of(b"0\r\n\r\n" + HIDDEN) + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "CL.TE, with the coding first":
        START + CHUNKED + length_of(b"0\r\n\r\n" + HIDDEN) + b"\r\n0\r\n\r\n" + HIDDEN,
    "TE.CL": START + b"content-length: 4\r\n" + CHUNKED + b"\r\n" + in_chunks(HIDDEN),
    "TE.CL, with a length of 0":
        START + b"content-length: 0\r\n" + CHUNKED + b"\r\n" + in_chunks(HIDDEN),
    "CL.TE that agree": START + length_of(in_chunks(OUTER)) + CHUNKED + b"\r\n" + in_chunks(OUTER),
    "chunks in HTTP/1.0 with a length":
        START.replace(b"1.1", b"1.0") + OVER + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "a GET with both":
        b"GET /v2/models/m HTTP/1.1\r\nhost: x\r\n" + OVER + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    # TE.TE: a coding that only one side would recognise.
    "TE.TE: a word before": START + OVER + b"transfer-encoding: xchunked\r\n\r\n" + HIDDEN,
    "TE.TE: a second line": START + CHUNKED + b"transfer-encoding: x\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: a first line":
        START + b"transfer-encoding: x\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: the same line twice": START + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: twice in one line":
        START + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: not the last":
        START + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: after another": START + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: identity": START + OVER + b"transfer-encoding: identity\r\n\r\n" + HIDDEN,
    "TE.TE: identity alone": START + b"transfer-encoding: identity\r\n\r\n" + HIDDEN,
    "TE.TE: nothing": START + OVER + b"transfer-encoding:\r\n\r\n" + HIDDEN,
    "TE.TE: a comma": START + b"transfer-encoding: chunked,\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: a comma before": START + b"transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: in quotes": START + OVER + b'transfer-encoding: "chunked"\r\n\r\n' + HIDDEN,
    "TE.TE: with a parameter": START + OVER + b"transfer-encoding: chunked;q=1\r\n\r\n" + HIDDEN,
    "TE.TE: a vertical tab": START + OVER + b"transfer-encoding:\x0bchunked\r\n\r\n" + HIDDEN,
    "TE.TE: a form feed": START + OVER + b"transfer-encoding: \x0cchunked\r\n\r\n" + HIDDEN,
    "TE.TE: a no-break space": START + OVER + b"transfer-encoding: \xa0chunked\r\n\r\n" + HIDDEN,
    "TE.TE: NUL before": START + OVER + b"transfer-encoding: \0chunked\r\n\r\n" + HIDDEN,
    "TE.TE: NUL after": START + OVER + b"transfer-encoding: chunked\0\r\n\r\n" + HIDDEN,
    "TE.TE: a dotless i":
        START + OVER + "transfer-encod\u0131ng: chunked\r\n\r\n".encode() + HIDDEN,
    "TE.TE: a kelvin sign":
        START + OVER + "transfer-encoding: chun\u212aed\r\n\r\n".encode() + HIDDEN,
    "TE.TE: a space before the colon":
        START + OVER + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: a tab before the colon":
        START + OVER + b"transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: a space before the name":
        START + OVER + b" transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: folded": START + OVER + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: folded before the colon":
        START + OVER + b"transfer-encoding\r\n : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: behind a bare LF":
        START + OVER + b"x: x\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: behind a bare CR":
        START + OVER + b"x: x\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.TE: in place of the first header":
        START.replace(b"\r\nhost", b"\r\n transfer-encoding: chunked\r\nhost")
        + OVER + b"\r\n" + HIDDEN,
    "TE.TE: blanks after it":
        START + b"transfer-encoding: chunked \t\r\n\r\n" + in_chunks(OUTER) + HIDDEN,
    "TE.TE: in HTTP/1.0":
        START.replace(b"1.1", b"1.0") + b"connection: keep-alive\r\n" + CHUNKED + b"\r\n"
        + in_chunks(OUTER) + HIDDEN,
    # Lengths that two readers would read differently.
    "two lengths": START + OWN + OVER + b"\r\n" + OUTER + HIDDEN,
    "two lengths, the longer first": START + OVER + OWN + b"\r\n" + OUTER + HIDDEN,
    "the same length twice": START + OWN + OWN + b"\r\n" + OUTER + HIDDEN,
    "a list of lengths": START + b"content-length: 0, %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a length with a plus": START + b"content-length: +%d\r\n\r\n" % len(OUTER) + OUTER + HIDDEN,
    "a length with a minus": START + b"content-length: -0\r\n\r\n" + HIDDEN,
    "a length with a fraction": START + b"content-length: 0.0\r\n\r\n" + HIDDEN,
    "a length with an exponent": START + b"content-length: 1e2\r\n\r\n" + HIDDEN,
    "a length with an underscore": START + b"content-length: 1_0\r\n\r\n" + HIDDEN,
    "a length in hexadecimal":
        START + b"content-length: 0x%x\r\n\r\n" % len(OUTER) + OUTER + HIDDEN,
    "a length with a blank in it": START + b"content-length: 1 1\r\n\r\n" + HIDDEN,
    "a length in Arabic digits": START + "content-length: \u0661\r\n\r\n".encode() + HIDDEN,
    "a length that wraps around": START + b"content-length: %d\r\n\r\n" % 2**64 + HIDDEN,
    "a length of nothing": START + b"content-length:\r\n\r\n" + HIDDEN,
    "a length in quotes": START + b'content-length: "0"\r\n\r\n' + HIDDEN,
    "a length behind NUL": START + b"content-length: \0000\r\n\r\n" + HIDDEN,
    "a space before a length's colon": START + b"content-length : 0\r\n" + OVER + b"\r\n" + HIDDEN,
    "a folded length": START + b"content-length:\r\n 0\r\n\r\n" + HIDDEN,
    "a folded length behind another": START + b"content-length: 1\r\n 1\r\n\r\n" + HIDDEN,
    # Ends of lines and of heads.
    "a bare LF at the head's end": START + OWN + b"\n" + OUTER + HIDDEN,
    "nothing but bare LFs": post("outer").replace(b"\r\n", b"\n") + HIDDEN,
    "a bare LF after the request line": post("outer").replace(b"1.1\r\n", b"1.1\n") + HIDDEN,
    "a bare CR after the request line": post("outer").replace(b"1.1\r\n", b"1.1\r") + HIDDEN,
    "a bare LF in a value": post("outer", b"x: a\nb\r\n") + HIDDEN,
    "a bare CR in a value": post("outer", b"x: a\rb\r\n") + HIDDEN,
    "a folded header": post("outer", b"x: a\r\n\tb\r\n") + HIDDEN,
    "NUL in a value": post("outer", b"x: a\0b\r\n") + HIDDEN,
    "NUL in a name": post("outer", b"x\0: a\r\n") + HIDDEN,
    "a blank in a name": post("outer", b"x y: a\r\n") + HIDDEN,
    "no name": post("outer", b": a\r\n") + HIDDEN,
    "no colon": post("outer", b"x\r\n") + HIDDEN,
    "a control character in a name": post("outer", b"x\x7f: a\r\n") + HIDDEN,
    # Request lines.
    "no version": b"POST " + PATH + b"\r\n" + post("outer").partition(b"\r\n")[2] + HIDDEN,
    "HTTP/0.9 in full": post("outer").replace(b"HTTP/1.1", b"HTTP/0.9") + HIDDEN,
    "HTTP/2.0": post("outer").replace(b"HTTP/1.1", b"HTTP/2.0") + HIDDEN,
    "HTTP/1.10": post("outer").replace(b"HTTP/1.1", b"HTTP/1.10") + HIDDEN,
    "a method that is none": post("outer").replace(b"POST", b"BREW") + HIDDEN,
    "two versions": post("outer").replace(b"HTTP/1.1", b"HTTP/1.1 HTTP/1.1") + HIDDEN,
    "a blank in the target": post("outer").replace(b"infer ", b"infer x ") + HIDDEN,
    "NUL in the target": post("outer").replace(b"infer ", b"infer\0 ") + HIDDEN,
    "two hosts": post("outer", b"host: y\r\n") + HIDDEN,
    "no host": post("outer").replace(b"host: x\r\n", b"") + HIDDEN,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    # Chunks.
    "a chunk size that is none": AS_CHUNKS + b"zz\r\n" + HIDDEN,
    "a chunk size of nothing": AS_CHUNKS + b"\r\n" + HIDDEN,
    "a chunk size with 0x": AS_CHUNKS + b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(OUTER), OUTER) + HIDDEN,
    "a chunk size with a sign":
        AS_CHUNKS + b"+%x\r\n%b\r\n0\r\n\r\n" % (len(OUTER), OUTER) + HIDDEN,
    "a negative chunk size": AS_CHUNKS + b"-1\r\n" + HIDDEN,
    "a chunk size with an underscore": AS_CHUNKS + b"1_0\r\n" + HIDDEN,
    "a chunk size that wraps around": AS_CHUNKS + b"10000000000000000\r\n" + HIDDEN,
    "a blank before a chunk size": AS_CHUNKS + b" 0\r\n\r\n" + HIDDEN,
    "a chunk longer than its size": AS_CHUNKS + b"1\r\n" + OUTER + b"\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that ends in a bare LF":
        AS_CHUNKS + b"%x\r\n%b\n0\r\n\r\n" % (len(OUTER), OUTER) + HIDDEN,
    "a chunk size that ends in a bare LF":
        AS_CHUNKS + b"%x\n%b\r\n0\r\n\r\n" % (len(OUTER), OUTER) + HIDDEN,
    "a chunk size that ends in a bare CR":
        AS_CHUNKS + b"%x\r%b\r\n0\r\n\r\n" % (len(OUTER), OUTER) + HIDDEN,
    "a chunk without its line's end":
        AS_CHUNKS + b"%x\r\n%b0\r\n\r\n" % (len(OUTER), OUTER) + HIDDEN,
    "a bare LF in a chunk extension": AS_CHUNKS + in_chunks(OUTER, b";a\nb") + HIDDEN,
    "a bare CR in a chunk extension": AS_CHUNKS + in_chunks(OUTER, b";a\rb") + HIDDEN,
    "NUL in a chunk extension": AS_CHUNKS + in_chunks(OUTER, b";a\0b") + HIDDEN,
    "a last chunk that ends in a bare LF": AS_CHUNKS + in_chunks(OUTER)[:-4] + b"\n\r\n" + HIDDEN,
    "a trailer that ends in a bare LF": AS_CHUNKS + in_chunks(OUTER, trailer=b"x: a\n") + HIDDEN,
    "a trailer without a colon": AS_CHUNKS + in_chunks(OUTER, trailer=b"x\r\n") + HIDDEN,
    "a trailer with a length": AS_CHUNKS + in_chunks(OUTER, trailer=OVER) + HIDDEN,
    "a trailer with a coding": AS_CHUNKS + in_chunks(OUTER, trailer=CHUNKED) + HIDDEN,
    "a folded trailer": AS_CHUNKS + in_chunks(OUTER, trailer=b"x: a\r\n b\r\n") + HIDDEN,
}  # fmt: skip


class Clear(NamedTuple):
    """What is sent, the statuses that the client gets, and the answers that the worker gives."""

    data: bytes
    statuses: list[int]
    served: list[int]


CLEAR = {
    # CL.0: a body where none is looked for. It is skipped, and never read as a request.
    "CL.0: a GET that the gateway answers":
        Clear(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n" + OVER + b"\r\n" + HIDDEN, [200], []),
    "CL.0: a GET that the worker answers":
        Clear(b"GET /v2/models/m HTTP/1.1\r\nhost: x\r\n" + OVER + b"\r\n" + HIDDEN, [200], [200]),
    "CL.0: a PUT": Clear(
        b"PUT /v2/health/live HTTP/1.1\r\nhost: x\r\n" + OVER + b"\r\n" + HIDDEN, [405], []),
    "CL.0: a path that is none":
        Clear(b"POST /nowhere HTTP/1.1\r\nhost: x\r\n" + OVER + b"\r\n" + HIDDEN, [404], []),
    "CL.0: a model that is none": Clear(
        b"POST /v2/models/n/infer HTTP/1.1\r\nhost: x\r\n" + OVER + b"\r\n" + HIDDEN, [404], []),
    "0.CL: a body after a length of 0, which is another request":
        Clear(START + b"content-length: 0\r\n\r\n" + post("second"), [400, 200], [200]),
    "a body that is a request": Clear(START + OVER + b"\r\n" + HIDDEN, [400], [400]),
    "a body that begins like the end of chunks": Clear(
        START + length_of(b"0\r\n\r\n" + HIDDEN) + b"\r\n0\r\n\r\n" + HIDDEN, [400], [400]),
    # Odd, but clear.
    "a coding in capitals": Clear(
        START + b"Transfer-Encoding: Chunked\r\n\r\n" + in_chunks(OUTER), [200], [200]),
    "a tab before the coding": Clear(
        START + b"transfer-encoding:\tchunked\r\n\r\n" + in_chunks(OUTER), [200], [200]),
    "an underscore in the coding's name":
        Clear(post("outer", b"transfer_encoding: chunked\r\n"), [200], [200]),
    "a length with leading zeros":
        Clear(START + b"content-length: 00%d\r\n\r\n" % len(OUTER) + OUTER, [200], [200]),
    "blanks around a length":
        Clear(START + b"content-length: \t%d \r\n\r\n" % len(OUTER) + OUTER, [200], [200]),
    "a chunk size with leading zeros": Clear(
        AS_CHUNKS + b"000000%x\r\n%b\r\n000\r\n\r\n" % (len(OUTER), OUTER), [200], [200]),
    "a chunk size in capitals": Clear(
        AS_CHUNKS + b"%X\r\n%b\r\n0\r\n\r\n" % (len(OUTER), OUTER), [200], [200]),
    "a chunk extension": Clear(AS_CHUNKS + in_chunks(OUTER, b';a="b"'), [200], [200]),
    "chunk extensions of 100 bytes":
        Clear(AS_CHUNKS + in_chunks(OUTER, b";" + b"a" * 100), [200], [200]),
    "a trailer": Clear(AS_CHUNKS + in_chunks(OUTER, trailer=b"x: a\r\n"), [200], [200]),
    "an empty line before the request": Clear(b"\r\n" + post("outer"), [200], [200]),
    "an absolute target":
        Clear(post("outer").replace(PATH, b"http://elsewhere" + PATH), [200], [200]),
    "an absolute target with nothing but a query": Clear(
        post("outer").replace(PATH, b"http://elsewhere?" + PATH), [405], []),
    "a connection option that names the length":
        Clear(post("outer", b"connection: content-length\r\n"), [200], [200]),
    "a connection option that names the coding": Clear(
        START + b"connection: transfer-encoding\r\n" + CHUNKED + b"\r\n" + in_chunks(OUTER),
        [200], [200]),
    "a wish for trailers": Clear(post("outer", b"te: trailers\r\n"), [200], [200]),
    "an expectation, and the body with it": Clear(
        post("outer", b"expect: 100-continue\r\n"), [100, 200], [200]),
    "another method's name in a header":
        Clear(post("outer", b"x-http-method-override: GET\r\n"), [200], [200]),
    "line breaks quoted in the target": Clear(
        post("outer").replace(PATH, PATH + b"%0d%0ax:%20a%0d%0a%0d%0a"), [400], []),
    "line breaks quoted in the query": Clear(
        post("outer").replace(PATH, PATH + b"?a=%0d%0a%0d%0a" + b"GET%20/%20HTTP/1.1"),
        [200], [200]),
    "two requests at once": Clear(post("outer") + post("second"), [200, 200], [200, 200]),
    "chunks, and a request at once":
        Clear(AS_CHUNKS + in_chunks(OUTER) + post("second"), [200, 200], [200, 200]),
}  # fmt: skip


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    repository = tmp_path_factory.mktemp("smuggling")
    write_identity(repository, "m")
    with running_worker(repository, "m") as process:
        yield process


class Site(NamedTuple):
    """A gateway before a worker, and the wire between them."""

    gateway: Harness
    tap: Tap


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[False, True], ids=["ordinary", "fast"]
)
async def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker: WorkerProcess
) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("gateway")
    server: dict[str, Any] = {"fast_path": request.param}
    async with tapped(worker.authority) as tap:
        pool = {"urls": [tap.url], "health": {"interval": "60s"}}
        async with Harness(folder, warm=[ok()], server=server, pool=pool) as gateway:
            yield Site(gateway, tap)


class Connection:
    """A client's connection, and the answers that came on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        self._writer.write(data)
        return await self.answer()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        async with asyncio.timeout(WITHIN_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head[9:12])
            assert b"transfer-encoding" not in head
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            return status, await self._reader.readexactly(int(length or 0))

    async def rest(self) -> bytes:
        """All that comes until the gateway closes."""
        async with asyncio.timeout(WITHIN_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""  # what it had not read is thrown away


@asynccontextmanager
async def connected(site: Site, *, is_known: bool) -> AsyncIterator[Connection]:
    """A connection; if `is_known`, after requests that taught the fast path its head.

    When the block ends, so does it, and nothing of what was sent on it is left.
    """
    reader, writer = await site.gateway.connect()
    connection = Connection(reader, writer)
    if is_known:
        for _ in range(2):
            status, answer = await connection.ask(post("before"))
            assert (status, json.loads(answer)["id"]) == (200, "before")
        fast_path = site.gateway.gateway._data.fast_path
        assert fast_path is None or fast_path._known._heads
    site.tap.forget()
    try:
        yield connection
    finally:
        writer.transport.abort()
        await site.gateway.until(lambda: site.gateway.in_flight == 0)
    assert site.gateway.pool.in_flight == 0
    assert site.gateway.gateway._data.bodies.held_bytes == 0


KNOWN = pytest.mark.parametrize("is_known", [False, True], ids=["first", "later"])


@KNOWN
@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
async def test_what_is_in_doubt_is_refused_and_ends_the_connection(site, data, is_known):
    async with connected(site, is_known=is_known) as connection:
        connection.send(data)
        status, answer = await connection.answer()
        expected = 501 if b"BREW" in data else 400  # a method that nobody knows is told so
        assert (status, list(json.loads(answer))) == (expected, ["error"])
        assert await connection.rest() == b""
        assert site.tap.answered() == []


@KNOWN
@pytest.mark.parametrize("case", CLEAR.values(), ids=CLEAR)
async def test_what_is_clear_reaches_the_worker_as_what_it_is(site, case, is_known):
    async with connected(site, is_known=is_known) as connection:
        connection.send(case.data)
        answers = [await connection.answer() for _ in case.statuses]
        assert [status for status, _ in answers] == case.statuses
        assert site.tap.answered() == case.served
        assert site.tap.count(b'"hidden"') == 0
        site.tap.forget()
        status, answer = await connection.ask(post("after"))
        assert (status, json.loads(answer)["id"]) == (200, "after")
        assert site.tap.answered() == [200]


@KNOWN
async def test_a_chunk_of_nearly_2_to_the_64_bytes_is_waited_for(site, is_known):
    async with connected(site, is_known=is_known) as connection:
        connection.send(AS_CHUNKS + b"fffffffffffffffe\r\n" + HIDDEN)
        await site.gateway.until(lambda: site.gateway.in_flight == 1)
    assert site.tap.answered() == []
