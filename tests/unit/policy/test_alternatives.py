import pytest

from router.policy.alternatives import DailyPeak, replicas_for_peak


@pytest.mark.parametrize(
    ("peak", "replicas"),
    [(0.0, 1), (0.9, 1), (1.0, 2), (10 / 1.1, 10), (4.0, 5), (90.0, 20)],
    ids=[
        "one is there without any load", "it has room for a tenth", "but no more",
        "what fits exactly fits", "whole replicas", "as many as may be",
    ],
)  # fmt: skip
def test_replicas_for_a_peak(peak: float, replicas: int) -> None:
    assert replicas_for_peak(peak, 20) == replicas


def test_the_peak_is_that_of_the_last_day() -> None:
    peak = DailyPeak()
    assert peak.add(1.0, 0.0) == 1.0
    assert peak.add(7.0, 3599.0) == 7.0
    assert peak.add(2.0, 23.5 * 3600) == 7.0
    assert peak.add(3.0, 24 * 3600.0) == 3.0
    assert peak.add(0.5, 900 * 3600.0) == 0.5
