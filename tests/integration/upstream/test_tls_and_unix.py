"""The same client over TLS and over Unix sockets."""

import asyncio
import shutil
import ssl
import subprocess

import pytest

from router.domain.errors import ConnectFailedError, ResponseLostError
from router.upstream.address import parse_address
from router.upstream.client import Call
from tests.fakes.scripted_server import (
    close,
    read_request,
    scripted_server,
    send,
    until_peer_closes,
)
from tests.integration.upstream.conftest import GET, OK, closed, stats_of, until

CALLS = [step for _ in range(4) for step in (read_request(), send(OK))]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1, as (certificate file, key file)."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "the openssl command is needed to make a certificate"
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=upstream.test",
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:upstream.test",
            "-keyout", str(key), "-out", str(cert),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )  # fmt: skip
    return cert, key


@pytest.fixture
def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def client_context(certificate):
    return ssl.create_default_context(cafile=str(certificate[0]))


@pytest.mark.parametrize(("name", "trusted"), [("upstream.test", True), ("other.test", False)])
async def test_one_address_of_a_name_must_prove_to_be_that_name(
    client, server_context, client_context, name, trusted
):
    async with scripted_server(CALLS, ssl_context=server_context) as server:
        port = server.url.rpartition(":")[2]
        address = parse_address(f"https://{name}:{port}", client_context).at("127.0.0.1")
        if not trusted:
            with pytest.raises(ConnectFailedError):
                await client.send(address, GET, timeout_s=5)
            return
        response = await client.send(address, GET, timeout_s=5)
        assert response.status == 200


async def test_calls_over_tls_reuse_their_connection(client, server_context, client_context):
    async with scripted_server(CALLS, ssl_context=server_context) as server:
        address = parse_address(server.url, client_context)
        for _ in range(3):
            assert (await client.send(address, GET, timeout_s=10)).body == b"ok"
        assert len(server.connections) == 1
        assert b"Host: 127.0.0.1:%d\r\n" % server.port in server.connections[0].requests[0]
        assert tuple(client.stats()[address]) == (1, 1)


async def test_a_large_body_over_tls_arrives_byte_for_byte(client, server_context, client_context):
    body = bytes(range(256)) * 8192
    async with scripted_server(CALLS, ssl_context=server_context) as server:
        address = parse_address(server.url, client_context)
        for _ in range(2):
            call = Call("POST", "/", (), body)
            assert (await client.send(address, call, timeout_s=20)).body == b"ok"
        for request in server.connections[0].requests:
            assert request.partition(b"\r\n\r\n")[2] == body


async def test_an_unknown_authority_is_refused_by_default(client, server_context):
    async with scripted_server(CALLS, ssl_context=server_context) as server:
        with pytest.raises(ConnectFailedError, match="certificate") as caught:
            await client.send(parse_address(server.url), GET, timeout_s=10)
        assert not caught.value.was_sent
        assert client.stats() == {}


async def test_a_certificate_for_another_name_is_refused(client, server_context, client_context):
    async with scripted_server(CALLS, ssl_context=server_context) as server:
        address = parse_address(f"https://localhost:{server.port}", client_context)
        with pytest.raises(ConnectFailedError, match="certificate"):
            await client.send(address, GET, timeout_s=10)


async def test_a_plain_server_fails_the_handshake(client, client_context):
    async with scripted_server([send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), close()]) as server:
        address = parse_address(f"https://127.0.0.1:{server.port}", client_context)
        with pytest.raises(ConnectFailedError, match="TLS"):
            await client.send(address, GET, timeout_s=10)


async def test_a_handshake_that_never_ends_is_a_connect_timeout(make_client, client_context):
    client = make_client(connect_timeout_s=0.1)
    async with scripted_server([until_peer_closes()]) as server:
        address = parse_address(f"https://127.0.0.1:{server.port}", client_context)
        with pytest.raises(ConnectFailedError, match="in time"):
            await client.send(address, GET, timeout_s=10)
        await closed(server)


async def test_cancelling_over_tls_closes_the_connection(client, server_context, client_context):
    async with scripted_server(
        [read_request(), until_peer_closes()], ssl_context=server_context
    ) as server:
        address = parse_address(server.url, client_context)
        sending = asyncio.create_task(client.send(address, GET, timeout_s=10))
        await until(lambda: server.connections and server.connections[0].requests)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await closed(server)


async def test_calls_over_a_unix_socket(client, tmp_path):
    path = str(tmp_path / "worker.sock")
    async with scripted_server(CALLS, unix_path=path) as server:
        for _ in range(2):
            assert (await client.send(parse_address(server.url), GET, timeout_s=10)).body == b"ok"
        assert b"\r\nHost: localhost\r\n" in server.connections[0].requests[0]
        assert stats_of(client, server) == (1, 1)


async def test_a_missing_unix_socket_is_a_failed_connect(client, tmp_path):
    with pytest.raises(ConnectFailedError) as caught:
        await client.send(parse_address(f"unix:{tmp_path}/none.sock"), GET, timeout_s=10)
    assert str(tmp_path) not in str(caught.value)


async def test_a_unix_socket_that_closes_loses_the_response(client, tmp_path):
    path = str(tmp_path / "worker.sock")
    async with scripted_server([read_request(), close()], unix_path=path) as server:
        with pytest.raises(ResponseLostError):
            await client.send(parse_address(server.url), GET, timeout_s=10)
