import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.signals.records import (
    MAX_FIELD_BYTES,
    Publication,
    RecordError,
    decode,
    encode,
    gateway_id,
)
from router.signals.snapshot import CanaryWord, ModelTotals, SharedEndpoint

TOTALS = {"arrivals": 1, "work_s": 1.5, "serverless_usd": 0.1, "captive": 0, "captive_work_s": 0}
ENDPOINT: dict[str, object] = {"id": "e1", "url": "http://10.0.0.1:8000", "concurrency": 4}
ODD_ENDPOINTS: dict[str, dict[str, object]] = {
    "zero slots": {"concurrency": 0},
    "absurd concurrency": {"concurrency": 10**9},
    "a file address": {"url": "file:///etc/passwd"},
    "an address with credentials": {"url": "http://user:secret@10.0.0.1"},
    "an address with a line break": {"url": "http://10.0.0.1\r\nx-evil: 1"},
    "an address that ends in a line break": {"url": "http://10.0.0.1\n"},
    "an address with a query": {"url": "http://10.0.0.1/?a=b"},
    "a socket of somebody else": {"url": "unix:/var/run/docker.sock"},
    "a socket behind a way up": {
        "url": "unix:/tmp/../var/run/hybrid-router-a/0123456789abcdef.sock"
    },
    "a huge address": {"url": "http://" + "a" * 600},
    "an id with a line break": {"id": "e1\r\nset-cookie: a"},
    "an empty id": {"id": ""},
}


CANARY = {"canary": "0123456789abcdef", "term": 2, "is_out": True}


def fields(**overrides: object) -> dict[bytes, bytes]:
    valid: dict[str, object] = {
        "totals": {"m": TOTALS},
        "endpoints": {"m": [ENDPOINT]},
        "in_flight": {"e1": 3},
        "canaries": {"r": CANARY},
    }
    merged = valid | overrides
    return {
        name.encode(): value if isinstance(value, bytes) else json.dumps(value).encode()
        for name, value in merged.items()
    }


def test_a_valid_record_is_believed_and_its_endpoints_get_its_owner() -> None:
    record = decode("gw-2", fields())

    assert record.totals == {"m": ModelTotals(1, 1.5, 0.1, 0, 0.0)}
    assert record.endpoints == {"m": (SharedEndpoint("e1", "http://10.0.0.1:8000", 4, "gw-2"),)}
    assert record.in_flight == {"e1": 3}
    assert record.canaries == {"r": CanaryWord("0123456789abcdef", 2, True)}


def test_an_earlier_release_says_nothing_about_canaries() -> None:
    earlier = fields()
    del earlier[b"canaries"]

    assert decode("gw-2", earlier).canaries == {}


def test_fields_of_a_later_release_are_ignored() -> None:
    later = fields(totals={"m": TOTALS | {"novel": [1]}}, novel={"a": 1})

    assert decode("gw-2", later) == decode("gw-2", fields())


def test_the_fields_are_json_objects_that_a_person_can_read() -> None:
    own = SharedEndpoint("e1", "http://10.0.0.1:8000", 4, "gw-1")
    word = CanaryWord("0123456789abcdef", 2, True)
    totals = {"m": ModelTotals(1, 1.5, 0.1, 0, 0)}
    written = encode(Publication(totals, {"m": [own]}, {"e1": 3}, {"k": 7}, {"r": word}))

    assert {name: json.loads(value) for name, value in written.items()} == {
        "totals": {"m": TOTALS},
        "endpoints": {"m": [ENDPOINT]},
        "in_flight": {"e1": 3},
        "taken": {"k": 7},
        "canaries": {"r": CANARY},
    }


