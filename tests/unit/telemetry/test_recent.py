from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from router.domain.decision import Backend, Outcome, Reason
from router.telemetry.metrics import Metrics, Objective
from router.telemetry.recent import Recent
from router.turns import at_once


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(CollectorRegistry(), "0")
    metrics.configure(["m", "n"], {"m": Objective(0.1, 0.99)})
    return metrics


def served(metrics: Metrics, took_s: float, reason: Reason = Reason.WARM_CAPACITY) -> None:
    metrics.record_decision("m", Backend.POOL, reason)
    metrics.record_request("m", Backend.POOL, Outcome.OK, took_s, 0.0)
    metrics.record_caller("", "m", Outcome.OK, took_s)


def looked(recent: Recent, model: str = "m") -> Any:
    at_once(recent.look())
    return recent.of(model)


def test_what_was_counted_in_the_last_minute_is_told(metrics: Metrics) -> None:
    recent = Recent(metrics)
    for _ in range(99):
        served(metrics, 0.004)
    served(metrics, 2.0, Reason.SPILLOVER)
    found = looked(recent)
    assert found["requests"] == 100
    assert 2.5 < found["p50_ms"] <= 5.0 >= found["p99_ms"]
    assert found["reasons"] == {"warm_capacity": 99, "spillover": 1}
    assert found["objective"] == {"met": 99, "late": 1}
    assert looked(recent, "n") == {
        "requests": 0, "p50_ms": None, "p99_ms": None, "reasons": {}, "objective": {},
    }  # fmt: skip


def test_what_is_older_is_forgotten(metrics: Metrics) -> None:
    recent = Recent(metrics)
    served(metrics, 0.004)
    assert [looked(recent)["requests"] for _ in range(7)] == [1] * 6 + [0]
    served(metrics, 2.0)
    found = looked(recent)
    assert (found["requests"], found["objective"]) == (1, {"late": 1})
    assert found["p50_ms"] > 1000
