"""The `replay` command from files to files, as a user runs it."""

import csv
import hashlib
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from router.cli import main
from router.replay.command import trace_path
from router.replay.replay import Replay, ReplayOptions
from router.replay.sample import content
from router.replay.traces import TraceOptions, open_trace
from router.replay.world import parse_world
from tests.fakes.replays import make_runtime

CONFIG = """
models:
  - name: a
    slo: {latency_ms: 500}
    serverless: {kind: local, memory_mb: 1769, max_concurrency: 100, service_time_ms: 100}
    pool: {kind: process, max_replicas: 20, concurrency: 2, service_time_ms: 100}
  - name: b
    slo: {latency_ms: 500}
    serverless: {kind: local, memory_mb: 1769, max_concurrency: 100, service_time_ms: 50}
  - name: c
    slo: {latency_ms: 500}
    pool: {kind: process, max_replicas: 4, service_time_ms: 50}
"""
WORLD = """
dated: 2026-11-01
default:
  service_time_ms: 300
  startup_s: 25
  min_billing_s: 60
  replica_usd_per_hour: 0.0725
  serverless: {usd_per_request: 0.0000002, usd_per_gb_s: 0.0000166667, memory_mb: 1769,
    cold_start_ms: 800, overhead_ms: 5, reclaim_s: 300}
"""
KEYS = {
    "requests", "cost_usd", "cost_parts", "optimum_usd", "optimum_ratio", "limit_usd",
    "limit_ratio", "replayed_optimum_ratio", "violations_ratio", "p50_ms", "p99_ms",
    "spill_ratio", "cold_ratio", "replica_starts",
}  # fmt: skip
PARTS = {"warm_busy", "warm_idle", "serverless_compute", "init", "request_fees"}
BASELINES = {
    "always_serverless", "peak_warm", "static_split", "hpa", "hpa_overflow", "kpa", "mark", "libra"
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A configuration, a world, and half an hour of steps for three models."""
    (tmp_path / "router.yaml").write_text(CONFIG)
    (tmp_path / "world.yaml").write_text(WORLD)
    generator = np.random.default_rng(8)
    rows = []
    for model, per_s in (("a", 6.0), ("b", 0.05), ("c", 0.3)):
        gaps = generator.exponential(1 / per_s, int(1800 * per_s))
        times = np.cumsum(gaps)
        times = times[times < 1790]
        # The pool of the first one is wanted, not wanted, and wanted again.
        quiet = (times > 600) & (times < 1000) & (generator.random(len(times)) < 0.99)
        rows += [(at, model) for at in times[~quiet if model == "a" else slice(None)].tolist()]
    lines = [f"{at:.3f},{model},1000" for at, model in sorted(rows)]
    (tmp_path / "trace.csv").write_text("\n".join(["timestamp,model,payload_bytes", *lines]) + "\n")
    return tmp_path


def replay(files: Path, *options: str, trace: str | None = None, to: str = "out") -> Result:
    paths = {name: str(files / f"{to}.{name}") for name in ("json", "timeline", "plot")}
    outputs = [part for name, path in paths.items() for part in (f"--{name}", path)]
    given = ["--config", str(files / "router.yaml"), "--world", str(files / "world.yaml")]
    asked = ["--trace", trace or str(files / "trace.csv")]
    return CliRunner().invoke(main, ["replay", *given, *asked, *outputs, *options])


def document(files: Path, to: str = "out") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files / f"{to}.json").read_text())
    return found


def test_the_report_has_every_figure_in_total_by_model_and_for_each_baseline(files: Path) -> None:
    result = replay(files)
    assert result.exit_code == 0, result.output
    report = document(files)
    assert report["baselines"].keys() == BASELINES
    for policy in (report, *report["baselines"].values()):
        assert policy["models"].keys() == {"a", "b", "c"}
        for figures in (policy, *policy["models"].values()):
            assert figures.keys() >= KEYS
            assert figures["cost_parts"].keys() == PARTS
            assert sum(figures["cost_parts"].values()) == pytest.approx(figures["cost_usd"])
        whole = [policy["models"][name]["requests"] for name in "abc"]
        assert sum(whole) == policy["requests"] == report["requests"]
    for told in ("this router", "always serverless", "by model", "The bill"):
        assert told in result.output


def test_the_optimum_is_below_every_policy_that_serves_all(files: Path) -> None:
    replay(files)
    report = document(files)
    for policy in (report, report["clairvoyant_replayed"], *report["baselines"].values()):
        # The third one has no function: its requests may be held, which no bound covers.
        for name in ("a", "b"):
            model = policy["models"][name]
            assert model["cost_usd"] >= model["optimum_usd"] * 0.9999 or model["refused_ratio"]
    ours = report["models"]["a"]
    assert 0.8 * ours["optimum_usd"] < ours["limit_usd"] <= ours["cost_usd"]
    for other in ("hpa_overflow", "always_serverless", "static_split"):
        ratio = report["baselines"][other]["models"]["a"]["optimum_ratio"]
        assert report["models"]["a"]["optimum_ratio"] < ratio


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(files: Path) -> None:
    for to, seed in (("one", "5"), ("two", "5"), ("three", "6")):
        (files / "world.yaml").write_text(
            WORLD.replace("service_time_ms: 300", "service_time_ms: {exponential: 100}")
        )
        assert replay(files, "--seed", seed, "--no-baselines", to=to).exit_code == 0
    for kind in ("json", "timeline", "plot"):
        digests = [
            hashlib.sha256((files / f"{to}.{kind}").read_bytes()).hexdigest()
            for to in ("one", "two", "three")
        ]
        assert digests[0] == digests[1]
        assert digests[0] != digests[2]


def test_the_timeline_priced_again_from_the_world_file_is_the_bill(files: Path) -> None:
    """Nothing of the product here: only the two files, as anybody could read them."""
    assert replay(files, "--no-baselines").exit_code == 0
    world = yaml.safe_load(WORLD)["default"]
    function = world["serverless"]
    usd_per_s = function["usd_per_gb_s"] * function["memory_mb"] / 1024
    usd = {"a": 0.0, "b": 0.0, "c": 0.0}
    told = dict.fromkeys(usd, 0.0)
    with (files / "out.timeline").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "t_s", "model", "arrivals", "replicas_ready", "replicas_billed", "pool_requests",
        "serverless_requests", "cold_starts", "violations", "cost_usd",
    ]  # fmt: skip
    for row in rows:
        calls, cold = int(row["serverless_requests"]), int(row["cold_starts"])
        called_s = calls * world["service_time_ms"] / 1e3 + cold * function["cold_start_ms"] / 1e3
        usd[row["model"]] += calls * function["usd_per_request"] + called_s * usd_per_s
        rented_h = float(row["replicas_billed"]) * 60 / 3600
        usd[row["model"]] += rented_h * world["replica_usd_per_hour"]
        told[row["model"]] += float(row["cost_usd"])
    report = document(files)
    for name, model in report["models"].items():
        # The bill is a few cents: a cent would prove nothing.
        assert usd[name] == pytest.approx(model["cost_usd"], rel=1e-7)
        assert told[name] == pytest.approx(model["cost_usd"], rel=1e-7)
    arrivals = sum(int(row["arrivals"]) for row in rows)
    assert arrivals == report["requests"]


def test_the_page_stands_alone_and_draws_four_charts(files: Path) -> None:
    assert replay(files, "--no-baselines").exit_code == 0
    page = (files / "out.plot").read_text()
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=|@import|url\(""", page)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower()


