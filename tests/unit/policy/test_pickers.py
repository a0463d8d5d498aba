from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from router.policy.pickers import least_loaded, nearest_first, sticky


@dataclass
class Spot:
    id: str
    load: float
    is_near: bool = True


def spots(*loads) -> Any:
    return [Spot(f"e{number}", load) for number, load in enumerate(loads)]


@pytest.mark.parametrize(
    ("loads", "picked"),
    [
        ((), None),
        ((0.5, 0.25, 0.75), "e1"),
        ((1.0, 0.75), "e1"),
        ((1.0, 1.0), None),
        ((1.5,), None),
        ((1.0,) * 20 + (0.5,), "e20"),
        ((1.0,) * 20, None),
    ],
    ids=[
        "nobody there",
        "the least loaded",
        "the one with room",
        "all full",
        "overfull by peers",
        "the only free one of many is found",
        "all of many are full",
    ],
)
def test_least_loaded(loads, picked):
    for seed in range(5):
        found = least_loaded(spots(*loads), Random(seed))
        assert (found.id if found else None) == picked


def test_large_pools_are_sampled_and_still_balanced():
    endpoints = spots(*[0.0] * 32)
    rng = Random(7)
    for _ in range(3200):
        found = least_loaded(endpoints, rng)
        assert found is not None
        found.load += 1 / 1000
    loads = [round(endpoint.load * 1000) for endpoint in endpoints]
    assert max(loads) - min(loads) <= 12, "two choices keep the spread small"


def test_a_key_stays_with_its_endpoint():
    endpoints = spots(0.9, 0.5, 0.0, 0.3)
    first = sticky(endpoints, "sequence-1", Random(1))
    assert all(sticky(endpoints, "sequence-1", Random(n)) is first for n in range(10))


def test_keys_spread_over_the_endpoints():
    endpoints = spots(0, 0, 0, 0)
    owners: Counter[str] = Counter()
    for number in range(1000):
        owner = sticky(endpoints, f"s{number}", Random(1))
        assert owner is not None
        owners[owner.id] += 1
    assert min(owners.values()) > 150


def test_when_an_endpoint_goes_only_its_own_keys_move():
    endpoints = spots(0, 0, 0, 0)
    keys = [f"s{number}" for number in range(200)]
    before = {key: sticky(endpoints, key, Random(1)) for key in keys}
    gone = endpoints.pop(2)
    for key, owner in before.items():
        if owner is not gone:
            assert sticky(endpoints, key, Random(1)) is owner


def test_a_full_owner_gives_way_to_the_least_loaded():
    endpoints = spots(0.25, 0.25, 0.0)
    owner = sticky(endpoints, "s", Random(1))
    assert owner is not None
    owner.load = 1.0
    second = sticky(endpoints, "s", Random(1))
    assert second is not None
    assert second is not owner
    assert second.load == min(endpoint.load for endpoint in endpoints)


@pytest.mark.parametrize(
    ("near", "far", "picked"),
    [
        ((0.5, 0.7), (0.0,), "near0"),
        ((1.0, 1.0), (0.9,), "far0"),
        ((1.0,), (1.0,), None),
        ((), (0.5, 0.2), "far1"),
    ],
    ids=["nearby though busier", "nearby is full", "all full", "nobody nearby"],
)
def test_those_nearby_go_first_while_they_have_room(near, far, picked):
    endpoints = [Spot(f"near{n}", load) for n, load in enumerate(near)]
    endpoints += [Spot(f"far{n}", load, is_near=False) for n, load in enumerate(far)]
    found = nearest_first(endpoints, Random(1))
    assert (found.id if found else None) == picked
