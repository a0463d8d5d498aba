"""Who is set aside, told from made-up paces."""

from dataclasses import dataclass
from typing import Any

import pytest

from router.admission.outliers import (
    Answered,
    OutlierParams,
    Pace,
    erring_ones,
    in_rotation,
    may_set_aside,
    pace_of,
    panics,
    slow_ones,
)

PARAMS = OutlierParams(slower_by=3.0, least_excess_s=0.02, max_share=0.5)


@dataclass
class Told:
    """A member that is what it is told to be."""

    name: str
    failing: bool = False
    slow: bool = False
    load: float = 0.0

    def is_failing(self, now) -> bool:
        return self.failing

    def is_slow(self, now) -> bool:
        return self.slow


def members(text) -> list[Any]:
    """`g` good, `G` good and full, `f` failing, `s` slow."""
    return [
        Told(f"{kind}{n}", kind == "f", kind == "s", load=float(kind == "G"))
        for n, kind in enumerate(text)
    ]


def paces(*ratios, usual_s=0.1) -> Any:
    return {f"e{n}": Pace(ratio, usual_s) for n, ratio in enumerate(ratios)}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(paces(1, 1, 1, 9), ["e3"], id="one is far slower than its peers"),
        pytest.param(paces(1, 9), ["e1"], id="with one peer the slower one is it"),
        pytest.param(paces(1, 7, 1, 9), ["e3", "e1"], id="the slowest comes first"),
        pytest.param(paces(9, 9, 9, 1), [], id="a slow majority is what is usual"),
        pytest.param(paces(9), [], id="alone there is nothing to compare with"),
        pytest.param({}, [], id="nobody"),
        pytest.param(paces(1, 1, 2.9), [], id="slower, but not far"),
        pytest.param(paces(1, 1, 9, usual_s=0.001), [], id="milliseconds are jitter"),
    ],
)
def test_the_slow_ones_are_those_far_from_their_peers(found, expected):
    assert slow_ones(found, PARAMS) == expected


def test_zero_turns_the_comparison_off():
    assert slow_ones(paces(1, 1, 99), OutlierParams(slower_by=0)) == []


def test_a_pace_tells_large_requests_from_slow_endpoints():
    large = [(1.0, 1.0)] * 15 + [(0.01, 0.01)] * 5
    small = [(0.01, 0.01)] * 20
    assert pace_of(large).ratio == pace_of(small).ratio == 1.0
    assert pace_of(large).usual_s == 1.0


@pytest.mark.parametrize(
    ("count", "aside", "more"),
    [(4, 0, 2), (4, 1, 1), (4, 3, 0), (3, 0, 1), (2, 0, 1), (1, 0, 0), (0, 0, 0)],
)
def test_no_more_than_the_largest_share_may_be_set_aside(count, aside, more):
    assert may_set_aside(count, aside, PARAMS) == more


@pytest.mark.parametrize(
    ("kinds", "is_last_resort", "used", "is_panic"),
    [
        ("gggg", True, "gggg", False),
        ("ggfs", True, "gg", False),
        ("gffs", True, "g", True),
        ("Gffs", True, "Gs", True),
        ("gGff", True, "gG", False),
        ("GGfff", True, "GG", False),
        ("gGfff", True, "g", False),
        ("Gffs", False, "Gs", True),
        ("ffff", True, "ffff", True),
        ("ffff", False, "", False),
        ("gs", False, "g", False),
        ("s", False, "s", True),
        ("f", True, "f", True),
        ("f", False, "", False),
        ("", True, "", False),
    ],
)
def test_who_takes_traffic(kinds, is_last_resort, used, is_panic):
    found = members(kinds)
    rotation = in_rotation(found, PARAMS, 0.0, is_last_resort=is_last_resort)
    assert "".join(member.name[0] for member in rotation) == used
    assert panics(found, PARAMS, 0.0, is_last_resort=is_last_resort) is is_panic


def answered(*counts: tuple[int, dict[str, int]]) -> dict[str, Answered]:
    return {f"e{n}": Answered(good, errors) for n, (good, errors) in enumerate(counts)}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(answered((0, {"a": 20}), (30, {})), ["e0"], id="errors for everybody"),
        pytest.param(answered((0, {"a": 10, "b": 10}), (9, {"a": 1})), ["e0"], id="to two callers"),
        pytest.param(answered((0, {"a": 19}), (30, {})), [], id="too few to be sure"),
        pytest.param(answered((0, {"a": 20})), [], id="alone there is nothing to compare with"),
        pytest.param(answered((0, {"a": 30}), (0, {"a": 20})), [], id="the same everywhere"),
        pytest.param(
            answered((0, {"a": 40}), (0, {"a": 5})), [], id="only this caller asks at all"
        ),
        pytest.param(answered((20, {"a": 20}), (30, {})), [], id="half of them is not everybody"),
        pytest.param(
            answered((2, {"a": 60}), (30, {"a": 58})), [], id="one that errs elsewhere too"
        ),
        pytest.param(
            answered((1, {"a": 60, "b": 19, "c": 9}), (90, {"a": 58})),
            ["e0"],
            id="others are witnesses beside it",
        ),
        pytest.param(
            answered((0, {"a": 50}), (0, {"a": 60}), (90, {})), [], id="a majority is what is usual"
        ),
        pytest.param(
            answered((2, {"a": 50}), (0, {"a": 60}), (90, {}), (70, {})),
            ["e1", "e0"],
            id="the worst comes first",
        ),
    ],
)
def test_who_answers_errors_where_the_others_do_not(found, expected):
    assert erring_ones(found) == expected
