"""Several processes' series as one."""

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from router.domain.decision import Backend, Outcome
from router.telemetry import families
from router.telemetry.exposition import Snapshot, collect, counted, encoded, merged
from router.telemetry.families import FAMILIES, Across, Kind
from router.telemetry.metrics import Metrics
from router.telemetry.readings import Readings
from router.turns import Steps


def given(found: Readings) -> Steps[Readings]:
    yield
    return found


def snapshot_of(requests: int, model: str = "m", **readings: object) -> Snapshot:
    metrics = Metrics(CollectorRegistry(), "1", lambda: given(Readings(**readings)))  # type: ignore[arg-type]
    metrics.configure([model])
    metrics.record_reload(succeeded=True, at=float(requests))
    for _ in range(requests):
        metrics.record_request(model, Backend.POOL, Outcome.OK, 0.2, 0.0001)
    # As it travels between processes.
    return msgspec.json.decode(b"".join(encoded(metrics.snapshot())), type=Snapshot)


def value(snapshot: Snapshot, family: families.Family, *labels: str) -> float:
    return dict(snapshot.values[family.name])[labels]


def test_counters_and_histograms_are_added_up():
    both = merged([snapshot_of(2), snapshot_of(3)])
    assert value(both, families.REQUESTS, "m", "pool", "ok") == 5
    buckets = dict(both.histograms[families.REQUEST_DURATION.name])["m", "pool"]
    assert sum(buckets.counts) == 5
    assert buckets.total_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("family", "readings", "expected"),
    [
        (families.CONNECTIONS, ({"connections": 2}, {"connections": 3}), 5),
        (families.BODY_BYTES, ({"body_bytes_buffered": 2}, {"body_bytes_buffered": 3}), 5),
        (families.SHARED_STATE_PEERS, ({"shared_state_peers": 1}, {"shared_state_peers": 1}), 1),
        (families.SIGNALS_DEGRADED, ({"signals_degraded": True}, {}), 1),
    ],
    ids=lambda found: found.name if isinstance(found, families.Family) else "",
)
def test_gauges_are_combined_by_their_meaning(family, readings, expected):
    both = merged([snapshot_of(1, **readings[0]), snapshot_of(1, **readings[1])])
    assert value(both, family) == expected


def test_replicas_that_all_see_count_once():
    both = merged([snapshot_of(1, replicas_ready={"m": count}) for count in (2, 1)])
    assert value(both, families.REPLICAS_READY, "m") == 2


def test_a_configuration_is_as_old_as_with_the_last_process():
    both = merged([snapshot_of(7), snapshot_of(4)])
    assert value(both, families.CONFIG_RELOAD_TIMESTAMP) == 4
    assert value(both, families.CONFIG_RELOADS, "ok") == 1, "one file, however many read it"


def test_series_that_only_one_has_are_kept():
    both = merged([snapshot_of(1, "a"), snapshot_of(2, "b")])
    assert value(both, families.REQUESTS, "a", "pool", "ok") == 1
    assert value(both, families.REQUESTS, "b", "pool", "ok") == 2


def test_of_an_ended_process_counts_stay_and_states_go():
    kept = counted(snapshot_of(3, connections=4), {"m"})
    assert value(kept, families.REQUESTS, "m", "pool", "ok") == 3
    assert sum(dict(kept.histograms[families.REQUEST_DURATION.name])["m", "pool"].counts) == 3
    assert families.CONNECTIONS.name not in kept.values


def test_of_a_model_that_was_taken_out_nothing_stays():
    kept = counted(snapshot_of(3), {"other"})
    assert kept.values[families.REQUESTS.name] == []
    assert kept.histograms[families.REQUEST_DURATION.name] == []


def test_the_sum_is_exposed_like_one_process():
    def names(snapshot: Snapshot) -> list[str]:
        return [metric.name for metric in collect(snapshot, {"version": "1"})]

    assert names(merged([snapshot_of(1), snapshot_of(2)])) == names(snapshot_of(1))
    assert names(Snapshot()) == names(snapshot_of(1)), "also when there is nothing yet"


def test_only_gauges_and_reloads_are_not_added_up():
    others = {family.name for family in FAMILIES if family.across is not Across.SUM}
    counters = {family.name for family in FAMILIES if family.kind is Kind.COUNTER}
    assert others & counters == {families.CONFIG_RELOADS.name}
