"""`replay --suggest`: settings that are known to be bad, and such as cannot be bettered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from router.cli import main

MODEL = """
models:
  - name: a
    slo: {latency_ms: 500, percentile: 99}
    serverless: {kind: local, memory_mb: 1769, max_concurrency: 100, service_time_ms: 100}
    pool: {kind: process, max_replicas: %(max_replicas)s, packing: %(packing)s, concurrency: 1,
      service_time_ms: 100, startup: 20s}
rules:
  - {name: large, match: {payload: ">%(payload)s"}, route: pool}
"""
GOOD = {"max_replicas": "9", "packing": "0.95", "payload": "1MiB"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A quarter of an hour of a little more than two replicas' work, with payloads of all sizes."""
    rng = np.random.default_rng(3)
    at = np.cumsum(rng.exponential(1 / 24, 24 * 900)).tolist()
    sizes = rng.choice([1000, 5000, 20_000, 100_000], len(at)).tolist()
    lines = [f"{second:.4f},a,{size}" for second, size in zip(at, sizes, strict=True)]
    (tmp_path / "trace.csv").write_text("\n".join(["timestamp,model,payload_bytes", *lines]) + "\n")
    return tmp_path


def suggest(folder: Path, *options: str, **changed: str) -> Result:
    (folder / "router.yaml").write_text(MODEL % {**GOOD, **changed})
    files = ["--config", str(folder / "router.yaml"), "--trace", str(folder / "trace.csv")]
    out = ["--json", str(folder / "out.json")]
    return CliRunner().invoke(main, ["replay", "--suggest", *files, *out, *options])


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


def test_replicas_left_empty_are_filled(folder: Path) -> None:
    result = suggest(folder, packing="0.3")
    assert result.exit_code == 0, result.output
    report = document(folder)
    (model,) = report["settings"]["models"]
    assert model["pool"]["packing"] >= 0.8
    searched, rest = (report["models"]["a"][part] for part in ("searched", "rest"))
    lines = (folder / "trace.csv").read_text().splitlines()[1:]
    at = np.array([float(line.partition(",")[0]) for line in lines])
    before = int((at - at[0] < report["searched_s"]).sum())
    assert searched["now"]["requests"] == before
    assert rest["now"]["requests"] == len(at) - before
    assert rest["chosen"]["cost_usd"] < 0.95 * rest["now"]["cost_usd"]
    assert yaml.safe_load(result.output.partition("changes):")[2]) == report["settings"]


def test_replicas_that_may_not_run_are_allowed(folder: Path) -> None:
    assert suggest(folder, max_replicas="1").exit_code == 0
    (model,) = document(folder)["settings"]["models"]
    assert 2 <= model["pool"]["max_replicas"] <= 5


def test_a_rule_that_fills_the_pool_for_nothing_is_raised(folder: Path) -> None:
    """Below break-even: without the rule the function would carry nearly all of it."""
    trace = folder / "trace.csv"
    head, *lines = trace.read_text().splitlines()
    trace.write_text("\n".join([head, *lines[::40]]) + "\n")
    result = suggest(folder, payload="4KiB")
    assert result.exit_code == 0, result.output
    (rule,) = document(folder)["settings"]["rules"]
    assert rule["name"] == "large"
    assert rule["match"]["payload"] in {">256KiB", ">1MiB"}
    assert "rule large >" in result.output


def test_settings_that_cannot_be_bettered_are_left_alone(folder: Path) -> None:
    result = suggest(folder)
    assert result.exit_code == 0, result.output
    assert document(folder)["settings"] == {}
    assert "Nothing to suggest" in result.output


def test_what_only_paid_on_the_searched_part_is_not_suggested(folder: Path) -> None:
    """The first part asks for more replicas, the rest has next to no traffic."""
    trace = folder / "trace.csv"
    head, *lines = trace.read_text().splitlines()
    quiet = [line for line in lines if float(line.partition(",")[0]) > 500]
    busy = lines[: len(lines) - len(quiet)]
    trace.write_text("\n".join([head, *busy, *quiet[::300]]) + "\n")
    result = suggest(folder, packing="0.3", max_replicas="9")
    assert result.exit_code == 0, result.output
    found = document(folder)["models"]["a"]
    assert found["tried"]
    assert not found["holds"]
    assert document(folder)["settings"] == {}


def test_a_trace_too_short_to_be_split_is_told(folder: Path) -> None:
    result = suggest(folder, "--to", "50s")
    assert result.exit_code == 1
    assert "too short to be searched and checked" in result.output


def test_it_draws_nothing(folder: Path) -> None:
    result = suggest(folder, "--plot", str(folder / "page.html"))
    assert result.exit_code == 2
    assert "--suggest writes neither" in result.output
