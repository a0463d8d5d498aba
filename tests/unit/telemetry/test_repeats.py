"""Events that repeat: how many are written, and that the others are counted."""

import logging
from typing import Any

import pytest

from router.telemetry.repeats import MOST, PERIOD_S, RepeatLimit

START = 1.7e9


@pytest.fixture
def written():
    """Let events happen, (line, text, seconds, is caused by strangers); returns what is written."""
    limit = RepeatLimit()

    def play(*events: tuple[int, str, float, bool]) -> list[str]:
        texts = []
        for line, text, at_s, by_strangers in events:
            named: dict[str, Any] = {"pathname": "a.py", "lineno": line, "msg": text + " %d"}
            named |= {"args": (7,), "created": START + at_s, "by_strangers": by_strangers}
            record = logging.makeLogRecord(named)
            if limit.filter(record):
                texts.append(record.getMessage())
        return texts

    return play


def test_one_event_of_strangers_in_each_period_and_the_rest_is_counted(written):
    flood = [(1, "refused", 0.001 * number, True) for number in range(1000)]
    later = (1, "refused", PERIOD_S, True)
    assert written(*flood, later) == [
        "refused 7", "refused 7 (999 more like it were not written)"
    ]  # fmt: skip


def test_texts_of_a_client_make_no_other_event(written):
    assert written(*[(1, text, 0.0, True) for text in "abc"]) == ["a 7"]


def test_other_places_are_written_beside_it(written):
    assert written(*[(line, "x", 0.0, True) for line in (1, 2, 1, 2)]) == ["x 7", "x 7"]


def test_any_event_has_its_limit(written):
    assert written(*[(1, "x", 0.0, False)] * (MOST + 50)) == ["x 7"] * MOST


def test_a_clock_that_is_set_back_silences_nothing(written):
    assert written((1, "x", 0.0, True), (1, "x", -3600.0, True)) == ["x 7", "x 7"]
