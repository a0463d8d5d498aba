import math
import sys
from itertools import pairwise

import pytest

from router.page.history import STEP_S, History
from router.telemetry.exposition import Buckets, Snapshot
from router.telemetry.families import BUCKETS_S
from router.turns import at_once

BEGAN = 1_790_000_040.0


def snapshot(requests: float, usd: float, slow: int = 0, model: str = "m") -> Snapshot:
    counts = [0] * (len(BUCKETS_S) + 1)
    counts[BUCKETS_S.index(0.01)] = int(requests) - slow
    counts[BUCKETS_S.index(1.0)] = slow
    return Snapshot(
        {
            "router_requests_total": [
                ((model, "pool", "ok"), requests / 2), ((model, "serverless", "ok"), requests / 2),
            ],
            "router_cost_usd_total": [
                ((model, "serverless"), usd / 4), ((model, "kept_warm"), usd / 4),
                ((model, "warm_busy"), usd / 8), ((model, "warm_idle"), usd * 3 / 8),
            ],
            "router_decisions_total": [
                ((model, "serverless", "spillover"), requests / 4), ((model, "pool", "hint"), 9.0),
            ],
            "router_cold_starts_total": [((model,), requests / 10)],
            "router_replicas_ready": [((model,), 3.0), (("a shared pool",), 7.0)],
        },
        {"router_request_duration_seconds": [((model, "pool"), Buckets(tuple(counts), 1.0))]},
    )  # fmt: skip


def filled(steps: int) -> History:
    history = History()
    for number in range(steps + 1):
        at_once(
            history.add(snapshot(100 * number, 0.01 * number, 10 * number), BEGAN + number * STEP_S)
        )
    return history


def test_what_grew_is_noted_by_the_second() -> None:
    columns = filled(3).of("m")
    assert columns["at"] == [BEGAN + STEP_S * number for number in (1, 2, 3)]
    assert columns["requests_per_s"] == [10.0] * 3
    assert columns["pool_per_s"] == [5.0] * 3
    assert columns["usd_per_h"] == pytest.approx([3.6] * 3, rel=1e-3)
    assert columns["usd_serverless_per_h"] == pytest.approx([1.8] * 3, rel=1e-3)
    assert columns["usd_warm_busy_per_h"] == pytest.approx([0.45] * 3, rel=1e-3)
    assert columns["usd_warm_idle_per_h"] == pytest.approx([1.35] * 3, rel=1e-3)
    assert columns["replicas"] == [3.0] * 3
    assert columns["cold_starts_per_s"] == [1.0] * 3
    assert columns["spills_per_s"] == [2.5] * 3
    for p50, p99 in zip(columns["p50_ms"], columns["p99_ms"], strict=True):
        assert p50 is not None
        assert p99 is not None
        assert 5 < p50 <= 10
        assert 500 < p99 <= 1000


def test_an_hour_is_kept_in_steps_and_a_day_in_minutes() -> None:
    steps = 2 * 360
    columns = filled(steps).of("m")
    times = [at for at in columns["at"] if at is not None]
    gaps = [round(later - earlier) for earlier, later in pairwise(times)]
    assert set(gaps[-359:]) == {STEP_S}
    assert set(gaps[:50]) == {60}
    assert len(times) == pytest.approx(360 + 60, abs=2)
    assert set(columns["requests_per_s"]) == {10.0}
    assert set(columns["replicas"]) == {3.0}
    assert columns["usd_per_h"] == pytest.approx([3.6] * len(times), rel=2e-3)
    assert columns["p50_ms"][0] is None, "of what is older than an hour less is kept"


def test_what_was_missed_is_unknown() -> None:
    history = filled(1)
    at_once(history.add(snapshot(200, 0.02), BEGAN + 5 * STEP_S))
    assert history.of("m")["requests_per_s"] == [10.0, None, None, None, 2.5]


def test_a_model_that_is_gone_is_forgotten_and_counters_that_began_anew_are_no_debt() -> None:
    history = filled(2)
    at_once(history.add(snapshot(10, 0.0), BEGAN + 3 * STEP_S))
    assert history.of("m")["requests_per_s"][-1] == 0.0
    at_once(history.add(snapshot(10, 0.0, model="n"), BEGAN + 4 * STEP_S))
    assert history.of("m")["at"] == []
    assert history.of("unknown")["at"] == []


def test_a_thousand_models_fit_into_twenty_megabytes() -> None:
    model = filled(2)._models["m"]
    size = sum(ring.values.nbytes + sys.getsizeof(ring) + 200 for ring in model)
    assert 1000 * size < 20e6
    assert math.isfinite(size)
