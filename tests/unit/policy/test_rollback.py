import pytest

from router.policy.rollback import Fault, RollbackParams, Tally, bucket_of, judge, wilson

PARAMS = RollbackParams(
    min_requests=50,
    window_s=300.0,
    error_margin=0.02,
    latency_margin=0.25,
    latency_quantile=0.95,
    confidence=0.999,
)


def tally(requests: int, errors: int = 0, latency_s: float = 0.02, spread: float = 2.0) -> Tally:
    """Latencies evenly spread from `latency_s` to `spread` times that."""
    made = Tally()
    for n in range(requests - errors):
        made.add(latency_s * (1 + (spread - 1) * n / (requests - errors)))
    for _ in range(errors):
        made.add(None)
    return made


def with_stragglers(requests: int, slow: int) -> Tally:
    """Ordinary latencies, and some of a second."""
    made = tally(requests - slow)
    for _ in range(slow):
        made.add(1.0)
    return made


@pytest.mark.parametrize(
    ("stable", "canary", "fault"),
    [
        (tally(1000), tally(100), None),
        (tally(1000), tally(49, errors=49), None),
        (tally(49), tally(100, errors=100), None),
        (tally(1000), tally(50, errors=50), Fault.ERRORS),
        (tally(1000, errors=10), tally(500, errors=60), Fault.ERRORS),
        (tally(1000, errors=500), tally(500, errors=250), None),
        (tally(1000), tally(50, errors=3), None),
        (tally(10_000), tally(5000, errors=75), None),
        (tally(10_000), tally(5000, errors=250), Fault.ERRORS),
        (tally(1000), tally(200, latency_s=0.08), Fault.LATENCY),
        (tally(1000), tally(200, latency_s=0.022), None),
        (tally(100), tally(200, latency_s=0.08), None),
        (tally(1000), tally(200, latency_s=0.002), None),
        (tally(1000), with_stragglers(100, 9), None),
        (tally(1000), with_stragglers(1000, 90), Fault.LATENCY),
        (tally(1000), tally(200, errors=199, latency_s=0.002), Fault.ERRORS),
    ],
    ids=[
        "both are fine",
        "too few of the canary's",
        "too few to compare with",
        "every one of the fewest fails",
        "twelve percent against one",
        "both fail alike",
        "three of fifty may be chance",
        "surely worse, but within the margin",
        "surely worse by more than the margin",
        "four times slower",
        "slower within the margin",
        "the stable quantile is not sure yet",
        "faster",
        "nine stragglers of a hundred may be chance",
        "ninety of a thousand are not",
        "fast because it fails",
    ],
)
def test_verdicts(stable, canary, fault):
    finding = judge(stable, canary, PARAMS)
    assert (finding.fault if finding else None) == fault


def test_a_finding_tells_its_numbers():
    finding = judge(tally(1000, errors=10), tally(500, errors=60), PARAMS)
    assert finding is not None
    assert finding.text == "12.0% of 500 requests failed, 1.0% on the stable side"


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Reference: statsmodels' proportion_confint(method="wilson"), 95 %.
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_interval(successes, trials, low, high):
    assert wilson(successes, trials, 1.959964) == pytest.approx((low, high), abs=1e-4)


def test_quantiles_are_within_a_bucket():
    made = tally(1000, latency_s=0.1, spread=2.0)
    for quantile, exact in ((0.5, 0.15), (0.95, 0.195), (0.99, 0.199)):
        assert made.quantile_s(quantile) == pytest.approx(exact, rel=0.06)
    assert Tally().quantile_s(0.95) is None


def test_extreme_latencies_have_a_bucket():
    assert bucket_of(0.0) == bucket_of(1e-9) == 0
    assert bucket_of(3600.0) > bucket_of(60.0)
