"""What a replay leaves out is named, and nothing that is not configured."""

from router.replay.omissions import not_simulated
from tests.fakes.replays import make_runtime

_POOL = (
    "{kind: process, max_replicas: 8, concurrency: 2, service_time_ms: 100,"
    " price_per_replica_hour: 0.036, adaptive: {}}"
)
_RULES = """
rules:
  - name: bulk
    match: {model: m}
    route: auto
    priority: low
"""


def test_an_ordinary_configuration_is_simulated_as_it_is() -> None:
    assert not_simulated(make_runtime().settings) == []


def test_what_is_left_out_is_named_with_its_place() -> None:
    told = not_simulated(make_runtime(pool=_POOL, rules=_RULES).settings)
    assert [line.partition(" (")[0] for line in told] == [
        "model m: pool.adaptive",
        "rule bulk: priority",
    ]
