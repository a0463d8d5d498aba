"""What a gateway writes of itself: everything once, then what has changed."""

import json

import pytest

from router.signals.own_record import WHOLE_EVERY, OwnRecord, Told
from router.signals.records import FIELDS, KEPT_CHANGES, Publication
from router.signals.snapshot import ModelTotals

FIRST = 1000
NOTHING = Publication({}, {}, {})


def arrived(**models: int | None) -> Publication:
    return Publication(
        {name: None if count is None else ModelTotals(count) for name, count in models.items()},
        {},
        {},
    )


def told(record: OwnRecord, publication: Publication) -> Told:
    """What is to be written, which then is."""
    made = record.take(publication)
    record.written()
    return made


def begun(**models: int | None) -> OwnRecord:
    record = OwnRecord(FIRST)
    told(record, arrived(**models))
    return record


def names(made: Told) -> set[object]:
    return set(made.fields[::2])


def test_the_first_time_everything_is_written() -> None:
    made = told(OwnRecord(FIRST), arrived(a=1, b=2))

    assert made.after is None
    assert names(made) == {"head", "base", *FIELDS}


def test_nothing_is_written_while_nothing_is_new() -> None:
    record = begun(a=1, b=2)

    assert told(record, NOTHING) == Told(record.head, record.head, ())
    assert told(record, arrived(a=1)) == Told(record.head, record.head, ()), "that was said before"


def test_only_what_is_new_is_written_under_the_next_number() -> None:
    record = begun(a=1, b=2, c=3)
    before = record.head
    made = told(record, arrived(a=1, b=7, c=None))

    name, change = made.fields
    assert isinstance(change, bytes)
    assert (made.after, made.head, name) == (before, before + 1, f"c{before + 1}")
    assert json.loads(change) == {"totals": {"b": [7, 0.0, 0.0, 0, 0.0], "c": None}}


def test_the_whole_is_renewed_before_too_many_changes_would_have_to_be_read() -> None:
    record = begun(a=0)
    wholes = []
    for count in range(1, 4 * WHOLE_EVERY + 1):
        made = told(record, arrived(a=count))
        if "base" in made.fields:
            wholes.append(count)

    assert wholes == [WHOLE_EVERY * n for n in (1, 2, 3, 4)]
    assert WHOLE_EVERY < KEPT_CHANGES, "who follows them does not have to read the whole"


def test_what_may_not_have_been_written_is_written_again_with_what_is_new() -> None:
    record = begun(a=1)
    before = record.head
    record.take(arrived(a=2))  # and whether it was written, nobody knows
    made = told(record, arrived(b=1))

    assert (made.after, made.head) == (before, before + 2)
    assert names(made) == {f"c{before + 1}", f"c{before + 2}"}
    assert told(record, NOTHING) == Told(before + 2, before + 2, ())


def test_a_lost_record_is_written_whole_and_no_earlier_number_leads_to_it() -> None:
    record = begun(a=1)
    before = record.head
    record.take(arrived(a=2))
    record.lost()
    made = told(record, arrived(b=1))

    assert made.after is None
    totals = made.fields[made.fields.index("totals") + 1]
    assert isinstance(totals, bytes)
    assert {model: said["arrivals"] for model, said in json.loads(totals).items()} == {
        "a": 2,
        "b": 1,
    }
    assert record.head - before > KEPT_CHANGES


def test_after_a_long_outage_everything_is_written_whole() -> None:
    record = begun(a=1)
    made = [record.take(arrived(a=count)) for count in range(2, WHOLE_EVERY + 5)]

    assert made[0].after is not None
    assert made[-1].after is None


def test_what_cannot_be_written_down_costs_no_news() -> None:
    record = begun(a=1)
    broken: dict[str, int] = {"e": object()}  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        record.take(Publication({"b": ModelTotals(1)}, {}, broken))
    made = record.take(Publication({}, {}, {"e": None}))

    assert made.after is None
    assert b'"b"' in made.fields[made.fields.index("totals") + 1]  # type: ignore[operator]


def test_a_very_large_change_is_written_as_a_whole() -> None:
    record = begun(a=1)
    made = told(record, arrived(**{f"model-{number:05}": number + 1 for number in range(10_000)}))

    assert made.after is None
    assert "base" in made.fields
