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
  - name: vip
    match: {header: {x-vip: "1"}}
    route: auto
"""
_EJECTION = "pools: ejection (replicas are all alike, and none fails but by a crash)"


def test_an_ordinary_configuration_is_simulated_as_it_is() -> None:
    assert not_simulated(make_runtime(pool=None).settings, shares=True) == []
    assert not_simulated(make_runtime().settings, shares=True) == [_EJECTION]


def test_what_is_left_out_is_named_with_its_place() -> None:
    told = not_simulated(make_runtime(pool=_POOL, rules=_RULES).settings, shares=True)
    assert [line.partition(" (")[0] for line in told] == [
        "model m: pool.adaptive",
        "rule bulk: priority",
        "rule vip: match.header",
        "pools: ejection",
    ]


def test_environments_that_are_kept_warm_are_named() -> None:
    text = """
models:
  - name: a
    slo: {latency_ms: 100}
    serverless:
      {kind: aws_lambda, function: f, region: eu-west-1, qualifier: v, provisioned_concurrency: 5}
"""
    (line,) = not_simulated(load_config(text).settings, shares=True)
    assert line.startswith("model a: environments kept warm")


def test_where_models_do_not_share_their_pool_that_is_said() -> None:
    text = """
pools: {cpu: {kind: process}}
models:
  - {name: a, slo: {latency_ms: 100}, pool: cpu, sharing: {max_concurrency: 2}}
"""
    settings = load_config(text).settings
    alone = "model a: pool: cpu (each model has replicas of its own)"
    assert not_simulated(settings, shares=False) == [alone, _EJECTION]
    capped = "model a: sharing.max_concurrency (it may fill a replica)"
    assert not_simulated(settings, shares=True) == [capped, _EJECTION]
