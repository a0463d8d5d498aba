from tests.benchmarks.report import markdown
from tests.benchmarks.results import Finding, Row
from tests.unit.benchmarks.builders import make_results, make_row, make_sample


def test_a_scenario_is_a_table_from_cheap_to_dear_with_ours_in_bold():
    text = markdown(make_results(make_row("gateway", 30.0, 50.0), make_row("nginx", 20.0, 20.0)))
    lines = [line for line in text.splitlines() if line.startswith(("| nginx | 2", "| **gate"))]
    assert lines == [
        "| nginx | 20 | 1 | 1,000 | 1 | 1.00 | 2.00 | 5.00 | 40 | 90 | 0 |",
        "| **gateway** | 40 | 2 | 1,000 | 1 | 1.00 | 2.00 | 5.00 | 40 | 90 | 0 |",
    ]


def test_a_row_that_failed_has_no_figures_and_says_why():
    text = markdown(make_results(make_row("envoy", None, failures=("wrong answer: 503",))))
    assert "| envoy | - | - | - | - | - | - | - | - | - | failed |" in text
    assert "- envoy: wrong answer: 503" in text


def test_errors_stand_out():
    assert "| **7** |" in markdown(make_results(Row("envoy", (make_sample(errors=7),))))


def test_targets_missed_and_things_not_measured_are_told():
    text = markdown(
        make_results(
            make_row("nginx", 10.0),
            make_row("gateway", 20.0),
            findings=(Finding("decision", "one decision", 4.25, "us"),),
            missing={"haproxy": "install the package haproxy"},
            broken={"idle-1000": "exited with 1"},
        )
    )
    assert "| 300 B, 32 connections: CPU/request to nginx | <= 1.6 | 2 | **no** |" in text
    assert "| decision, 50 rules and 100 models (us) | <= 5 | 4.25 | yes |" in text
    assert "| one decision | 4.25 us |" in text
    assert "- haproxy: install the package haproxy" in text
    assert "- idle-1000: exited with 1" in text


def test_a_figure_never_stands_without_its_machine():
    text = markdown(make_results(make_row("nginx", 10.0)))
    for fact in ("2026-11-24 10:00 UTC", "Test 9000", "nginx/1.22.1", "`python -m tests.bench"):
        assert fact in text


def test_each_row_of_the_gateway_is_told_beside_its_rivals_and_with_what_it_met():
    rows = (make_row("nginx", 10.0), make_row("gateway", 15.0), make_row("envoy", 20.0))
    assert ("| 300 B | 15 | 1.5 | 0.75 | 1 (1, 1) | 2 (2, 2) | 5 (5, 5) | 4 of 4 |") in markdown(
        make_results(*rows)
    )


def test_a_row_that_misses_a_target_stands_out():
    rows = (make_row("nginx", 10.0), make_row("gateway-keys", 20.0))
    text = markdown(make_results(*rows, scenario="key-32"))
    assert "| 300 B | 20 | 2 | - | 1 (1, -) | 2 (2, -) | 5 (5, -) | **2 of 3** |" in text
