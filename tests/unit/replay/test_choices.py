"""What a search for better settings tries, and what it takes for better."""

import pytest

from router.domain.decision import Backend
from router.policy.rules import Match, Route, Rule
from router.replay.choices import Choice, best, sizings, thresholds
from router.replay.tally import Sums
from tests.fakes.replays import FUNCTION, make_runtime

LARGE = "rules: [{name: large, match: {payload: '>1MiB'}, route: pool}]\n"


def sums(usd: float, violations: int = 0) -> Sums:
    return Sums(requests=1000, violations=violations, compute_usd=usd)


def test_a_choice_changes_what_it_names_and_nothing_else() -> None:
    model = make_runtime(rules=LARGE).models["m"]
    assert Choice().applied(model) == model
    changed = Choice(packing=0.5, max_replicas=3, thresholds=(("large", 7),)).applied(model)
    assert model.sizing_params is not None
    assert changed.sizing_params is not None
    assert (changed.sizing_params.packing, changed.sizing_params.max_replicas) == (0.5, 3)
    assert changed.sizing_params.min_replicas == model.sizing_params.min_replicas
    assert changed.policy.rules[0].match.min_bytes == 7
    assert changed.policy.rules[1:] == model.policy.rules[1:]


@pytest.mark.parametrize(
    ("rule", "some"),
    [
        (Rule("r", Match(min_bytes=1025), Route(Backend.POOL)), [65, 257, 513, 2049, 4097]),
        (Rule("r", Match(min_bytes=1025, max_bytes=3000), Route(Backend.POOL)), [65, 513, 2049]),
        (Rule("r", Match(), Route(Backend.POOL)), []),
        (Rule("r", Match(min_bytes=1025), Route(Backend.SERVERLESS)), []),
    ],
    ids=["less and more", "not above its end", "no payload", "not to the pool"],
)
def test_thresholds_of_rules_for_large_payloads(rule: Rule, some: list[int]) -> None:
    found = thresholds(rule)
    assert set(some) <= set(found)
    assert all(size <= rule.match.max_bytes for size in found)
    assert bool(found) is bool(some)


def test_limits_go_up_to_twice_of_now_and_beyond_the_peak() -> None:
    model = make_runtime().models["m"]
    most = [choice.max_replicas for choice in sizings(model, Choice(), "max_replicas", 5.2)]
    assert most == [3, 6, 8, 16]
    kept = Choice(max_replicas=1)
    warm = [choice.min_replicas for choice in sizings(model, kept, "min_replicas", 5.2)]
    assert warm == [0, 1]
    assert all(choice.max_replicas == 1 for choice in sizings(model, kept, "packing", 5.2))


@pytest.mark.parametrize(
    "config",
    [{"pool": None}, {"pool": "{kind: static, urls: ['http://127.0.0.1:1'], service_time_ms: 9}"}],
    ids=["no pool", "somebody else's replicas"],
)
def test_there_is_no_size_to_search_where_there_is_none_to_set(config: dict[str, str]) -> None:
    model = make_runtime(serverless=FUNCTION, **config).models["m"]
    for key in ("packing", "min_replicas", "max_replicas"):
        assert sizings(model, Choice(), key, 5.0) == []


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ([sums(0.9), sums(0.8)], 1),
        ([sums(0.9), sums(0.8, violations=11)], 0),
        ([sums(0.8, violations=10)], 0),
        ([sums(0.999), sums(1.5)], None),
        ([], None),
    ],
    ids=["the cheapest", "but not at any price", "as many misses as allowed", "no gain", "nothing"],
)
def test_the_best_is_cheaper_and_misses_no_more_than_allowed(
    tried: list[Sums], expected: int | None
) -> None:
    assert best(tried, sums(1.0, violations=3), allowed_ratio=0.01) == expected
