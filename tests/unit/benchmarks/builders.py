"""Short ways to write down what a run has measured."""

from tests.benchmarks.results import Finding, Results, Row, Sample, ScenarioResult


def make_sample(
    cpu_us: float = 10.0,
    *,
    rps: float = 1000.0,
    p99_ms: float = 2.0,
    errors: int = 0,
    others_percent: float = 1.0,
) -> Sample:
    return Sample(
        cpu_us,
        rps,
        p50_ms=1.0,
        p99_ms=p99_ms,
        p999_ms=5.0,
        rss_mb=40.0,
        core_percent=90.0,
        others_percent=others_percent,
        requests=1000,
        errors=errors,
    )


def make_row(system: str, *costs_us: float | None, failures: tuple[str, ...] = ()) -> Row:
    samples = tuple(make_sample(cost) if cost is not None else None for cost in costs_us)
    return Row(system, samples, failures)


def make_results(
    *rows: Row,
    scenario: str = "infer-32",
    findings: tuple[Finding, ...] = (),
    missing: dict[str, str] | None = None,
    broken: dict[str, str] | None = None,
) -> Results:
    return Results(
        taken_at="2026-11-24 10:00 UTC",
        command="python -m tests.benchmarks",
        machine={"processor": "Test 9000"},
        versions={"nginx": "nginx/1.22.1"},
        scenarios=(ScenarioResult(scenario, "300 B", rows),) if rows else (),
        findings=findings,
        missing=missing or {},
        broken=broken or {},
    )
