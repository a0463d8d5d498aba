import json
import logging
from collections.abc import Iterator

import pytest

from router.domain.events import EVENT_HELP, EventKind, told
from router.telemetry.events import Event, EventBook, Search, merged
from router.telemetry.own_log import configure_logging

_log = logging.getLogger("router.somewhere")


@pytest.fixture
def book() -> Iterator[EventBook]:
    made = EventBook(most=5)
    made.attach()
    yield made
    made.detach()


def tell(*numbers: int, kind: EventKind = EventKind.SIZING, model: str = "m") -> None:
    for number in numbers:
        _log.info("wants %d", number, extra=told(kind, model, after=number))


def texts(found: list[Event]) -> list[str]:
    return [event.text for event in found]


def test_lines_that_are_events_are_kept_with_their_numbers(book: EventBook) -> None:
    _log.info("something else")
    tell(3)
    (event,) = book.find(Search())
    assert (event.kind, event.model, event.text) == ("sizing", "m", "wants 3")
    assert (event.level, event.facts) == ("info", {"after": 3})
    assert event.at == pytest.approx(event.id / 1e6, abs=0.001)


def test_the_latest_are_kept_in_order_and_no_two_have_one_id(book: EventBook) -> None:
    tell(*range(9))
    found = book.find(Search())
    assert texts(found) == [f"wants {number}" for number in range(4, 9)]
    ids = [event.id for event in found]
    assert sorted(set(ids)) == ids


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (Search(kind="canary"), ["wants 2"]),
        (Search(model="n"), ["wants 2", "wants 3"]),
        (Search(text="WANTS 1"), ["wants 1"]),
        (Search(most=2), ["wants 2", "wants 3"]),
        (Search(kind="canary", model="m"), []),
    ],
)
def test_events_are_found(book: EventBook, search: Search, expected: list[str]) -> None:
    tell(1)
    tell(2, kind=EventKind.CANARY, model="n")
    tell(3, model="n")
    assert texts(book.find(search)) == expected
    newest = book.find(Search())[-1].id
    assert book.find(search._replace(after=newest)) == []


def test_what_the_log_itself_leaves_out_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    book = EventBook()
    try:
        configure_logging("error")
        book.attach()
        tell(1)
    finally:
        book.detach()
        logging.basicConfig(level=before[1], handlers=before[0], force=True)
    assert texts(book.find(Search())) == ["wants 1"]
    assert capfd.readouterr().err == ""


def test_json_lines_have_the_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure_logging("info", "json")
        tell(1)
        _log.warning("half a character: %s", "\udcff")
    finally:
        logging.basicConfig(level=before[1], handlers=before[0], force=True)
    event, plain = map(json.loads, capfd.readouterr().err.splitlines())
    assert event["ts"].endswith("Z")
    del event["ts"]
    assert event == {
        "level": "info", "logger": "router.somewhere", "message": "wants 1", "event": "sizing",
        "model": "m", "facts": {"after": 1},
    }  # fmt: skip
    assert (plain["level"], plain["message"]) == ("warning", "half a character: \\udcff")


def test_what_all_processes_tell_is_told_once() -> None:
    def event(seconds: float, text: str) -> Event:
        return Event(int(seconds * 1e6), seconds, EventKind.CONFIG, "info", "", text)

    one = [event(1.0, "a -> b"), event(2.0, "only here"), event(60.0, "a -> b")]
    other = [event(1.5, "a -> b"), event(3.0, "only there")]
    assert texts(merged([one, other], 10)) == ["a -> b", "only here", "only there", "a -> b"]
    assert texts(merged([one, other], 2)) == ["only there", "a -> b"]


def test_every_kind_is_explained() -> None:
    assert set(EVENT_HELP) == set(EventKind)
