"""Canaries are rolled back for what they do, and hardly ever by chance."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.policy.canary import Canary, Side
from router.policy.rollback import RollbackParams, Tally, judge
from router.policy.trial import CanaryTrial

PARAMS = RollbackParams(50, 300.0, 0.02, 0.25, 0.95, 0.999)

params = st.builds(
    RollbackParams,
    min_requests=st.integers(1, 200),
    window_s=st.floats(1.0, 600.0),
    error_margin=st.floats(0.0, 1.0),
    latency_margin=st.floats(0.0, 10.0),
    latency_quantile=st.floats(0.5, 0.99),
    confidence=st.floats(0.9, 0.999999),
)
ends = st.lists(st.none() | st.floats(0.0, 1e5), max_size=300)


def tally_of(found: list[float | None]) -> Tally:
    made = Tally()
    for latency_s in found:
        made.add(latency_s)
    return made


@given(params=params, stable=ends, canary=ends)
def test_any_history_has_a_verdict_and_an_equal_one_is_no_fault(params, stable, canary):
    judge(tally_of(stable), tally_of(canary), params)
    assert judge(tally_of(canary), tally_of(canary), params) is None


@given(params=params, canary=ends, more=st.integers(1, 50))
def test_more_errors_never_save_a_canary(params, canary, more):
    stable = tally_of([0.1] * 300)
    before = judge(stable, tally_of(canary), params)
    worse = [*canary, *[None] * more]
    if before is not None and before.fault == "errors":
        assert judge(stable, tally_of(worse), params) is not None


@settings(max_examples=50)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(Side), st.none() | st.floats(0, 10), st.floats(0, 30)),
        max_size=200,
    ),
    asked=st.lists(st.sampled_from(["roll_back", "resume"]), max_size=5),
)
def test_a_trial_counts_everything_once_and_its_window_forgets(steps, asked):
    trial = CanaryTrial(Canary("m", "n", None, 0.5, rollback=PARAMS))
    now = 0.0
    for side, latency_s, pause_s in steps:
        now += pause_s
        was_out = trial.is_rolled_back
        finding = trial.record(side, latency_s, now)
        assert not (was_out and finding)
        assert trial.share == (0.0 if trial.is_rolled_back else 0.5)
    for action in asked:
        getattr(trial, action)()
    assert sum(trial.totals.values()) == len(steps)
    in_window = sum(found.requests for found in trial.window(now))
    assert in_window <= len(steps)
    assert sum(found.requests for found in trial.window(now + 10_000)) == 0


@pytest.mark.parametrize(
    ("error_ratio", "sigma"), [(0.0, 0.5), (0.02, 0.5), (0.2, 1.0)], ids=["none", "some", "many"]
)
def test_equal_sides_are_left_alone(error_ratio, sigma):
    """A hundred trials of 750 requests to either side, with a look after every tenth."""
    rng = random.Random(7)
    false_alarms = 0
    for _ in range(100):
        trial = CanaryTrial(Canary("m", "n", None, 0.5, rollback=PARAMS))
        for n in range(1500):
            side = Side.CANARY if n % 2 else Side.STABLE
            failed = rng.random() < error_ratio
            trial.record(side, None if failed else rng.lognormvariate(-4, sigma), n * 0.05)
        false_alarms += trial.is_rolled_back
    assert false_alarms <= 1


@pytest.mark.parametrize(
    ("error_ratio", "slower"), [(0.1, 1.0), (0.0, 2.0)], ids=["ten percent fail", "twice as slow"]
)
def test_a_bad_canary_is_found_soon(error_ratio, slower):
    rng = random.Random(7)
    found_after = []
    for _ in range(40):
        trial = CanaryTrial(Canary("m", "n", None, 0.1, rollback=PARAMS))
        for n in range(40_000):
            side = Side.CANARY if n % 10 == 0 else Side.STABLE
            is_canary = side is Side.CANARY
            failed = is_canary and rng.random() < error_ratio
            latency_s = rng.lognormvariate(-4, 0.5) * (slower if is_canary else 1.0)
            if trial.record(side, None if failed else latency_s, n * 0.005):
                break
        found_after.append(trial.totals[Side.CANARY, False] + trial.totals[Side.CANARY, True])
        assert trial.is_rolled_back
    assert sorted(found_after)[len(found_after) // 2] < 400


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from(["roll_back", "resume", "tell"]), st.integers(0, 2)
        ),
        max_size=30,
    )
)
def test_gateways_that_tell_each_other_agree_in_the_end(steps):
    trials = [CanaryTrial(Canary("m", "n", None, 0.5, rollback=PARAMS)) for _ in range(3)]

    def words():
        return [(trial.term, trial.is_rolled_back) for trial in trials]

    for who, action, whom in steps:
        if action == "tell":
            trials[whom].hear([(trials[who].term, trials[who].is_rolled_back)])
        else:
            getattr(trials[who], action)()
    agreed = max(words())
    for trial in trials:
        trial.hear(words())
    assert words() == [agreed] * 3
