from dataclasses import replace

import pytest

from router.policy.canary import Canary, Side, Sticky, draw, side_of
from router.policy.rules import Match, Route, Rule
from tests.fakes.builders import make_request

CANARY = Canary(stable_model="m", model="m2", version=None, share=0.25)
REQUESTS = [make_request(request_id=f"gateway-{n:x}") for n in range(4000)]


def share(canary, rule="r", requests=REQUESTS):
    sides = [side_of(canary, rule, request) for request in requests]
    return sides.count(Side.CANARY) / len(sides)


@pytest.mark.parametrize("wanted", [0.0, 0.01, 0.25, 0.5, 1.0])
def test_the_canary_gets_its_share(wanted):
    # Five standard deviations of a fair draw.
    allowed = 5 * (wanted * (1 - wanted) / len(REQUESTS)) ** 0.5
    assert share(replace(CANARY, share=wanted)) == pytest.approx(wanted, abs=allowed)


def test_a_larger_share_takes_nobody_back():
    small = {r.request_id for r in REQUESTS if side_of(CANARY, "r", r) is Side.CANARY}
    larger = replace(CANARY, share=0.4)
    large = {r.request_id for r in REQUESTS if side_of(larger, "r", r) is Side.CANARY}
    assert small < large


def test_rules_draw_independently():
    both = [(draw("a", str(n)) < 0.5) == (draw("b", str(n)) < 0.5) for n in range(2000)]
    assert sum(both) / len(both) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("canary", "facts"),
    [
        (replace(CANARY, sticky=Sticky.TENANT), {"tenant": "t-{}"}),
        (replace(CANARY, sticky=Sticky.HEADER, header="x-user"), {"headers": {"x-user": "u-{}"}}),
    ],
    ids=["tenant", "header"],
)
def test_a_sticky_key_has_one_side_whatever_the_request(canary, facts):
    def sides_of(key):
        filled = {
            name: {k: v.format(key) for k, v in value.items()}
            if isinstance(value, dict)
            else value.format(key)
            for name, value in facts.items()
        }
        requests = [make_request(request_id=f"x{n}", **filled) for n in range(10)]
        return {side_of(canary, "r", request) for request in requests}

    sides = [sides_of(key) for key in range(200)]
    assert all(len(found) == 1 for found in sides)
    on_canary = sum(found == {Side.CANARY} for found in sides)
    assert 0.1 < on_canary / len(sides) < 0.4


@pytest.mark.parametrize("sticky", [Sticky.TENANT, Sticky.HEADER])
def test_without_its_key_a_request_is_drawn_alone(sticky):
    lonely = replace(CANARY, sticky=sticky, header="x-user")
    assert 0.2 < share(lonely) < 0.3


@pytest.mark.parametrize(
    ("versions", "facts", "expected"),
    [
        (frozenset(), {}, True),
        (frozenset(), {"version": "1"}, False),
        (frozenset({"1"}), {"version": "1"}, True),
        (frozenset(), {"is_inference": False}, False),
    ],
    ids=[
        "an inference",
        "a version that the client names is kept",
        "unless the rule is about versions",
        "questions about the model are not diverted",
    ],
)
def test_what_a_rule_diverts(versions, facts, expected):
    rule = Rule("r", Match(versions=versions), Route(), CANARY)
    assert rule.diverts(make_request(**facts)) is expected
    assert not Rule("r", Match(versions=versions), Route()).diverts(make_request(**facts))
