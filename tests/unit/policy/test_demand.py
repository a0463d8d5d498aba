"""What the sizing is told: rates as load, and when a queue asks for a first replica."""

import pytest

from router.policy.demand import PoolFacts, Rates, breaks_objective, demand_from, starting_since
from router.policy.steering import Slo
from tests.fakes.builders import make_serverless

SLO = Slo(latency_s=0.5, percentile=99, cold_allowed=True)
RATES = Rates(arrivals=10.0, work_s=4.0, serverless_usd=0.02, captive=2.0, captive_work_s=1.0)


def test_work_is_load_of_replicas_that_serve_several_at_once() -> None:
    demand = demand_from(RATES, PoolFacts(concurrency=2, queued=0, ready=0), SLO, None)
    assert (demand.load, demand.captive_load, demand.serverless_usd_per_s) == (2.0, 0.5, 0.02)
    assert not demand.latency_duty


@pytest.mark.parametrize(("ready", "held"), [(0, 7), (1, 0)], ids=["without a replica", "with one"])
def test_a_queue_asks_for_a_first_replica_only(ready: int, held: int) -> None:
    assert demand_from(RATES, PoolFacts(2, 7, ready), SLO, None).held == held


@pytest.mark.parametrize(
    ("expected_s", "is_learned", "duty"),
    [(0.4, True, True), (0.4, False, False), (0.6, False, True)],
    ids=["its slow calls are too slow", "only a guess says so", "even its usual call is too slow"],
)
def test_a_replica_is_kept_for_a_function_that_is_known_to_be_too_slow(
    expected_s: float, is_learned: bool, duty: bool
) -> None:
    function = make_serverless(expected_s=expected_s, upper_s=0.7, is_learned=is_learned)
    assert breaks_objective(SLO, function) is duty


@pytest.mark.parametrize(
    ("before", "wanted_before", "wanted", "ready", "expected"),
    [
        (None, 0, 1, 0, 9.0),
        (5.0, 1, 2, 0, 5.0),
        (5.0, 1, 1, 1, None),
        (5.0, 1, 0, 0, None),
        (None, 1, 1, 0, None),
    ],
    ids=["begins now", "still under way", "one is ready", "given up", "lost its last one"],
)
def test_since_when_a_first_replica_starts(
    before: float | None, wanted_before: int, wanted: int, ready: int, expected: float | None
) -> None:
    assert starting_since(before, wanted_before, wanted, ready, 9.0) == expected
