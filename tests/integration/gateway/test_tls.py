"""HTTPS on the data port, with real certificates."""

import asyncio
import shutil
import ssl
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.certificates import make_certificate
from tests.fakes.upstreams import Gate, ok
from tests.integration.harness import INFER, Harness

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, Pair]:
    """Two certificates, each its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    return make_certificate(folder, "first"), make_certificate(folder, "second")


@pytest.fixture
def served(tmp_path: Path, pairs: tuple[Pair, Pair]) -> Pair:
    """The files that the gateway is configured with; the first certificate is in them."""
    files = tmp_path / "served.pem", tmp_path / "served.key"
    install(files, pairs[0])
    return files


def install(files: Pair, pair: Pair) -> None:
    for target, source in zip(files, pair, strict=True):
        shutil.copy(source, target)


def secure(tmp_path: Path, served: Pair, *behaviours: Any, **server: Any) -> Harness:
    tls = {"certificate": str(served[0]), "key": str(served[1])}
    return Harness(tmp_path, warm=list(behaviours or [ok()]), server={"tls": tls, **server})


def trusting(pair: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pair[0]))


async def infer(session: aiohttp.ClientSession, url: str, body: bytes = b"{}") -> int:
    async with session.post(url + INFER, data=BytesIO(body)) as response:
        await response.read()
        return response.status


def session_for(pair: Pair, **options: Any) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=trusting(pair), **options)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10))


async def shown_name(gateway: Harness, context: ssl.SSLContext) -> str:
    """Whose certificate a new connection is shown."""
    host, port = gateway.url.removeprefix("https://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    certificate = writer.get_extra_info("peercert")
    writer.transport.abort()
    return str(certificate["subject"][0][0][1])


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
async def test_requests_of_every_size_arrive(tmp_path, served, pairs, fast_path):
    async with secure(tmp_path, served, fast_path=fast_path) as gateway:
        assert gateway.url.startswith("https://127.0.0.1:")
        bodies = [b"{}", b"{}", bytes(200_000), bytes(1_000_000)]
        async with session_for(pairs[0]) as session:
            for body in bodies:
                assert await infer(session, gateway.url, body) == 200
        assert [received.body for received in gateway.warm[0].received] == bodies


async def test_it_speaks_tls_1_2_and_newer_and_http_1_1(tmp_path, served, pairs):
    async with secure(tmp_path, served) as gateway:
        context = trusting(pairs[0])
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2", "http/1.1"])
        host, port = gateway.url.removeprefix("https://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        transport: Any = writer.get_extra_info("ssl_object")
        assert (transport.version(), transport.selected_alpn_protocol()) == ("TLSv1.2", "http/1.1")
        writer.transport.abort()
        served_context = gateway.gateway._runtime.current.tls
        assert served_context is not None
        assert served_context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_renewed_certificate_is_shown_to_new_clients_and_loses_none(
    tmp_path, served, pairs
):
    gate = Gate()
    async with secure(tmp_path, served, gate) as gateway, session_for(pairs[0]) as session:
        held = asyncio.create_task(infer(session, gateway.url))
        await gateway.until(lambda: gate.waiting == 1)
        install(served, pairs[1])
        before = gateway.gateway._runtime.current
        await gateway.until(lambda: gateway.gateway._runtime.current is not before)
        assert await shown_name(gateway, trusting(pairs[1])) == "second.test"
        gate.opened.set()
        assert await held == 200
        assert await infer(session, gateway.url) == 200, "the old connection goes on"
        assert gateway.gateway._data.limits.accepted == 2


async def test_a_pair_that_does_not_fit_changes_nothing(tmp_path, served, pairs):
    async with secure(tmp_path, served) as gateway:
        shutil.copy(pairs[1][0], served[0])
        reply = await gateway.ask("POST", "/v1/reload")
        assert reply.status == 422
        assert "server.tls.key" in reply.json()["errors"][0]
        assert await shown_name(gateway, trusting(pairs[0])) == "first.test"
        shutil.copy(pairs[1][1], served[1])  # the second half of the renewal
        assert (await gateway.ask("POST", "/v1/reload")).status == 200
        assert await shown_name(gateway, trusting(pairs[1])) == "second.test"


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"], ids=["nothing", "HTTP", "half"]
)
async def test_what_is_no_handshake_is_closed_in_time(tmp_path, served, sent):
    async with secure(tmp_path, served, header_timeout="200ms") as gateway:
        host, port = gateway.url.removeprefix("https://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                await reader.read()
        limits = gateway.gateway._data.limits
        await gateway.until(lambda: limits.handshakes_failed == 1)
        assert limits.open == 0
        writer.close()


async def test_a_handshake_by_the_byte_gains_no_time(tmp_path, served, pairs):
    hello = ssl.MemoryBIO()
    client = trusting(pairs[0]).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    async with secure(tmp_path, served, header_timeout="300ms") as gateway:
        host, port = gateway.url.removeprefix("https://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))

        async def drip() -> None:
            for byte in hello.read()[:-1]:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        limits = gateway.gateway._data.limits
        await gateway.until(lambda: limits.handshakes_failed == 1)
        dripping.cancel()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


PLAIN = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}".encode()
START = f"POST {INFER} HTTP/1.1\r\nhost: x\r\n".encode()
IN_DOUBT = {
    "CL.TE": START + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE.TE": START + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two lengths": START + b"content-length: 2\r\ncontent-length: 80\r\n\r\n{}",
    "a bare LF": START + b"content-length: 2\n\r\n{}",
    "a chunk without a size": START + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
}


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "ordinary"])
@pytest.mark.parametrize("data", IN_DOUBT.values(), ids=IN_DOUBT)
async def test_what_is_in_doubt_is_refused_here_too(tmp_path, served, pairs, data, fast_path):
    async with secure(tmp_path, served, fast_path=fast_path) as gateway:
        host, port = gateway.url.removeprefix("https://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=trusting(pairs[0]))
        for _ in range(2):
            writer.write(PLAIN)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readexactly(len(b'{"outputs": []}'))
        writer.write(data + PLAIN)
        async with asyncio.timeout(10):
            rest = await reader.read()
        assert (rest.count(b"HTTP/1.1 "), rest[:13]) == (1, b"HTTP/1.1 400 ")
        assert len(gateway.warm[0].received) == 2
        writer.close()


async def test_handshakes_count_as_connections(tmp_path, served, pairs):
    async with secure(tmp_path, served, max_connections=2) as gateway:
        host, port = gateway.url.removeprefix("https://").split(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        await gateway.until(lambda: len(gateway.gateway._listener._starting) == 2)
        with pytest.raises(ConnectionError):
            await shown_name(gateway, trusting(pairs[0]))
        assert gateway.gateway._data.limits.refused == 1
        for _, writer in silent:
            writer.transport.abort()
        await gateway.until(lambda: not gateway.gateway._listener._starting)
        assert await shown_name(gateway, trusting(pairs[0])) == "first.test"


async def test_draining_ends_connections_after_their_answer(tmp_path, served, pairs):
    gate = Gate()
    async with secure(tmp_path, served, gate) as gateway, session_for(pairs[0]) as session:
        held = asyncio.create_task(infer(session, gateway.url))
        await gateway.until(lambda: gate.waiting == 1)
        gateway.begin_to_stop()
        await gateway.until(lambda: gateway.gateway._data.is_draining)
        gate.opened.set()
        assert await held == 200
        await gateway.stop()


async def test_the_end_of_the_certificate_is_told_and_a_renewal_ends_the_warning(
    tmp_path: Path, served: Pair, pairs: tuple[Pair, Pair], caplog: pytest.LogCaptureFixture
):
    renewed = await asyncio.to_thread(make_certificate, tmp_path, "renewed", 90)
    async with secure(tmp_path, served) as gateway:

        async def told() -> tuple[Any, float]:
            shown = (await gateway.ask("GET", "/v1/status")).json()["certificate"]
            text = (await gateway.ask("GET", "/metrics")).body.decode()
            name = "router_certificate_expiry_timestamp_seconds "
            (line,) = [line for line in text.splitlines() if line.startswith(name)]
            assert float(line.split()[1]) == shown["expires_at"]
            return shown["warning"], shown["expires_at"]

        warning, first_end = await told()
        assert "expires in" in warning
        assert warning.rsplit(" in ", 1)[0] in caplog.text
        await asyncio.to_thread(install, served, renewed)
        await gateway.until(lambda: gateway.gateway._runtime.current.tls_expires_at != first_end)
        warning, end = await told()
        assert warning is None
        assert end > first_end + 80 * 86_400
        assert await shown_name(gateway, trusting(renewed)) == "renewed.test"


async def test_plain_http_has_no_certificate_to_tell_of(tmp_path: Path):
    async with Harness(tmp_path, warm=[ok()]) as gateway:
        assert (await gateway.ask("GET", "/v1/status")).json()["certificate"] is None
        metrics = (await gateway.ask("GET", "/metrics")).body.decode()
        assert "\nrouter_certificate_expiry_timestamp_seconds " not in metrics
