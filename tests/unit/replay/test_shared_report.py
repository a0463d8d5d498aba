"""What a replay tells of models that share a pool: one bill, and what it is compared with."""

from pathlib import Path

import pytest

from router.assembly.runtime import assemble, new_parts
from router.replay.arrivals import Span
from router.replay.replay import Replay, ReplayOptions
from router.replay.report import document
from router.replay.traces import TraceOptions, open_trace
from router.replay.world import parse_world
from router.settings.loader import load_text
from tests.fakes.replays import FUNCTION, POOL

_TEXT = f"""
pools: {{cpu: {POOL}}}
models:
  - {{name: m, slo: {{latency_ms: 500}}, pool: cpu, serverless: {FUNCTION}}}
"""
_WORLD = b"dated: 2026-11-01\ndefault: {service_time_ms: 80}\n"


def test_the_bill_of_a_pool_is_its_replicas_and_its_models_calls(tmp_path: Path):
    counts = ",".join(["240"] * 8)
    trace = tmp_path / "counts.csv"
    minutes = ",".join(str(minute) for minute in range(1, 9))
    rows = [f"o,a,{name},http,{counts}" for name in ("f", "g", "h")]
    trace.write_text("\n".join([f"HashOwner,HashApp,HashFunction,Trigger,{minutes}", *rows]) + "\n")
    runtime = assemble(
        load_text(_TEXT, environment={}, base_dir=Path("/nonexistent"), read_file=Path.read_bytes),
        new_parts(),
    )
    replayed = Replay(
        runtime,
        parse_world(_WORLD, "world.yaml"),
        open_trace(trace, TraceOptions(Span(), 1.0, 1, 1.0), None),
        ReplayOptions(seed=1, with_baselines=False, each_like="m"),
    ).run()
    report = document(replayed, {})
    (pool,) = report["pools"].values()
    models = report["models"]
    assert set(models) == {"cpu", "f", "g", "h"}
    assert models["cpu"]["requests"] == 0
    assert models["cpu"]["replica_starts"] >= 1
    assert [models[name]["cost_parts"]["warm_busy"] for name in "fgh"] == [0.0, 0.0, 0.0]
    assert report["requests"] == 3 * 8 * 240
    assert pool["models"] == 3
    assert pool["cost_usd"] == pytest.approx(sum(one["cost_usd"] for one in models.values()))
    assert pool["cost_usd"] == pytest.approx(report["cost_usd"])
    assert report["optimum_usd"] == pool["alone_optimum_usd"]
    assert pool["optimum_usd"] <= pool["alone_optimum_usd"]
    assert pool["optimum_usd"] <= pool["cost_usd"]
