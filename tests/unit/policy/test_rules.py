import pytest

from router.domain.decision import Backend, TraceStep
from router.policy.rules import (
    IMPLICIT_DEFAULT,
    Glob,
    Match,
    Route,
    Rule,
    first_match,
    rules_for,
)
from tests.fakes.builders import make_request

POOL = Route(Backend.POOL)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("bert-*", "bert-base", True),
        ("bert-*", "my-bert-base", False),
        ("bert-?", "bert-10", False),
        ("[ab]", "b", True),
        ("Fraud", "fraud", False),
        ("m", "m\n", False),
        ("a.b", "axb", False),
        ("*", "", True),
    ],
    ids=[
        "a star matches any rest",
        "the beginning counts",
        "a question mark is one character",
        "brackets hold alternatives",
        "case counts",
        "a trailing newline is not ignored",
        "a dot is only a dot",
        "a star matches nothing too",
    ],
)
def test_globs(pattern, text, expected):
    assert Glob(pattern).matches(text) is expected


@pytest.mark.parametrize(
    ("match", "facts", "failed_on"),
    [
        (Match(), {}, None),
        (Match(models=(Glob("m"), Glob("n"))), {"model": "n"}, None),
        (Match(models=(Glob("m"),)), {"model": "x"}, "model"),
        (Match(versions=frozenset({"2"})), {"version": "2"}, None),
        (Match(versions=frozenset({"2"})), {"version": "1"}, "version"),
        (Match(versions=frozenset({"2"})), {"version": None}, "version"),
        (Match(tenants=frozenset({"nightly"})), {"tenant": "nightly"}, None),
        (Match(tenants=frozenset({"nightly"})), {"tenant": None}, "tenant"),
        (Match(min_bytes=101), {"payload_bytes": 101}, None),
        (Match(min_bytes=101), {"payload_bytes": 100}, "payload"),
        (Match(max_bytes=100), {"payload_bytes": 100}, None),
        (Match(max_bytes=100), {"payload_bytes": 101}, "payload"),
        (Match(headers=(("x-p", Glob("b*")),)), {"headers": {"x-p": "bulk"}}, None),
        (Match(headers=(("x-p", Glob("b*")),)), {"headers": {"x-p": "low"}}, "header x-p"),
        (Match(headers=(("x-p", Glob("*")),)), {"headers": {}}, "header x-p"),
    ],
    ids=[
        "an empty match always holds",
        "one of several models",
        "another model",
        "the version named",
        "another version",
        "no version where one is wanted",
        "the tenant named",
        "no tenant where one is wanted",
        "the lower bound is inclusive",
        "below the lower bound",
        "the upper bound is inclusive",
        "above the upper bound",
        "a header that fits",
        "a header with another value",
        "a header that is not there",
    ],
)
def test_conditions(match, facts, failed_on):
    assert match.failed_on(make_request(**facts)) == failed_on


def test_the_first_rule_that_matches_wins():
    first = Rule("first", Match(min_bytes=1000), POOL)
    second = Rule("second", Match(), POOL)
    third = Rule("third", Match(), POOL)
    trace: list[TraceStep] = []
    found = first_match((first, second, third), make_request(payload_bytes=10), trace)
    assert found is second
    assert trace == [
        TraceStep("rule", "first", "no match: payload"),
        TraceStep("rule", "second", "matches"),
    ]


def test_without_a_match_the_route_is_auto():
    trace: list[TraceStep] = []
    rules = (Rule("never", Match(tenants=frozenset({"t"})), POOL),)
    assert first_match(rules, make_request(), trace) is IMPLICIT_DEFAULT
    assert IMPLICIT_DEFAULT.route.wish(0.5) is None
    assert trace[-1].subject == "implicit-default"


@pytest.mark.parametrize(
    ("route", "draw", "wish"),
    [
        (Route(), 0.0, None),
        (POOL, 0.99, Backend.POOL),
        (Route(serverless_share=0.05), 0.049, Backend.SERVERLESS),
        (Route(serverless_share=0.05), 0.05, Backend.POOL),
        (Route(serverless_share=0.0), 0.0, Backend.POOL),
        (Route(serverless_share=1.0), 0.999999, Backend.SERVERLESS),
    ],
    ids=[
        "auto wishes for nothing",
        "one backend, whatever the draw",
        "a draw within the share",
        "a draw at the share",
        "a share of nothing",
        "a share of everything",
    ],
)
def test_routes(route, draw, wish):
    assert route.wish(draw) is wish


def test_rules_for_keeps_order_and_drops_only_other_models():
    rules = tuple(
        Rule(name, Match(models=globs), POOL)
        for name, globs in [("a", (Glob("x"),)), ("b", ()), ("c", (Glob("m*"),))]
    )
    assert [rule.name for rule in rules_for(rules, "m1")] == ["b", "c"]
