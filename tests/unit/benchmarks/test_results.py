import pytest

from tests.benchmarks.results import Row, ratio, summary
from tests.unit.benchmarks.builders import make_results, make_row, make_sample


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ((20.0, 20.0, 20.0), (10.0, 10.0, 10.0), 2.0),
        # The machine slows down: both double, and the ratio stays.
        ((20.0, 40.0, 80.0), (10.0, 20.0, 40.0), 2.0),
        ((30.0, 20.0, 50.0), (10.0, 10.0, 10.0), 3.0),
        ((20.0, None, 60.0), (10.0, 1.0, 30.0), 2.0),
        ((20.0, 60.0, 60.0), (10.0, None, None), 2.0),
        ((20.0,), (None,), None),
        ((20.0,), (0.0,), None),
    ],
    ids=[
        "constant",
        "paired within a round",
        "median, not mean",
        "a round of ours is missing",
        "rounds of theirs are missing",
        "no common round",
        "nothing to divide by",
    ],
)
def test_ratio_is_the_median_over_rounds(
    ours: tuple[float | None, ...], theirs: tuple[float | None, ...], expected: float | None
):
    row, reference = make_row("gateway", *ours), make_row("nginx", *theirs)
    assert ratio(row, reference, "cpu_us") == expected


def test_without_a_reference_there_is_no_ratio():
    found = summary(make_row("gateway", 20.0), None)
    assert found is not None
    assert (found.cpu_us, found.cpu_ratio, found.rps_ratio) == (20.0, None, None)


def test_a_row_without_samples_has_no_summary():
    assert summary(make_row("gateway", None, failures=("refused",)), None) is None


def test_failures_name_scenario_system_and_cause():
    erring = Row("envoy", (make_sample(errors=2), make_sample(errors=1)))
    refusing = make_row("haproxy", None, 5.0, failures=("wrong answer",))
    results = make_results(
        make_row("nginx", 10.0), erring, refusing, missing={"x": "y"}, broken={"gateway": "exited"}
    )
    assert results.failed == [
        "gateway: exited",
        "infer-32 envoy: 3 errors",
        "infer-32 haproxy: wrong answer",
    ]


def test_strangers_on_the_core_are_told_as_a_median():
    shares = [2.0, 30.0, 4.0]
    samples = tuple(make_sample(others_percent=share) for share in shares)
    assert make_results(Row("nginx", samples)).others_percent == 4.0
    assert make_results().others_percent == 0.0
