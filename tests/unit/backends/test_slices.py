"""EndpointSlices to addresses, by tables."""

from typing import Any

import pytest

from router.backends.pool.slices import SliceBook
from tests.fakes.kubernetes_api import endpoint, slice_of


def urls(port: str, *slices: dict[str, Any]) -> list[str]:
    book = SliceBook("m", port)
    book.replace(slices)
    return [address.url for address in book.targets().values()]


A = endpoint("10.0.0.1", "a")
TWO_PORTS = [{"name": "grpc", "port": 9000}, {"name": "http", "port": 8000}]


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("", ["http://10.0.0.1:9000"]),
        ("http", ["http://10.0.0.1:8000"]),
        ("8000", ["http://10.0.0.1:8000"]),
        ("metrics", []),
    ],
    ids=["the first", "by name", "by number", "there is no such port"],
)
def test_the_port(port: str, expected: list[str]):
    assert urls(port, slice_of("s", A) | {"ports": TWO_PORTS}) == expected


@pytest.mark.parametrize(
    ("conditions", "takes_requests"),
    [
        ({}, True),
        ({"ready": None}, True),
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": True, "terminating": True}, False),
    ],
)
def test_the_conditions(conditions: dict[str, Any], takes_requests: bool):
    found = {"addresses": ["10.0.0.1"], "conditions": conditions}
    assert bool(urls("", slice_of("s", found))) == takes_requests


def test_an_ipv6_address_is_bracketed():
    found = slice_of("s", endpoint("fd00::1", "a"), addressType="IPv6")
    assert urls("", found) == ["http://[fd00::1]:8000"]


def test_a_pod_with_two_families_is_one_replica():
    six = slice_of("s6", endpoint("fd00::1", "a"), addressType="IPv6")
    assert urls("", slice_of("s4", A), six) == ["http://10.0.0.1:8000"]


@pytest.mark.parametrize(
    "found",
    [
        slice_of("s", addressType="FQDN"),
        slice_of("s", {"addresses": []}),
        slice_of("s") | {"endpoints": None},
        slice_of("s", A) | {"ports": None},
    ],
    ids=["names instead of addresses", "no address", "no endpoints", "no ports"],
)
def test_what_cannot_be_reached_is_left_out(found: dict[str, Any]):
    assert urls("", found) == []


def test_ids_tell_pods_apart_and_no_addresses():
    book = SliceBook("m", "")
    book.replace([slice_of("s", A, endpoint("10.0.0.2", "b"))])
    first, second = book.targets()
    assert first != second
    assert "10.0.0" not in first
    book.replace([slice_of("other", endpoint("10.0.0.9", "a"))])
    assert list(book.targets()) == [first], "the pod's for life"


def test_events_change_single_slices():
    book = SliceBook("m", "")
    book.apply("ADDED", slice_of("s1", A))
    book.apply("ADDED", slice_of("s2", endpoint("10.0.0.2", "b")))
    book.apply("MODIFIED", slice_of("s2", endpoint("10.0.0.3", "c")))
    assert {address.host for address in book.targets().values()} == {"10.0.0.1", "10.0.0.3"}
    book.apply("DELETED", slice_of("s1"))
    book.apply("DELETED", slice_of("never seen"))
    assert {address.host for address in book.targets().values()} == {"10.0.0.3"}


def hinted(uid: str, *zones: str, **conditions: bool) -> dict[str, Any]:
    found = endpoint(f"10.0.0.{uid}", uid, **conditions)
    hints = {"forZones": [{"name": zone} for zone in zones]} if zones else None
    return {**found, "hints": hints}


@pytest.mark.parametrize(
    ("endpoints", "near"),
    [
        ([hinted("1", "a"), hinted("2", "b"), hinted("3", "a", "b")], {"1", "3"}),
        ([hinted("1", "a"), hinted("2")], {"1", "2"}),
        ([hinted("1", "b"), hinted("2", "b")], {"1", "2"}),
        ([hinted("1", "a"), hinted("2", ready=False)], {"1"}),
        ([], set()),
    ],
    ids=["as suggested", "one has no hint", "none for the zone", "who is not ready", "nobody"],
)
def test_who_is_near(endpoints: list[dict[str, Any]], near: set[str]):
    book = SliceBook("m", "http")
    book.replace([slice_of("s", *endpoints)])
    hosts = {id_: address.host for id_, address in book.targets().items()}
    assert {hosts[id_] for id_ in book.near("a")} == {f"10.0.0.{uid}" for uid in near}
