from dataclasses import replace

import pytest

from router.policy.canary import Canary, Side
from router.policy.rollback import Fault
from router.policy.trial import CanaryTrial
from tests.unit.policy.test_rollback import PARAMS

CANARY = Canary("m", "m2", None, 0.2, rollback=PARAMS)


def run(trial, requests, now=0.0, fails=False, step_s=0.01):
    """Four stable requests to one of the canary's, until something is found."""
    for n in range(requests):
        at = now + n * step_s
        for _ in range(4):
            trial.record(Side.STABLE, 0.02, at)
        finding = trial.record(Side.CANARY, None if fails else 0.02, at)
        if finding is not None:
            return finding, at
    return None, now + requests * step_s


def test_a_failing_canary_loses_its_share():
    trial = CanaryTrial(CANARY)
    finding, _ = run(trial, 200, fails=True)
    assert finding is not None
    assert finding.fault is Fault.ERRORS
    assert (trial.share, trial.is_rolled_back, trial.rollbacks) == (0.0, True, 1)
    assert trial.totals[Side.CANARY, True] == 50  # the fewest that are looked at


def test_a_good_canary_keeps_it():
    trial = CanaryTrial(CANARY)
    assert run(trial, 2000)[0] is None
    assert (trial.share, trial.rollbacks) == (0.2, 0)


def test_one_that_turns_bad_later_is_found_in_the_window():
    trial = CanaryTrial(CANARY)
    _, now = run(trial, 20_000)
    finding, at = run(trial, 20_000, now, fails=True)
    assert finding is not None
    assert at - now < PARAMS.window_s


def test_what_is_older_than_the_window_does_not_count():
    trial = CanaryTrial(CANARY)
    run(trial, 49, fails=True)
    stable, canary = trial.window(PARAMS.window_s * 1.2)
    assert (stable.requests, canary.requests) == (0, 0)
    assert run(trial, 1, PARAMS.window_s * 1.2, fails=True)[0] is None
    assert trial.totals[Side.CANARY, True] == 50


def test_resumed_it_starts_from_nothing():
    trial = CanaryTrial(CANARY)
    run(trial, 200, fails=True)
    assert trial.resume()
    assert not trial.resume()
    assert trial.share == 0.2
    assert run(trial, 40, now=3.0, fails=True)[0] is None
    assert run(trial, 40, now=4.0, fails=True)[0] is not None
    assert trial.rollbacks == 2


def test_by_hand():
    trial = CanaryTrial(CANARY)
    assert trial.roll_back()
    assert not trial.roll_back()
    assert trial.finding is not None
    assert trial.finding.fault is Fault.ASKED


def test_nobody_watches_without_rollback():
    trial = CanaryTrial(replace(CANARY, rollback=None))
    assert run(trial, 500, fails=True)[0] is None
    assert trial.share == 0.2
    assert trial.totals[Side.CANARY, True] == 500


def test_requests_that_end_after_a_rollback_change_nothing():
    trial = CanaryTrial(CANARY)
    run(trial, 200, fails=True)
    assert trial.record(Side.CANARY, None, 100.0) is None
    assert trial.rollbacks == 1


@pytest.mark.parametrize(
    ("own", "words", "expected"),
    [
        ((0, False), [], (0, False)),
        ((0, False), [(0, True)], (0, True)),
        ((0, True), [(0, False)], (0, True)),
        ((0, True), [(1, False)], (1, False)),
        ((1, False), [(0, True)], (1, False)),
        ((1, False), [(0, True), (1, True)], (1, True)),
        ((0, True), [(2, True), (1, False)], (2, True)),
    ],
    ids=[
        "nobody else is there",
        "another has rolled it back",
        "another has not noticed yet",
        "another has resumed it",
        "a word from before it was resumed",
        "one from after that",
        "the latest term holds",
    ],
)
def test_gateways_agree(own, words, expected):
    trial = in_state(*own)
    changed = trial.hear(words)
    assert (trial.term, trial.is_rolled_back) == expected
    assert changed == (own[1] != expected[1])
    assert not trial.hear(words)


def in_state(term: int, is_out: bool) -> CanaryTrial:
    trial = CanaryTrial(CANARY)
    for _ in range(term):
        trial.roll_back()
        trial.resume()
    if is_out:
        trial.roll_back()
    return trial


def test_the_digest_is_that_of_the_settings():
    assert CanaryTrial(CANARY).digest == CanaryTrial(replace(CANARY)).digest
    assert CanaryTrial(CANARY).digest != CanaryTrial(replace(CANARY, share=0.3)).digest
