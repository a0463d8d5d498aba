"""Which lines of a head decide, which pass, and which heads are none of the shortcut's."""

from typing import TypeVar

import pytest

from router.gateway.shortcut.known_heads import MAX_HEAD_BYTES, KnownHeads

LINES = (b"Host: gateway", b"Content-Type: application/json", b"Content-Length: 7")
TRACE = b"traceparent: 00-%032x-%016x-01"


T = TypeVar("T")


def head(*lines: bytes, path: bytes = b"/v2/models/m/infer") -> bytes:
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", *LINES, *lines, b"", b""])


def known() -> KnownHeads[str]:
    heads: KnownHeads[str] = KnownHeads(["x-priority"])
    found = heads.sort(head())
    assert found is not None
    heads.remember(found, "m")
    return heads


def looked_up(heads: KnownHeads[T], data: bytes) -> T | None:
    found = heads.sort(data)
    return None if found is None else heads.get(found)


@pytest.mark.parametrize(
    "line",
    [
        TRACE % (1, 2),
        b"x-request-id: r-1",
        b"X-Request-Id:r-1 ",
        b"x-router-deadline-ms: 250",
        b"user-agent: python-httpx/0.28.1",
        b"Accept: */*",
        b"cookie: a=b; c=d",
        b"x-anything: caf\xc3\xa9",
        b"x-empty:",
    ],
)
def test_lines_that_decide_nothing_leave_a_head_known(line):
    assert looked_up(known(), head(line)) == "m"


@pytest.mark.parametrize(
    "line",
    [
        b"authorization: Bearer k",
        b"x-api-key: k",
        b"X-Priority: bulk",
        b"x-router-backend: pool",
        b"content-encoding: gzip",
        b"inference-header-content-length: 7",
        b"transfer-encoding: chunked",
        b"connection: close",
        b"expect: 100-continue",
        b"upgrade: h2c",
        b"proxy-authorization: x",
        b"te: trailers",
        b"via: 1.1 other",
        b"host: another",
    ],
)
def test_lines_that_decide_make_another_head(line):
    assert looked_up(known(), head(line)) is None


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"content-length: 7"], id="two lengths"),
        pytest.param([b"x-request-id: a", b"x-request-id: b"], id="two ids"),
        pytest.param([b"user-agent: a", b"User-Agent: a"], id="two agents"),
        pytest.param([b"x-router-deadline-ms: 1", b"x-router-deadline-ms: 2"], id="two deadlines"),
        pytest.param([b"x-router-deadline-ms: soon"], id="no deadline"),
        pytest.param([b"x-router-deadline-ms: 0"], id="passed"),
        pytest.param([b" folded"], id="a folded line"),
        pytest.param([b"\tfolded"], id="a line folded by a tab"),
        pytest.param([b"no colon"], id="no colon"),
        pytest.param([b"name : value"], id="a blank before the colon"),
        pytest.param([b": value"], id="no name"),
        pytest.param([b"x-a: b\rc"], id="a bare return"),
        pytest.param([b"x-a: b\nc: d"], id="a bare line feed"),
        pytest.param([b"x-a: \x00"], id="a nul"),
        pytest.param([b"x-a: \x7f"], id="a delete"),
        pytest.param([b"x-\xe9: b"], id="a name that is no token"),
        pytest.param([b"x-%d: b" % n for n in range(70)], id="too many lines"),
        pytest.param([b"x-a: " + b"b" * MAX_HEAD_BYTES], id="too long"),
    ],
)
def test_what_is_special_is_left_to_the_parser(lines):
    heads = known()
    assert looked_up(heads, head()) == "m"
    assert heads.sort(head(*lines)) is None


@pytest.mark.parametrize("length", [b"", b"x", b"-1", b"+7", b"7 7", b"0x7", b"7" * 16, b"\xb2"])
def test_a_length_is_digits(length):
    data = head().replace(b"Content-Length: 7", b"Content-Length: " + length)
    assert known().sort(data) is None


def test_a_head_without_a_length_is_special():
    assert known().sort(head().replace(b"Content-Length: 7\r\n", b"")) is None


def test_half_a_head_is_none():
    assert known().sort(head()[:-2]) is None


def test_what_is_a_requests_own_is_read():
    lines = [
        b"X-Request-Id: \tr-1 ",
        b"x-router-deadline-ms: 12.5",
        b"accept: */*",
        b"User-Agent: u",
    ]
    data = head(b"tracestate: a=b", *lines, TRACE % (3, 4))
    found = known().sort(data + b"{body..")
    assert found is not None
    assert (found.start, found.body_bytes) == (len(data), 7)
    assert (found.request_id, found.deadline_ms) == (b"r-1", 12.5)
    assert found.passing == b"accept: */*\r\nUser-Agent: u\r\n"
    assert found.trace == TRACE % (3, 4) + b"\r\ntracestate: a=b\r\n"


@pytest.mark.parametrize("given", [b"", b"a b", b"\xc3\xa9", b"x" * 129])
def test_an_id_that_cannot_be_used_is_none(given):
    found = known().sort(head(b"x-request-id: " + given))
    assert found is not None
    assert found.request_id is None


def test_that_a_body_has_tensors_decides_and_how_long_its_json_is_does_not():
    heads = known()
    one, other = (
        heads.sort(head(b"Inference-Header-Content-Length: %d" % size)) for size in (5, 6)
    )
    assert one is not None
    assert other is not None
    assert one.key == other.key
    assert looked_up(heads, head(b"inference-header-content-length: 7")) is None
    assert other.passing == b"Inference-Header-Content-Length: 6\r\n"


class TestMemory:
    def test_it_is_bounded_whatever_clients_send(self):
        heads: KnownHeads[int] = KnownHeads()
        for number in range(20_000):
            lines = [TRACE % (number, number), b"x-own-%d: %d" % (number, number)]
            found = heads.sort(head(*lines, path=b"/v2/models/%d/infer" % number))
            assert found is not None
            heads.remember(found, number)
        assert len(heads._heads) == 2048
        assert len(heads._lines) <= 256 * 16
        assert len(heads._values) <= len(heads._names) <= 256

    def test_the_latest_heads_are_kept(self):
        heads: KnownHeads[int] = KnownHeads()
        paths = [b"/v2/models/%d/infer" % number for number in range(3_000)]
        for number, path in enumerate(paths):
            found = heads.sort(head(path=path))
            assert found is not None
            heads.remember(found, number)
        assert [looked_up(heads, head(path=path)) for path in (paths[0], paths[-1])] == [
            None,
            2_999,
        ]

    def test_lines_that_come_again_are_looked_up(self):
        heads = known()
        heads.sort(head(b"accept: */*"))
        assert heads._lines[b"accept: */*"]
        for number in range(100):
            heads.sort(head(TRACE % (number, number)))
        assert TRACE % (99, 99) not in heads._lines
