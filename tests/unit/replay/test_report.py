"""The table of models: the dearest ones, and one line for all others."""

from io import StringIO
from typing import Any

from rich.console import Console

from router.replay.report import show


def figures(requests: int, usd: float) -> dict[str, Any]:
    ratio = 0.5 if requests else None
    return {
        "requests": requests, "cost_usd": usd, "optimum_usd": usd / 2, "optimum_ratio": 2.0,
        "limit_usd": 0.0, "limit_ratio": None, "replayed_optimum_ratio": None,
        "violations_ratio": ratio, "p50_ms": None, "p99_ms": None, "serverless_ratio": ratio,
        "cold_ratio": ratio, "replica_starts": 1, "allowed_cold_late_ratio": None,
        "throttled_calls": 0, "cost_parts": {}, "rows_left_out": {}, "horizon_s": 3600.0,
    }  # fmt: skip


def test_beyond_ten_models_the_others_share_a_line_even_those_without_requests() -> None:
    models = {f"m{n}": figures(100, 100.0 - n) for n in range(12)}
    models["silent"] = figures(0, 0.0)
    report = {
        **figures(1200, 1.0), "models": models, "baselines": {}, "pools": {},
        "clairvoyant_replayed": figures(1200, 1.0),
    }  # fmt: skip
    out = StringIO()
    show(report, Console(file=out, width=80))
    told = out.getvalue()
    assert "m9 " in told
    assert "m10 " not in told
    (line,) = (line for line in told.splitlines() if "3 others" in line)
    assert line.split()[2:] == ["200", "179.00", "2.00", "-", "50%", "-", "-", "50%", "3"]
