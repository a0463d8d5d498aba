"""The `diff` command: what a new configuration would change for a trace."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from router.cli import main

CONFIG = """
models:
  - name: a
    slo: {latency_ms: 500}
    serverless: {kind: local, max_concurrency: 100, service_time_ms: 100}
    pool: {kind: process, max_replicas: 4, concurrency: 2, service_time_ms: 100}
  - name: b
    slo: {latency_ms: 500}
    serverless: {kind: local, max_concurrency: 100, service_time_ms: 50}
"""
RULE = """
rules:
  - {name: big, match: {payload: ">1000"}, route: serverless}
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Twenty minutes of steady work for one model and hardly any for the other."""
    sizes = np.random.default_rng(3).choice([500, 2000], 12_000)
    rows = [f"{number / 10},a,{size}" for number, size in enumerate(sizes)]
    rows += ["1300,b,10", "1301,b,10"]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(["timestamp,model,payload_bytes", *rows]) + "\n")
    return path


def diff(trace: Path, old: str, new: str) -> tuple[Result, dict[str, Any]]:
    folder = trace.parent
    (folder / "old.yaml").write_text(old)
    (folder / "new.yaml").write_text(new)
    options = {"config": "new.yaml", "against": "old.yaml", "trace": trace.name, "json": "out.json"}
    given = [part for name, file in options.items() for part in (f"--{name}", str(folder / file))]
    result = CliRunner().invoke(main, ["diff", *given])
    out = folder / "out.json"
    return result, json.loads(out.read_text()) if out.exists() else {}


def test_the_same_configuration_changes_nothing(trace: Path) -> None:
    result, report = diff(trace, CONFIG, CONFIG)
    assert result.exit_code == 0
    assert "0 of 12,002 requests would move" in result.output
    assert report["old"] == report["new"]
    assert (report["moved"], report["slower"], report["faster"]) == (0, 0, 0)


def test_a_rule_moves_exactly_the_requests_it_names(trace: Path) -> None:
    result, report = diff(trace, CONFIG + RULE.replace("serverless", "auto"), CONFIG + RULE)
    assert result.exit_code == 0
    sizes = [line.split(",")[2] for line in trace.read_text().splitlines()[1:]]
    assert report["new"]["serverless_ratio"] >= sizes.count("2000") / len(sizes)
    moved = report["moved_to_serverless"]
    assert f"{moved:,} of 12,002 requests would move: 0 to the pool, {moved:,} to" in result.output
    assert report["models"]["b"]["moved"] == 0
    assert report["new"]["cost_usd"] > report["old"]["cost_usd"]


def test_the_way_back_is_the_same_way(trace: Path) -> None:
    _, there = diff(trace, CONFIG, CONFIG + RULE)
    _, back = diff(trace, CONFIG + RULE, CONFIG)
    assert there["moved_to_serverless"] == back["moved_to_pool"] > 0
    assert (there["slower"], there["faster"]) == (back["faster"], back["slower"])
    assert there["old"] == back["new"]


def test_what_a_configuration_expects_does_not_change_what_is_true(trace: Path) -> None:
    """Only prices and limits are facts; an expected service time is learned away."""
    _, report = diff(trace, CONFIG, CONFIG.replace("service_time_ms: 50", "service_time_ms: 60"))
    assert report["models"]["b"]["old"]["cost_usd"] == report["models"]["b"]["new"]["cost_usd"]


def test_without_a_model_in_common_there_is_nothing_to_compare(trace: Path) -> None:
    other = CONFIG.replace("name: a", "name: x").replace("name: b", "name: y")
    result, _ = diff(trace, CONFIG, other)
    assert result.exit_code == 1
    assert "no request of a model that both have" in result.output


def test_an_invalid_configuration_is_told_with_its_line(trace: Path) -> None:
    result, _ = diff(trace, CONFIG, CONFIG.replace("max_replicas: 4", "max_replicas: 0"))
    assert result.exit_code == 1
    assert "new.yaml:6: models[0].pool.max_replicas = 0" in result.output
