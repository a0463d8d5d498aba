"""Each baseline's rule by table: what it wants after given facts."""

import numpy as np
import pytest

from router.policy.sizing import SizingParams
from router.replay.baselines import (
    Baseline,
    Fixed,
    Hpa,
    Kpa,
    Libra,
    Mark,
    Tick,
    baselines,
    best_static_split,
)
from router.replay.demand import DemandSeries

PARAMS = SizingParams(0, 50, 1.0, replica_usd_per_s=1.0, startup_s=60.0, min_billing_s=60.0)


def tick(now: float, dt: float, load: float, ready: int = 0, **facts) -> Tick:
    busy = min(load / ready, 1.0) if ready else 0.0
    usual = {"arrivals": 0, "work_s": load * dt, "busy_ratio": busy, "ready": ready,
             "wanted": ready, "queued": 0}  # fmt: skip
    return Tick(now=now, dt=dt, **{**usual, **facts})


def follow(baseline: Baseline, loads: list[float], ready: int = 0) -> list[int]:
    """Wanted after each interval, its replicas ready by the next one."""
    answers = []
    for step, load in enumerate(loads, 1):
        interval_s = baseline.interval_s
        ready = baseline.wanted(tick(step * interval_s, interval_s, load, ready))
        answers.append(ready)
    return answers


@pytest.mark.parametrize(
    ("ready", "load", "wanted"),
    [
        pytest.param(10, 7.0, 10, id="on target: nothing changes"),
        pytest.param(10, 7.6, 10, id="within the tolerance of a tenth"),
        pytest.param(10, 7.9, 12, id="above it: ready x busy / target, rounded up"),
        pytest.param(2, 2.0, 3, id="a full pool grows by what it can see"),
        pytest.param(0, 5.0, 1, id="never below one"),
    ],
)
def test_hpa_recommends_by_utilisation(ready, load, wanted):
    assert follow(Hpa("hpa", 50, overflow=False), [load], ready) == [wanted]


@pytest.mark.parametrize(("wanted", "most"), [(1, 5), (3, 7), (4, 8), (10, 20), (40, 50)], ids=str)
def test_hpa_doubles_or_adds_four_at_most(wanted, most):
    """With few replicas ready of many wanted it would ask for far more, were it let."""
    hpa = Hpa("hpa", 50, overflow=False, target_ratio=0.01)
    assert hpa.wanted(tick(15.0, 15.0, 99.0, wanted)) == most


def test_hpa_goes_down_after_five_minutes_at_the_highest_recommendation():
    answers = follow(Hpa("hpa", 50, overflow=False), [7.0] + [3.5] * 5 + [0.0] * 30, ready=10)
    assert answers[:20] == [10] * 20
    assert answers[20:25] == [5] * 5
    assert answers[-1] == 1


def kpa_after(loads: list[float], ready: int) -> list[int]:
    return follow(Kpa("kpa", 50, overflow=False), loads, ready)


def test_kpa_averages_over_a_minute():
    # 30 intervals of 2 s; half of them at 7 gives 3.5 / 0.7 = 5.
    assert kpa_after([0.0] * 15 + [7.0] * 15, ready=40)[-1] < 40
    assert kpa_after([3.5] * 60, ready=5)[-1] == 5


def test_kpa_panics_upwards_within_six_seconds():
    calm = kpa_after([0.7] * 60, ready=1)
    assert set(calm) == {1}
    burst = kpa_after([0.7] * 60 + [14.0] * 3, ready=1)[-3:]
    assert burst[-1] >= 10, "the minute's average would be 2"


def test_kpa_does_not_shrink_while_it_panics():
    answers = kpa_after([0.7] * 30 + [14.0] * 3 + [0.7] * 25, ready=1)
    peak = max(answers)
    assert answers[-1] == peak
    later = kpa_after([0.7] * 30 + [14.0] * 3 + [0.7] * 90, ready=1)
    assert later[-1] == 1


def test_kpa_halves_at_most_and_scales_to_zero():
    assert kpa_after([0.0], ready=40) == [20]
    assert kpa_after([0.0] * 40, ready=4)[-1] == 0


@pytest.mark.parametrize(
    ("loads", "wanted"),
    [
        pytest.param([5.0], 6, id="a fifth above the load"),
        pytest.param([5.0] + [1.0] * 9, 6, id="the peak of ten minutes"),
        pytest.param([5.0] + [1.0] * 10, 1, id="but not of eleven"),
        pytest.param([1.4], 2, id="the last replica above break-even: 1.68"),
        pytest.param([1.1], 1, id="none below it: 1.32"),
        pytest.param([90.0], 50, id="bounded"),
        pytest.param([0.0], 0, id="nothing for nothing"),
    ],
)
def test_mark(loads, wanted):
    assert follow(Mark(50, 0.4), loads)[-1] == wanted


@pytest.mark.parametrize(
    ("load", "wanted"),
    [(0.39, 0), (0.4, 1), (1.0, 1), (1.39, 1), (1.4, 2), (90.0, 50)],
    ids=str,
)
def test_libra_buys_above_indifference(load, wanted):
    assert follow(Libra(50, 0.4), [load]) == [wanted]


def test_fixed_looks_at_nothing():
    assert follow(Fixed("peak", 4, overflow=False), [0.0, 9.0, 1.0]) == [4, 4, 4]


def series(*load: float, rho: float = 3.0) -> DemandSeries:
    loads = np.array(load, dtype=np.float64)
    return DemandSeries(60.0, loads, loads * rho)


@pytest.mark.parametrize(
    ("train", "split"),
    [
        pytest.param(series(0.2, 0.2), 0, id="below break-even: none"),
        pytest.param(series(2.0, 2.0), 2, id="steady: all"),
        pytest.param(series(4, 1, 1, 1), 1, id="a peak for a quarter of the time: serverless"),
        pytest.param(series(4, 4, 1, 1), 4, id="for half of it: replicas"),
        pytest.param(series(90.0, 90.0), 50, id="bounded"),
        pytest.param(series(), 0, id="no training part"),
    ],
)
def test_best_static_split_is_the_cheapest_constant(train, split):
    assert best_static_split(train, PARAMS) == split


def test_captive_work_keeps_a_replica_in_the_split():
    loads = np.array([0.01, 0.0])
    train = DemandSeries(60.0, loads, np.zeros(2), captive_load=loads)
    assert best_static_split(train, PARAMS) == 1


def test_parameters_come_from_the_training_part():
    named = {baseline.name: baseline for baseline in baselines(series(4, 1, 1, 1.0), PARAMS)}
    assert list(named) == [
        "always_serverless", "peak_warm", "static_split", "hpa", "hpa_overflow", "kpa", "mark",
        "libra",
    ]  # fmt: skip
    assert [follow(named[name], [9.0])[0] for name in list(named)[:3]] == [0, 5, 1]
    # Break-even: a replica at 1/3.
    assert follow(named["libra"], [0.3]) == [0]
    assert follow(named["libra"], [0.34]) == [1]
    overflowing = {name for name, baseline in named.items() if baseline.overflow}
    assert overflowing == {
        "always_serverless", "static_split", "hpa_overflow", "mark", "libra",
    }  # fmt: skip


def test_without_serverless_price_nothing_breaks_even_by_price():
    named = {baseline.name: baseline for baseline in baselines(series(1.0, rho=0.0), PARAMS)}
    assert follow(named["libra"], [0.9]) == [0]
