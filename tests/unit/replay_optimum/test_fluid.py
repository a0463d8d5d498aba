"""The fluid evaluator: what a sizing rule costs on a series, second by second."""

import numpy as np
import pytest

from router.replay.baselines import Fixed, Hpa
from tests.unit.replay_optimum.fluid import BaselineSizer, Facts, LevelSizer, run
from tests.unit.replay_optimum.shapes import DT, REPLICA_USD_PER_S, params_of, series_of

USD = REPLICA_USD_PER_S * DT
"""One replica for one bin."""


class Script:
    """Wants what it is told, bin by bin, and keeps what it was shown."""

    def __init__(self, *wanted: int, overflow: bool = True) -> None:
        self.overflow = overflow
        self.seen: list[Facts] = []
        self._wanted = wanted

    def wanted(self, facts: Facts) -> int:
        self.seen.append(facts)
        return self._wanted[min(len(self.seen), len(self._wanted)) - 1]


def loads(*values: float):
    return series_of(np.array(values, dtype=np.float64), rho=3.0)


@pytest.mark.parametrize(
    ("load", "wanted", "replica", "warm_bins", "serverless_bins", "starts"),
    [
        pytest.param([2, 2, 2], [0], (0, 0), 0, 6, 0, id="no replica: all on serverless"),
        pytest.param([2, 2, 2], [2], (0, 0), 6, 0, 2, id="enough replicas: none"),
        pytest.param([2, 2, 2], [1], (0, 0), 3, 3, 1, id="what does not fit spills"),
        pytest.param([1, 1, 1, 1], [1], (10, 0), 4, 2, 1, id="serverless bridges the start"),
        pytest.param([1, 1, 1, 1], [1], (7.5, 0), 4, 1.5, 1, id="ready within a bin"),
        pytest.param([0, 0, 0, 0], [1, 0], (0, 15), 3, 0, 1, id="the minimum is paid unused"),
        pytest.param([0, 0], [1, 0], (0, 60), 2, 0, 1, id="but not beyond the end"),
        pytest.param([0, 0, 0], [1, 0, 1], (0, 0), 2, 0, 2, id="a start after a stop is another"),
        pytest.param([0] * 4, [1, 2, 1], (0, 15), 7, 0, 2, id="the youngest leaves first"),
    ],
)
def test_bill(load, wanted, replica, warm_bins, serverless_bins, starts):
    bill = run(loads(*load), params_of(*replica), Script(*wanted))
    assert bill.warm_usd == pytest.approx(warm_bins * USD)
    assert bill.serverless_usd == pytest.approx(serverless_bins * 3 * USD)
    assert bill.starts == starts
    assert bill.total_usd == pytest.approx(bill.warm_usd + bill.serverless_usd)


def test_work_may_wait_for_a_replica_but_not_longer_than_allowed():
    series = loads(2, 0, 0)
    assert run(series, params_of(0.0), Script(1), wait_s=5.0).serverless_usd == 0
    half = run(series, params_of(0.0), Script(1), wait_s=2.5).serverless_usd
    assert half == pytest.approx(0.5 * 3 * USD)


def test_without_overflow_work_waits_on():
    assert run(loads(9, 0, 0), params_of(0.0), Script(1, overflow=False)).serverless_usd == 0


def test_captive_work_waits_for_a_replica_and_asks_for_it():
    series = loads(0.5, 0, 0, 0)
    captive = type(series)(DT, series.load, series.serverless_usd_per_s * 0, series.load)
    script = Script(0, 0, 1)
    bill = run(captive, params_of(0.0, 0.0), script)
    assert bill.serverless_usd == 0
    assert [facts.demand.held for facts in script.seen] == [0, 1, 1, 0]
    assert [facts.busy_ratio for facts in script.seen] == [0, 0, 0, 0.5]


def test_a_rule_sees_a_bin_once_it_is_over():
    script = Script(1)
    run(loads(0.2, 0.4, 0.6), params_of(5.0), script)
    assert [facts.demand.load for facts in script.seen] == [0.0, 0.2, 0.4]
    assert [facts.dt for facts in script.seen] == [0.0, DT, DT]
    assert [facts.ready for facts in script.seen] == [0, 1, 1]


def test_a_baseline_is_asked_at_its_interval():
    """HPA every 15 s = three bins: full at one replica it asks for two, then three."""
    sizer = BaselineSizer(Hpa("hpa", 9, overflow=True))
    series = loads(*[9.0] * 8)
    bill = run(series, params_of(0.0, 0.0), sizer)
    assert bill.starts == 3
    assert bill.warm_usd == pytest.approx((3 * 1 + 3 * 2 + 2 * 3) * USD)


def test_a_fixed_pool_costs_its_replicas():
    bill = run(loads(0, 0, 0, 0), params_of(0.0), BaselineSizer(Fixed("f", 3, overflow=False)))
    assert bill.warm_usd == pytest.approx(12 * USD)


def test_the_live_rule_runs_behind_its_window():
    """One spike of a bin is spread over the window of two: it never looks like two replicas."""
    spikes = np.zeros(100)
    spikes[::2] = 2.0
    params = params_of(0.0, 30.0)
    assert run(series_of(spikes, 3.0), params, LevelSizer(params, window_s=2 * DT)).starts == 1
    assert run(series_of(spikes, 3.0), params, LevelSizer(params, window_s=DT)).starts > 1
