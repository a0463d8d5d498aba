import ssl

import pytest

from router.upstream.address import parse_address


@pytest.mark.parametrize(
    ("url", "host", "port", "host_header", "tls"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 8000, "127.0.0.1:8000", False),
        ("http://worker-1.pool:8000/", "worker-1.pool", 8000, "worker-1.pool:8000", False),
        ("http://example.org", "example.org", 80, "example.org", False),
        ("http://example.org:80", "example.org", 80, "example.org", False),
        ("HTTP://Example.ORG:81", "example.org", 81, "example.org:81", False),
        ("https://example.org", "example.org", 443, "example.org", True),
        ("https://example.org:8443", "example.org", 8443, "example.org:8443", True),
        ("http://[::1]:9000", "::1", 9000, "[::1]:9000", False),
        ("http://[::1]", "::1", 80, "[::1]", False),
    ],
)
def test_reads_host_port_and_host_header(url, host, port, host_header, tls):
    address = parse_address(url)
    assert (address.host, address.port, address.host_header, address.tls) == (
        host,
        port,
        host_header,
        tls,
    )
    assert address.unix_path is None


def test_reads_a_unix_socket():
    address = parse_address("unix:/run/worker.sock")
    assert (address.unix_path, address.tls, address.host_header) == (
        "/run/worker.sock",
        False,
        "localhost",
    )


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("ftp://example.org", "must start with"),
        ("example.org:80", "must start with"),
        ("", "must start with"),
        ("http://", "host"),
        ("http://:80", "host"),
        ("http://a b", "without spaces"),
        ("http://a\r\nb", "printable"),
        ("http://ex\u00e4mple.org", "ASCII"),
        ("http://user:secret@example.org", "credentials"),
        ("http://example.org/v2", "path"),
        ("http://example.org?x=1", "only scheme"),
        ("http://example.org#x", "only scheme"),
        ("http://example.org:0", "port"),
        ("http://example.org:65536", "Port"),
        ("http://example.org:http", "Port"),
        ("http://[::1", "IPv6"),
        ("http://exa$mple.org", "host"),
        ("unix:relative.sock", "absolute"),
        ("unix://host/path", "absolute"),
        ("unix:/a\0b", "absolute"),
    ],
)
def test_refuses_with_the_url_and_the_reason(url, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_address(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("url", ["http://example.org", "unix:/run/worker.sock"])
def test_a_tls_context_needs_https(url):
    with pytest.raises(ValueError, match="TLS"):
        parse_address(url, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def test_addresses_share_connections_only_with_the_same_tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain = parse_address("https://example.org")
    assert plain == parse_address("https://EXAMPLE.org:443/")
    assert hash(plain) == hash(parse_address("https://example.org"))
    assert plain != parse_address("https://example.org", context)
    assert plain != parse_address("http://example.org")
