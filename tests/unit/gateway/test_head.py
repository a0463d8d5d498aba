from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from router.domain.decision import Backend
from router.domain.errors import InvalidRequestError, LoopDetectedError, UnsupportedMediaError
from router.gateway.head import read_head

OURS = {"via": "1.1 hybrid-router"}


def read(*headers, keys_are_ours=False) -> Any:
    return read_head(CIMultiDictProxy(CIMultiDict(headers)), keys_are_ours=keys_are_ours)


@pytest.mark.parametrize(
    "name",
    ["Host", "Content-Length", "Expect", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade",
     "Transfer-Encoding", "Proxy-Authorization", "Proxy-Connection", "X-Router-Backend",
     "X-Router-Deadline-Ms"],
)  # fmt: skip
def test_headers_of_this_hop_stay_here(name):
    value = {"X-Router-Backend": "pool", "X-Router-Deadline-Ms": "5"}.get(name, "x")
    assert read((name, value), ("X-Other", "1")).headers == {"x-other": "1"} | OURS


def test_headers_named_in_connection_stay_here_too():
    head = read(("Connection", "close, X-Mine"), ("X-Mine", "1"), ("X-Other", "2"))
    assert head.headers == {"x-other": "2"} | OURS


def test_names_are_lower_case_and_repeated_values_are_joined():
    assert read(("X-A", "1"), ("x-a", "2")).headers == {"x-a": "1, 2"} | OURS


@pytest.mark.parametrize(
    ("headers", "is_text"),
    [
        ([], True),
        ([("Content-Encoding", "identity")], True),
        ([("Content-Encoding", "GZIP")], False),
        ([("Content-Encoding", "deflate")], False),
        ([("inference-header-content-length", "10")], False),
    ],
    ids=["plain", "identity", "gzip", "deflate", "binary tensors"],
)
def test_what_a_function_takes_without_base64(headers, is_text):
    assert read(*headers).is_text is is_text


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Encoding", "br")],
        [("Content-Encoding", "gzip, gzip")],
        [("Content-Type", "text/html")],
        [("Content-Type", "multipart/form-data; boundary=x")],
        [("Content-Type", "x" * 5000)],
    ],
)
def test_unsupported_media(headers):
    with pytest.raises(UnsupportedMediaError) as caught:
        read(*headers)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("given", "forwarded"),
    [
        ("application/json; charset=utf-8", "application/json; charset=utf-8"),
        ("application/octet-stream", None),
        ("application/x-www-form-urlencoded", None),
        ("", None),
    ],
    ids=["json", "what Triton's async client says of JSON", "what curl says of anything", "empty"],
)
def test_content_types(given, forwarded):
    assert read(("Content-Type", given)).headers.get("content-type") == forwarded


@pytest.mark.parametrize(
    ("charset", "is_taken"),
    [("utf-8", True), ('"UTF-8"', True), ("us-ascii", True), ("utf-7", False), ("utf-16", False)],
)
def test_json_is_utf_8(charset, is_taken):
    header = ("Content-Type", f"application/json; a=b; Charset={charset}")
    if is_taken:
        assert read(header).headers["content-type"] == header[1]
    else:
        with pytest.raises(UnsupportedMediaError, match="UTF-8"):
            read(header)


def test_a_coding_is_what_goes_on_of_it():
    with pytest.raises(UnsupportedMediaError, match="identity, gzip"):
        read(("Content-Encoding", "identity"), ("Content-Encoding", "gzip"))
    gzip = ("Content-Encoding", "gzip")
    assert not read(gzip).is_text
    assert read(gzip, ("Connection", "content-encoding")).is_text


def test_binary_tensors_are_binary():
    binary = ("Content-Type", "application/octet-stream")
    headers = read(binary, ("Inference-Header-Content-Length", "2")).headers
    assert headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1", "abc-1"), ("x" * 128, "x" * 128), ("x" * 129, None), ("a b", None), ("ü", None)],
    ids=["plain", "longest", "too long", "with a space", "not ASCII"],
)
def test_request_ids(given, kept):
    assert read(("X-Request-Id", given)).request_id == kept


@pytest.mark.parametrize(
    ("given", "milliseconds"), [("250", 250.0), ("0.5", 0.5), ("86400000", 86_400_000.0)]
)
def test_deadlines(given, milliseconds):
    assert read(("X-Router-Deadline-Ms", given)).deadline_ms == milliseconds


@pytest.mark.parametrize(
    "given", ["0", "-1", "soon", "1e3", "nan", "inf", "", "86400001", "9" * 40, " 5", "\u0665"]
)
def test_deadlines_that_are_none(given):
    with pytest.raises(InvalidRequestError, match="x-router-deadline-ms"):
        read(("X-Router-Deadline-Ms", given))


def test_hints():
    assert read(("X-Router-Backend", "serverless")).hint is Backend.SERVERLESS
    assert read().hint is None
    with pytest.raises(InvalidRequestError, match="must be pool or serverless"):
        read(("X-Router-Backend", "gpu"))


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([("Authorization", "Bearer secret")], "secret"),
        ([("Authorization", "bearer  secret ")], "secret"),
        ([("Authorization", "Bearer\tsecret")], "secret"),
        ([("Authorization", "Bearer \t secret\t")], "secret"),
        ([("X-Api-Key", "secret")], "secret"),
        ([("Authorization", "Basic abc")], None),
        ([("Authorization", "Bearer ")], None),
        ([], None),
    ],
    ids=[
        "bearer",
        "in any case",
        "a tab",
        "both",
        "x-api-key",
        "another scheme",
        "no token",
        "nothing",
    ],
)
def test_keys_that_are_ours_are_read_and_not_passed_on(headers, key):
    head = read(*headers, keys_are_ours=True)
    assert head.key == key
    assert head.headers == OURS


def test_keys_that_are_not_ours_travel_on_unread():
    head = read(("Authorization", "Bearer secret"))
    assert head.key is None
    assert head.headers == {"authorization": "Bearer secret"} | OURS


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ([], "1.1 hybrid-router"),
        (["1.1 nginx"], "1.1 nginx, 1.1 hybrid-router"),
        (["1.0 a (b)", "HTTP/1.1 c:80"], "1.0 a (b), HTTP/1.1 c:80, 1.1 hybrid-router"),
        (["1.1 hybrid-router"], "1.1 hybrid-router, 1.1 hybrid-router"),
        ([" , x"], ", x, 1.1 hybrid-router"),
    ],
    ids=["none before", "another", "several", "one of the same kind", "nonsense"],
)
def test_the_way_of_a_request(given, sent):
    via = read(*(("Via", value) for value in given)).headers["via"]
    assert via.replace(" ,", ",").strip() == sent


@pytest.mark.parametrize(
    "given",
    [
        ["1.1 hybrid-router, 1.1 hybrid-router"],
        ["1.1 hybrid-router", "1.1 other,1.0 Hybrid-Router (x)"],
        ["1.1 a, " * 16 + "1.1 b"],
    ],
    ids=["twice", "twice in several lines", "too many others"],
)
def test_a_way_that_leads_in_circles(given):
    with pytest.raises(LoopDetectedError):
        read(*(("Via", value) for value in given))
