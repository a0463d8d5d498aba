"""A world from an access log: what is concluded, and from how little it is not."""

import datetime

import numpy as np
import pytest

from router.replay.arrivals import Dropped
from router.replay.measured import measured_world
from router.replay.world import ModelKeys, parse_world
from router.telemetry.logs import AccessRecord, encode_line

DAY = datetime.date(2026, 11, 1)


def line(model: str, upstream_ms: float, **facts: object) -> str:
    usual: dict[str, object] = {
        "request_id": "r", "protocol": "oip", "version": None, "tenant": None,
        "payload_bytes": 10, "backend": "pool", "reason": "rule", "rule": "x", "endpoint": "e",
        "attempts": 1, "status": 200, "outcome": "ok", "cold_start": None, "queue_ms": 0.0,
        "deadline_ms": None, "cost_usd": 0.0, "total_ms": 1.0,
    }  # fmt: skip
    record = AccessRecord(**{**usual, **facts, "model": model, "upstream_ms": upstream_ms})  # type: ignore[arg-type]
    return encode_line(record, 1000.0).decode()


def measured(lines: list[str]) -> tuple[dict[str, ModelKeys], Dropped]:
    dropped = Dropped()
    world = parse_world(measured_world(lines, DAY, dropped).encode(), "world.yaml")
    return dict(world.models), dropped


def median(distribution) -> float:
    return float(distribution.draw(np.zeros(1), np.full(1, 0.5), np.zeros(1, np.int64))[0])


def test_both_backends_and_cold_starts_are_told_apart() -> None:
    lines = [line("m", 100 + n % 11) for n in range(100)]
    lines += [line("m", 150 + n % 11, backend="serverless", cold_start=False) for n in range(100)]
    lines += [line("m", 1155.0, backend="serverless", cold_start=True) for _ in range(3)]
    models, dropped = measured(lines)
    keys = models["m"]
    assert median(keys.service_time_ms) == pytest.approx(0.105, rel=0.02)
    assert median(keys.serverless.service_time_ms) == pytest.approx(0.155, rel=0.02)
    assert median(keys.serverless.cold_start_ms) == pytest.approx(1.0, rel=0.02)
    assert dropped.total == 0


def test_failures_and_retries_tell_nothing_about_service_times() -> None:
    lines = [line("m", 100.0) for _ in range(30)]
    lines += [line("m", 9999.0, attempts=2), line("m", 9999.0, outcome="upstream_failed")]
    distribution = measured(lines)[0]["m"].service_time_ms
    assert distribution is not None
    largest = distribution.draw(np.zeros(1), np.ones(1), np.zeros(1, np.int64))
    assert largest[0] == pytest.approx(0.1)


def test_few_requests_prove_nothing() -> None:
    assert measured([line("m", 100.0) for _ in range(19)])[0] == {}


def test_other_lines_are_counted() -> None:
    dropped = measured(["rubbish\n", "\n", line("m", 1.0)])[1]
    assert dropped.counts == {"not a line of the access log": 1}


def test_long_logs_are_sampled_evenly() -> None:
    lines = [line("m", float(n)) for n in range(1, 60_001)]
    distribution = measured(lines)[0]["m"].service_time_ms
    assert median(distribution) == pytest.approx(30.0, rel=0.03)


def test_start_ups_are_those_that_a_gateway_tells() -> None:
    text = measured_world([line("m", 5.0)] * 100, DAY, Dropped(), {"m": 1.25, "idle": 40.0})
    models = parse_world(text.encode(), "world.yaml").models
    assert median(models["m"].startup_s) == 1.25
    assert median(models["m"].service_time_ms) == pytest.approx(0.005)
    assert median(models["idle"].startup_s) == 40.0
