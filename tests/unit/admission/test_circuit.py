from typing import Any

import pytest

from router.admission.circuit import CircuitBreaker, CircuitParams

PARAMS = CircuitParams(failures_to_open=3, pause_s=1.0, max_pause_s=4.0)


@pytest.fixture
def circuit():
    return CircuitBreaker(PARAMS)


def fail(circuit, times, now=0.0) -> Any:
    return [circuit.failed(now) for _ in range(times)]


def test_it_opens_at_the_third_failure_in_a_row(circuit):
    assert fail(circuit, 3) == [False, False, True]
    assert circuit.is_open(0.5)
    assert circuit.opened == 1


def test_a_success_in_between_starts_the_count_again(circuit):
    fail(circuit, 2)
    circuit.succeeded()
    fail(circuit, 2)
    assert not circuit.is_open(0.0)


def test_after_the_pause_one_trial_is_made_and_others_wait_for_it(circuit):
    fail(circuit, 3)
    assert circuit.is_open(0.99)
    assert not circuit.is_open(1.0)
    circuit.admit(1.0)
    assert circuit.is_open(1.5)


def test_a_good_trial_closes_it_and_resets_the_pause(circuit):
    fail(circuit, 3)
    circuit.admit(1.0)
    circuit.succeeded()
    assert not circuit.is_open(1.1)
    circuit.admit(1.1)
    assert not circuit.is_open(1.1)
    assert fail(circuit, 3, 2.0) == [False, False, True]
    assert not circuit.is_open(3.0)


def test_every_bad_trial_doubles_the_pause_up_to_the_maximum(circuit):
    fail(circuit, 3)
    now, pauses = 0.0, []
    for _ in range(4):
        opened_at = now
        while circuit.is_open(now):
            now += 0.25
        pauses.append(now - opened_at)
        circuit.admit(now)
        assert circuit.failed(now) is True
    assert pauses == [1.0, 2.0, 4.0, 4.0]


def test_a_trial_without_an_outcome_does_not_close_the_door_for_ever(circuit):
    fail(circuit, 3)
    circuit.admit(1.0)
    # The pause has doubled; the trial's outcome is waited for as long as that.
    assert circuit.is_open(2.9)
    assert not circuit.is_open(3.0)


def test_a_trial_that_is_not_made_is_left_to_the_next_call(circuit):
    fail(circuit, 3)
    circuit.admit(1.0)
    circuit.not_tried()
    assert not circuit.is_open(1.0)
    circuit.admit(1.0)
    assert circuit.failed(1.0) is True, "that was a trial too"


def test_stragglers_that_fail_while_it_is_open_do_not_lengthen_the_pause(circuit):
    fail(circuit, 3)
    assert fail(circuit, 5, 0.5) == [False] * 5
    assert not circuit.is_open(1.0)
    assert circuit.opened == 1


def test_calls_admitted_while_it_is_closed_are_no_trials(circuit):
    circuit.admit(0.0)
    assert not circuit.is_open(0.0)


def test_a_pause_holds_whatever_succeeds_meanwhile_and_needs_no_trial(circuit):
    circuit.pause(0.0, 3.0)
    circuit.succeeded()
    assert circuit.is_open(2.9)
    assert circuit.open_for_s(1.0) == 2.0
    circuit.admit(3.0)
    assert not circuit.is_open(3.0)
    assert circuit.open_for_s(3.0) == 0.0


@pytest.mark.parametrize(
    ("pauses", "ends"),
    [([(0.0, 3600.0)], 4.0), ([(0.0, 3.0), (1.0, 1.0)], 3.0), ([(0.0, 0.0)], 0.0)],
    ids=["bounded", "a shorter one later", "none"],
)
def test_how_long_a_pause_is(circuit, pauses, ends):
    for now, seconds in pauses:
        circuit.pause(now, seconds)
    assert circuit.open_for_s(0.0) == ends


def test_what_fails_again_soon_after_it_worked_is_left_alone_for_longer():
    circuit = CircuitBreaker(CircuitParams(3, pause_s=1.0, max_pause_s=4.0, forgive_ratio=2.0))
    now, pauses = 0.0, []
    for worked_s in (1.0, 1.0, 20.0, 0.0):
        fail(circuit, 3, now)
        opened_at = now
        while circuit.is_open(now):
            now += 0.25
        pauses.append(now - opened_at)
        assert circuit.succeeded()
        now += worked_s
    assert pauses == [1.0, 2.0, 4.0, 1.0], "it worked for long enough before the last one"


def test_a_success_tells_whether_the_circuit_had_been_open(circuit):
    assert not circuit.succeeded()
    fail(circuit, 1)
    assert not circuit.succeeded()
    fail(circuit, 3)
    assert circuit.succeeded()


def test_a_grown_pause_may_be_cut_short_by_one_trial_at_a_time(circuit):
    fail(circuit, 3)
    assert not circuit.may_be_tried(0.9)
    circuit.admit(1.0)
    circuit.failed(1.0)  # a pause of two seconds now, until 3.0
    assert [circuit.may_be_tried(now) for now in (1.9, 2.0)] == [False, True]
    circuit.admit(2.0)
    assert not circuit.may_be_tried(2.5), "its outcome is waited for"
    circuit.failed(2.5)
    assert [circuit.may_be_tried(now) for now in (3.4, 3.5)] == [False, True]
    circuit.admit(3.5)
    assert circuit.succeeded()
    assert not circuit.may_be_tried(9.0), "it is closed"


def test_an_early_trial_without_an_outcome_is_not_waited_for_long():
    circuit = CircuitBreaker(CircuitParams(1, pause_s=1.0, max_pause_s=30.0))
    now = 0.0
    for pause_s in (1.0, 2.0, 4.0, 8.0, 16.0):
        circuit.failed(now)
        now += pause_s
        assert not circuit.is_open(now)
        circuit.admit(now)
    circuit.failed(now)  # for 30 seconds
    circuit.admit(now + 1.0)
    assert circuit.may_be_tried(now + 3.0)


RATE = CircuitParams(failures_to_open=5, pause_s=1.0, window=20, failure_ratio=0.8)


@pytest.mark.parametrize(
    ("outcomes", "is_open"),
    [
        ("xxxx", False),
        ("xxxxx", True),
        (".xxxx", False),
        (".xxxxx", True),
        ("xx." * 100, False),
        ("." * 1000 + "x" * 15, False),
        ("." * 1000 + "x" * 16, True),
        ("xxx." * 100 + "x" * 5, True),
    ],
    ids=[
        "too few to tell", "all of the first", "four of five", "five of six", "two of three",
        "not enough of the last", "enough of the last", "nearly all, then all",
    ],
)  # fmt: skip
def test_with_a_window_the_share_of_failures_opens_it(outcomes, is_open):
    circuit = CircuitBreaker(RATE)
    for outcome in outcomes:
        _ = circuit.failed(0.0) if outcome == "x" else circuit.succeeded()
    assert circuit.is_open(0.5) is is_open


def test_what_was_before_it_opened_does_not_count_once_it_is_closed_again():
    circuit = CircuitBreaker(RATE)
    fail(circuit, 20)
    circuit.admit(1.0)
    circuit.succeeded()
    assert fail(circuit, 5, 2.0) == [False, False, False, False, True]