def test_names_from_the_trace_cannot_break_out_of_the_page(files: Path) -> None:
    trace = files / "<script>alert(1)<"
    trace.write_bytes((files / "trace.csv").read_bytes())
    assert replay(files, "--no-baselines", trace=str(trace)).exit_code == 0
    assert "<script" not in (files / "out.plot").read_text()


def test_a_training_part_is_not_reported(files: Path) -> None:
    assert replay(files, "--train-share", "0.5", "--no-baselines").exit_code == 0
    report = document(files)
    assert report["horizon_s"] == 900
    rows = [line.split(",") for line in (files / "trace.csv").read_text().splitlines()[1:]]
    first = float(rows[0][0])
    assert report["requests"] == sum(float(row[0]) - first >= 900 for row in rows)


def test_what_is_left_out_is_told(files: Path) -> None:
    with (files / "trace.csv").open("a") as file:
        file.write("1789,unknown,1\nrubbish\n")
    result = replay(files, "--no-baselines")
    assert result.exit_code == 0
    assert "model unknown is not configured" in result.output
    assert sum(document(files)["rows_left_out"].values()) == 2


def test_how_arrivals_are_drawn_and_what_is_not_simulated_is_told_first(files: Path) -> None:
    counts = files / "counts.csv"
    counts.write_text("t_s,model,count\n0,b,30\n60,b,20\n")
    drawn = "arrivals within the trace's intervals are drawn"
    for options, told in (((), "Poisson"), (("--burstiness", "4"), "variation is 4")):
        output = replay(files, "--no-baselines", *options, trace=str(counts)).output
        head = " ".join(output.partition("policy")[0].split())
        assert f"{drawn}: " in head
        assert told in head
        assert "not simulated: pools: ejection" in head
    # Where the trace says when requests came, nothing is drawn.
    assert drawn not in " ".join(replay(files, "--no-baselines").output.split())


