"""A canary that nothing speaks against gets a larger share, step by step."""

from dataclasses import replace

import pytest

from router.policy.canary import Canary, Promotion, Side
from router.policy.rollback import Fault, Finding, RollbackParams
from router.policy.trial import CanaryTrial

PROMOTION = Promotion(after_s=10.0, requests=5, labels=0, steps=(0.05, 0.5, 1.0))
CANARY = Canary("m", "next", None, 0.1, promotion=PROMOTION)
ROLLBACK = RollbackParams(10, 60.0, 0.02, 0.25, 0.95, 0.999)


def shares(trial, requests, step_s, *, start=0.0, latency_s=0.1):
    found = []
    for number in range(requests):
        trial.record(Side.CANARY, latency_s, start + number * step_s)
        found.append(trial.share)
    return found


def test_the_share_grows_when_time_and_requests_are_enough():
    trial = CanaryTrial(CANARY)
    found = shares(trial, 14, 2.0)
    assert found[:5] == [0.1] * 5  # ten seconds have passed with the sixth
    assert found[5] == trial.canary.share + 0.4 == 0.5
    assert shares(trial, 20, 2.0, start=100.0)[-1] == 1.0
    assert trial.step == 2
    assert shares(trial, 20, 2.0, start=200.0)[-1] == 1.0  # there is no more


def test_it_does_not_grow_before_its_time_or_with_too_few_requests():
    assert shares(CanaryTrial(CANARY), 100, 0.05)[-1] == 0.1
    assert shares(CanaryTrial(CANARY), 4, 100.0)[-1] == 0.1


def test_it_waits_for_labels_where_it_is_to():
    trial = CanaryTrial(replace(CANARY, promotion=replace(PROMOTION, labels=2)))
    assert shares(trial, 20, 2.0)[-1] == 0.1
    for _ in range(2):
        trial.count_label(Side.CANARY)
    assert shares(trial, 1, 2.0, start=50.0) == [0.5]
    assert trial.labels[Side.CANARY] == 0  # the next step wants labels of its own


def test_a_rollback_ends_the_steps_and_a_resumption_begins_them_anew():
    trial = CanaryTrial(CANARY)
    shares(trial, 6, 2.0)
    finding = Finding(Fault.ACCURACY, "wrong")
    assert not trial.convict(finding, "another trial 0")
    assert trial.convict(finding, trial.epoch)
    assert not trial.convict(finding, trial.epoch)
    assert shares(trial, 20, 2.0, start=50.0)[-1] == 0.0
    epoch = trial.epoch
    trial.resume()
    assert (trial.share, trial.step) == (0.1, 0)
    assert trial.epoch != epoch


def test_a_canary_that_fails_is_taken_out_and_not_promoted():
    trial = CanaryTrial(replace(CANARY, rollback=ROLLBACK))
    for at in range(20):
        trial.record(Side.STABLE, 0.1, float(at))
    assert shares(trial, 20, 1.0, latency_s=None)[-1] == 0.0


@pytest.mark.parametrize(("said", "share"), [(0, 0.1), (1, 0.5), (2, 1.0), (99, 1.0)])
def test_it_follows_a_gateway_that_is_further(said, share):
    trial = CanaryTrial(CANARY)
    assert trial.follow(said) == (said > 0)
    assert trial.share == share
    assert not trial.follow(said)
