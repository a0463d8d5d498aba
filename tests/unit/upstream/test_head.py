import pytest

from router.domain.errors import InvalidRequestError
from router.upstream.head import build_head


def test_writes_line_host_headers_and_length():
    head = build_head("POST", "/v2/m?x=%20", "h:1", [("A", "b"), ("c", "")], 5)
    assert head == (
        b"POST /v2/m?x=%20 HTTP/1.1\r\nHost: h:1\r\nA: b\r\nc: \r\nContent-Length: 5\r\n\r\n"
    )


def test_a_host_of_the_caller_replaces_the_address():
    head = build_head("GET", "/", "h:1", [("host", "model.example")], 0)
    assert head == b"GET / HTTP/1.1\r\nhost: model.example\r\n\r\n"


@pytest.mark.parametrize("name", ["Content-Length", "content-length"])
def test_the_length_is_always_ours(name):
    head = build_head("POST", "/", "h", [(name, "999")], 3)
    assert head.lower().count(b"content-length") == 1
    assert b"Content-Length: 3\r\n" in head


@pytest.mark.parametrize(
    ("method", "body_bytes", "has_length"),
    [("GET", 0, False), ("HEAD", 0, False), ("GET", 2, True), ("POST", 0, True), ("PUT", 0, True)],
)
def test_an_empty_body_is_announced_where_one_is_expected(method, body_bytes, has_length):
    assert (b"Content-Length" in build_head(method, "/", "h", [], body_bytes)) is has_length


@pytest.mark.parametrize(
    ("value", "wire"),
    [("caf\u00e9", b"caf\xc3\xa9"), ("raw\udcff", b"raw\xff"), ("a\tb", b"a\tb")],
)
def test_values_keep_their_bytes(value, wire):
    assert b"x: " + wire + b"\r\n" in build_head("GET", "/", "h", [("x", value)], 0)


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        pytest.param("GE T", "/", [], id="space in method"),
        pytest.param("", "/", [], id="empty method"),
        pytest.param("GET\r\nX: y", "/", [], id="crlf in method"),
        pytest.param("GET\n", "/", [], id="newline at the end of the method"),
        pytest.param("GET", "/a b", [], id="space in target"),
        pytest.param("GET", "/a\r\nX: y", [], id="crlf in target"),
        pytest.param("GET", "/a\n", [], id="newline at the end of the target"),
        pytest.param("GET", "/a\0", [], id="nul in target"),
        pytest.param("GET", "/\u00e9", [], id="non-ascii target"),
        pytest.param("GET", "", [], id="empty target"),
        pytest.param("GET", "http://other/", [], id="absolute target"),
        pytest.param("GET", "/", [("", "x")], id="empty name"),
        pytest.param("GET", "/", [("a b", "x")], id="space in name"),
        pytest.param("GET", "/", [("a:", "x")], id="colon in name"),
        pytest.param("GET", "/", [("a\r\nb", "x")], id="crlf in name"),
        pytest.param("GET", "/", [("a\n", "x")], id="newline at the end of a name"),
        pytest.param("GET", "/", [("\u00e4", "x")], id="non-ascii name"),
        pytest.param("GET", "/", [("a", "x\r\ny: z")], id="crlf in value"),
        pytest.param("GET", "/", [("a", "x\ny")], id="lf in value"),
        pytest.param("GET", "/", [("a", "x\ry")], id="cr in value"),
        pytest.param("GET", "/", [("a", "x\0")], id="nul in value"),
        pytest.param("GET", "/", [("a", "\ud800")], id="lone surrogate"),
        pytest.param("GET", "/", [("Host", "a"), ("host", "b")], id="two hosts"),
        pytest.param("GET", "/", [("host", "a\r\nb")], id="crlf in host"),
        pytest.param("POST", "/", [("Transfer-Encoding", "chunked")], id="transfer-encoding"),
        pytest.param("POST", "/", [("Connection", "close")], id="connection"),
        pytest.param("POST", "/", [("Upgrade", "h2c")], id="upgrade"),
        pytest.param("POST", "/", [("Proxy-Authorization", "x")], id="proxy header"),
    ],
)
def test_refuses_what_could_smuggle(method, target, headers):
    with pytest.raises(InvalidRequestError):
        build_head(method, target, "h", headers, 0)