def test_models_are_mapped_and_others_configured_alike(files: Path) -> None:
    (files / "counts.csv").write_text("t_s,model,count\n0,x1,40\n0,y,9\n60,x2,50\n60,y,1\n")
    trace = str(files / "counts.csv")
    options = ("--model-map", "x*=a", "--each-like", "b", "--no-baselines")
    assert replay(files, *options, trace=trace).exit_code == 0
    models = document(files)["models"]
    assert {name: model["requests"] for name, model in models.items()} == {"a": 90, "y": 10}


USER_MISTAKES = {
    "no such trace": (["--trace", "/nonexistent"], 1, "cannot be read"),
    "no such world": (["--world", "/nonexistent"], 1, "cannot be read"),
    "unknown target": (["--model-map", "x=nope"], 1, "model nope is not configured"),
    "no such model": (["--each-like", "nope"], 1, "model nope is not configured"),
    "a map without a target": (["--model-map", "x"], 2, "is not FROM=TO"),
    "a crooked interval": (["--interval", "7s"], 2, "multiple of 10s"),
    "an end before the start": (["--from", "2h", "--to", "1h"], 2, "--to must be after --from"),
    "two kinds of time": (["--from", "1h", "--to", "2026-11-01"], 2, "must both be times"),
    "no time at all": (["--from", "soon"], 2, "neither 2h"),
    "nothing in the span": (["--from", "9h"], 1, "no request of a configured model"),
    "nowhere to write": (["--json", "/nonexistent/x"], 1, "cannot write"),
}


@pytest.mark.parametrize(("options", "code", "told"), USER_MISTAKES.values(), ids=USER_MISTAKES)
def test_mistakes_are_told_plainly(files: Path, options: list[str], code: int, told: str) -> None:
    result = replay(files, "--no-baselines", *options)
    assert result.exit_code == code
    assert told in result.output
    assert "Traceback" not in result.output


def test_the_bundled_sample_runs_with_the_demo_configuration(tmp_path: Path) -> None:
    demo = Path(__file__).parents[3] / "config" / "router.yaml"
    out = tmp_path / "out.json"
    options = ["--config", str(demo), "--trace", "sample", "--json", str(out), "--no-baselines"]
    result = CliRunner().invoke(main, ["replay", *options])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["models"].keys() == {"magika", "minilm", "textdet"}
    assert report["violations_ratio"] < 0.0004
    assert 0.2 < report["serverless_ratio"] < 0.8
    # A policy that makes the bill dearer fails here; a cheaper one lowers the figure.
    assert report["cost_usd"] == pytest.approx(0.04226, rel=0.005)
    assert "…" not in result.output, "a table is too wide for a terminal of 80 columns"


def test_the_bundled_sample_is_what_its_generator_makes() -> None:
    assert trace_path("sample").read_bytes() == content()


def test_memory_does_not_grow_with_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.replay.arrivals.BLOCK_ROWS", 2048)

    def peak_bytes(minutes: int) -> int:
        trace = tmp_path / f"{minutes}.csv"
        trace.write_text(
            "t_s,model,count\n" + "".join(f"{60 * n},m,1500\n" for n in range(minutes))
        )
        opened = open_trace(trace, TraceOptions())
        runtime, world = make_runtime(), parse_world(b"dated: 2026-11-01", "w.yaml")
        tracemalloc.start()
        try:
            Replay(runtime, world, opened, ReplayOptions(1, with_baselines=False)).run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(1)  # what is loaded once
    few, many = peak_bytes(8), peak_bytes(32)
    assert many < 1.2 * few


def test_a_world_is_measured_and_replayed(files: Path) -> None:
    log, out = trace_path("sample"), files / "measured.yaml"
    result = CliRunner().invoke(main, ["measure", "--log", str(log), "--out", str(out)])
    assert result.exit_code == 0, result.output
    measured = yaml.safe_load(out.read_text())["models"]
    assert measured.keys() == {"magika", "minilm", "textdet"}
    assert measured["textdet"]["service_time_ms"]["empirical"][20] == pytest.approx(190, rel=0.02)


def test_a_gateway_that_does_not_answer_is_told(files: Path) -> None:
    out = files / "measured.yaml"
    options = ["--log", str(trace_path("sample")), "--out", str(out), "--admin"]
    result = CliRunner().invoke(main, ["measure", *options, "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:9" in result.output
    assert not out.exists()
