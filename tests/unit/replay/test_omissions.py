"""What a replay leaves out is named, and nothing that is not configured."""

from router.replay.omissions import not_simulated
from tests.fakes.replays import make_runtime
from tests.unit.settings.loading import load_config

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
    assert not_simulated(make_runtime().settings, shares=True) == []


def test_what_is_left_out_is_named_with_its_place() -> None:
    told = not_simulated(make_runtime(pool=_POOL, rules=_RULES).settings, shares=True)
    assert [line.partition(" (")[0] for line in told] == [
        "model m: pool.adaptive",
        "rule bulk: priority",
    ]


def test_where_models_do_not_share_their_pool_that_is_said() -> None:
    text = """
pools: {cpu: {kind: process}}
models:
  - {name: a, slo: {latency_ms: 100}, pool: cpu, sharing: {max_concurrency: 2}}
"""
    settings = load_config(text).settings
    alone = "model a: pool: cpu (each model has replicas of its own)"
    assert not_simulated(settings, shares=False) == [alone]
    capped = "model a: sharing.max_concurrency (it may fill a replica)"
    assert not_simulated(settings, shares=True) == [capped]
