"""Which runs the event loop can bear, as learned from their times."""

import math

import pytest

from workers.pace import Pace

LIMIT_S = 0.001
SHORT, MIDDLING, LONG, SURPRISING = 0.0001, 0.0008, 0.002, 0.006


def after(*runs: float, elements: int = 100, limit_s: float = LIMIT_S) -> Pace:
    pace = Pace(limit_s)
    for run_s in runs:
        pace.record(elements, run_s)
    return pace


QUICK = (SHORT,) * 8


@pytest.mark.parametrize(
    ("runs", "is_quick"),
    [
        ((), False),
        ((SHORT,) * 7, False),
        (QUICK, True),
        ((SHORT,) * 7 + (MIDDLING,) + (SHORT,) * 7, False),
        (QUICK + (MIDDLING,) * 50, True),
        (QUICK + (LONG,) * 7 + (SHORT,) + (LONG,) * 7, True),
        (QUICK + (LONG,) * 8, False),
        (QUICK + (LONG,) * 8 + QUICK, True),
        ((*QUICK, SURPRISING), False),
        ((*QUICK, SURPRISING, *QUICK * 4), False),
        ((*QUICK, SURPRISING, *QUICK * 5), True),
        ((*QUICK, SURPRISING, *QUICK * 5, SURPRISING, *QUICK * 8), False),
        ((*QUICK, SURPRISING, *QUICK * 5, SURPRISING, *QUICK * 9), True),
        ((*QUICK, math.inf, *QUICK), False),
    ],
    ids=[
        "nothing is known",
        "too few",
        "eight short ones in a row",
        "a row that was broken",
        "what is quick stays so up to the limit",
        "a few long ones are the machine's",
        "many long ones are the model's",
        "it may come back",
        "one that took many times as long",
        "bars it for a while",
        "but not for ever",
        "the second time for longer",
        "but not for ever, too",
        "as outputs that take long to write do",
    ],
)
def test_quick_is_what_was_short_for_a_while(runs, is_quick):
    pace = after(*runs)
    assert pace.is_quick(100) is is_quick
    assert pace.has_quick is is_quick


def test_each_size_of_input_is_for_itself():
    pace = after(*QUICK, elements=100)
    assert pace.is_quick(127)
    assert not pace.is_quick(128)
    assert not pace.is_quick(1)
    for run_s in (LONG,) * 8:
        pace.record(1000, run_s)
    assert pace.is_quick(100)


def test_without_a_limit_nothing_is_quick():
    assert not after(*(0.0,) * 100, limit_s=0.0).has_quick
