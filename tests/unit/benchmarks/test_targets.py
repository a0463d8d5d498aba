import pytest

from tests.benchmarks.probes.registry import PROBES
from tests.benchmarks.results import Finding, Row
from tests.benchmarks.scenarios import BY_NAME
from tests.benchmarks.systems.registry import SYSTEMS
from tests.benchmarks.targets import TARGETS, AtMost, Verdict, Versus, Within, verdicts
from tests.benchmarks.workers import NAME as WORKER
from tests.benchmarks.workers import SERVERS, WORKS
from tests.unit.benchmarks.builders import make_results, make_row, make_sample

_CPU = Versus("cpu", "infer-32", "cpu_us", 1.5)


@pytest.mark.parametrize(
    ("cost_us", "met"), [(14.0, True), (15.0, True), (15.1, False)], ids=["below", "at", "above"]
)
def test_a_ratio_is_held_against_its_limit(cost_us: float, met: bool):
    results = make_results(make_row("nginx", 10.0), make_row("gateway", cost_us))
    [verdict] = verdicts(results, [_CPU])
    assert verdict.measured == pytest.approx(cost_us / 10)
    assert verdict.met is met


@pytest.mark.parametrize(
    "rows",
    [
        (make_row("gateway", 10.0),),
        (make_row("nginx", 10.0),),
        (make_row("nginx", 10.0), Row("gateway", (make_sample(errors=1),))),
        (),
    ],
    ids=["no reference", "not measured", "with errors", "no scenario"],
)
def test_what_was_not_properly_measured_meets_nothing(rows: tuple[Row, ...]):
    assert verdicts(make_results(*rows), [_CPU]) == []


def test_a_finding_is_held_against_its_limit():
    results = make_results(findings=(Finding("decision", "one decision", 4.0, "us"),))
    targets = [AtMost("decision", "decision", 5.0), AtMost("growth", "memory-growth", 5.0)]
    assert verdicts(results, targets) == [Verdict("decision", 4.0, 5.0)]


@pytest.mark.parametrize(("cost_us", "met"), [(60.0, True), (60.1, False)])
def test_a_quantity_is_held_against_its_limit(cost_us: float, met: bool):
    target = Within("task", "infer-32", "cpu_us", 60.0)
    [verdict] = verdicts(make_results(make_row("gateway", cost_us)), [target])
    assert (verdict.measured, verdict.met) == (cost_us, met)


def test_every_target_is_about_something_that_is_measured():
    systems = {*(system.name for system in SYSTEMS), *SERVERS}
    scenarios = {*BY_NAME, *(work.name for work in WORKS)}
    probed = {
        "decision", "in-flight-growth", "in-flight-growth-32m", "memory-growth",
        "stall-gateway", "sse-longest-gateway",
    }  # fmt: skip
    for target in TARGETS:
        if isinstance(target, AtMost):
            assert target.finding in probed
        else:
            against = {target.against} if isinstance(target, Versus) else set()
            assert target.scenario in scenarios
            assert {target.system, *against} <= systems


def test_names_on_the_command_line_are_unambiguous():
    names = [WORKER, *BY_NAME, *(probe.name for probe in PROBES)]
    assert len(names) == len(set(names))