def test_an_earlier_release_says_nothing_of_rates() -> None:
    assert decode("gw-2", fields()).taken == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param({"totals": b"{"}, "totals", id="truncated JSON"),
        pytest.param({"totals": b"\xff\xfe"}, "totals", id="bytes that are not text"),
        pytest.param({"totals": b'{"\xff": {}}'}, "totals", id="a name that is not text"),
        pytest.param({"totals": b"[" * 100_000}, "totals", id="deep nesting"),
        pytest.param({"totals": []}, "totals", id="a list for an object"),
        pytest.param({"totals": {"m": 3}}, "totals", id="a number for totals"),
        pytest.param({"totals": {"": TOTALS}}, "totals", id="a model without a name"),
        pytest.param({"totals": {"m" * 257: TOTALS}}, "totals", id="a model with a huge name"),
        pytest.param({"totals": {"m": {"arrivals": 1}}}, "totals", id="missing counters"),
        pytest.param({"totals": {"m": TOTALS | {"arrivals": -1}}}, "totals", id="negative count"),
        pytest.param({"totals": {"m": TOTALS | {"arrivals": 2**60}}}, "totals", id="absurd count"),
        pytest.param({"totals": {"m": TOTALS | {"arrivals": True}}}, "totals", id="boolean count"),
        pytest.param({"totals": {"m": TOTALS | {"work_s": 1e30}}}, "totals", id="absurd work"),
        pytest.param({"totals": b'{"m": NaN}'}, "totals", id="not a number"),
        pytest.param(
            {"totals": b'{"m": "' + b"x" * MAX_FIELD_BYTES + b'"}'}, "bytes", id="huge field"
        ),
        pytest.param({"endpoints": {"m": {}}}, "endpoints", id="an object for endpoints"),
        *(
            pytest.param({"endpoints": {"m": [ENDPOINT | change]}}, "endpoints", id=name)
            for name, change in ODD_ENDPOINTS.items()
        ),
        pytest.param({"in_flight": {"e1": -1}}, "in_flight", id="negative in-flight"),
        pytest.param({"in_flight": {"e1": 10**12}}, "in_flight", id="absurd in-flight"),
        pytest.param({"in_flight": {"e1": 1.5}}, "in_flight", id="fractional in-flight"),
        pytest.param({"in_flight": {"e 1": 1}}, "in_flight", id="in-flight of an odd id"),
        pytest.param({"canaries": {"r": CANARY | {"term": -1}}}, "canaries", id="negative term"),
        pytest.param({"canaries": {"r": CANARY | {"canary": "x"}}}, "canaries", id="odd digest"),
        pytest.param({"canaries": {"r": CANARY | {"is_out": 1}}}, "canaries", id="odd truth"),
    ],
)
def test_a_wrong_record_is_refused_whole(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        decode("gw-2", fields(**overrides))


@pytest.mark.parametrize("missing", ["totals", "endpoints", "in_flight"])
def test_a_record_without_a_field_is_refused(missing: str) -> None:
    incomplete = fields()
    del incomplete[missing.encode()]

    with pytest.raises(RecordError, match=f"{missing}: missing"):
        decode("gw-2", incomplete)


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1:8000", "https://worker-1.ml.svc:443/base", "http://[::1]:80", "http://a_b"],
)
def test_plain_base_addresses_are_accepted(url: str) -> None:
    record = decode("gw-2", fields(endpoints={"m": [ENDPOINT | {"url": url}]}))

    assert record.endpoints["m"][0].url == url


@pytest.mark.parametrize("member", [b"", b"a b", b"a\n", b"x" * 129, b"\xff", b"a/b"])
def test_members_that_are_not_ids_are_refused(member: bytes) -> None:
    with pytest.raises(RecordError, match="gateway id"):
        gateway_id(member)


def test_a_member_that_is_an_id_is_text() -> None:
    assert gateway_id(b"host-1:80@a.b_c") == "host-1:80@a.b_c"


COUNTS = st.integers(0, 2**53)
AMOUNTS = st.floats(0, 1e15)
TOTALS_VALUES = st.builds(ModelTotals, COUNTS, AMOUNTS, AMOUNTS, COUNTS, AMOUNTS)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
IDS = st.from_regex(r"\A[a-z0-9-]{1,20}\Z")
ENDPOINTS = st.builds(
    SharedEndpoint, IDS, st.just("http://10.0.0.1:80"), st.integers(1, 100), st.just("gw")
)


@given(
    st.dictionaries(NAMES, TOTALS_VALUES, max_size=5),
    st.dictionaries(NAMES, st.lists(ENDPOINTS, min_size=1, max_size=3), max_size=3),
    st.dictionaries(IDS, st.integers(0, 1_000_000), max_size=5),
    st.dictionaries(NAMES, st.integers(0, 2**53), max_size=5),
)
def test_what_one_gateway_writes_another_reads(
    totals: dict[str, ModelTotals],
    endpoints: dict[str, list[SharedEndpoint]],
    in_flight: dict[str, int],
    taken: dict[str, int],
) -> None:
    written = encode(Publication(totals, endpoints, in_flight, taken))
    record = decode("gw", {name.encode(): value for name, value in written.items()})

    assert record.totals == totals
    assert record.endpoints == {model: tuple(found) for model, found in endpoints.items()}
    assert record.in_flight == in_flight
    assert record.taken == taken


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_record_error(raw: bytes) -> None:
    for name in ("totals", "endpoints", "in_flight", "taken", "canaries"):
        try:
            decode("gw", fields(**{name: raw}))
        except RecordError:
            continue
