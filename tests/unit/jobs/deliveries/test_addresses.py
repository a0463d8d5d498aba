from ipaddress import ip_address, ip_network

import pytest

from router.domain.errors import InvalidRequestError
from router.jobs.deliveries.addresses import Guard, NotAllowedError, callback_of, host_of, may_go_to
from router.settings.deliveries import DeliveriesSettings


def settings(**more: object) -> DeliveriesSettings:
    hosts = ("hooks.example.com", "*.partner.example", "203.0.113.7", "::1")
    return DeliveriesSettings.model_validate({"hosts": hosts, "secret_file": "s", **more})


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://hooks.example.com", "hooks.example.com:443"),
        ("https://HOOKS.example.com:8443/a?b=c", "hooks.example.com:8443"),
        ("https://hooks.example.com./a", "hooks.example.com:443"),
        ("https://a.b.partner.example/", "a.b.partner.example:443"),
        ("https://203.0.113.7/", "203.0.113.7:443"),
        ("https://[::1]/", "::1:443"),
    ],
)
def test_hosts_that_are_allowed(url: str, host: str):
    assert host_of(url, settings()) == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "/relative",
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "https://other.example.com/",
        "https://partner.example/",
        "https://hooks.example.com.evil.test/",
        "https://hooks.example.com@evil.test/",
        "https://user:password@hooks.example.com/",
        "https://evil.test#@hooks.example.com/",
        "https://evil.test\\@hooks.example.com/",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com:port/",
        "https:///nobody",
        "https://hooks.example.com/ a",
        "https://hooks.example.com/\r\nhost: evil.test",
        "https://hooks.exämple.com/",
        "https://hooks.example.com/" + "a" * 2048,
    ],
)
def test_urls_that_are_not(url: str):
    with pytest.raises(InvalidRequestError):
        host_of(url, settings())


def test_what_the_operator_has_configured_needs_no_list_but_https():
    assert host_of("https://sink.test/", settings(), by_operator=True) == "sink.test:443"
    with pytest.raises(InvalidRequestError):
        host_of("http://sink.test/", settings(), by_operator=True)
    assert host_of("http://sink.test/", settings(allow_http=True), by_operator=True)


def test_a_header_is_read_only_where_callbacks_are_configured():
    url = "https://hooks.example.com/"
    assert callback_of(None, DeliveriesSettings()) == ""
    assert callback_of(url, settings()) == url
    with pytest.raises(InvalidRequestError, match="hosts is empty"):
        callback_of(url, DeliveriesSettings())
    with pytest.raises(InvalidRequestError):
        callback_of("", settings())


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("127.8.9.10", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.0.2.1", False),
        ("224.0.0.1", False),
        ("233.252.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("::ffff:0:127.0.0.1", False),
    ],
)
def test_only_public_addresses_are_gone_to(address: str, *, is_public: bool):
    assert may_go_to(ip_address(address), ()) is is_public


def test_configured_networks_are_gone_to_as_well():
    private = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert may_go_to(ip_address("10.1.2.3"), private)
    assert may_go_to(ip_address("::ffff:10.1.2.3"), private)
    assert may_go_to(ip_address("fd00::1"), private)
    assert not may_go_to(ip_address("10.2.0.1"), private)
    assert may_go_to(ip_address("8.8.8.8"), private)


def test_the_guard_judges_the_address_that_is_connected_to():
    guard = Guard((ip_network("10.0.0.0/8"),))
    guard((2, 1, 6, "", ("10.0.0.1", 443))).close()
    for where in (("127.0.0.1", 443), ("fe80::1%eth0", 443, 0, 2)):
        with pytest.raises(NotAllowedError):
            guard((10 if ":" in where[0] else 2, 1, 6, "", where))
