"""The latest events of a process: bounded, numbered, and found again by kind, model or text.

Collects the lines of the log that are events, whatever level the log itself has. Never writes any.
"""

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from router.domain.events import EventKind, Fact, Told

MOST_EVENTS = 10_000
MAX_TEXT = 500
_ROOT = "router"
_MICROSECONDS = 1_000_000
_ALIKE_WITHIN = 5 * _MICROSECONDS
"""So far apart processes of one gateway tell the same."""


class Event(msgspec.Struct, frozen=True):
    """One event; `at` is in seconds since 1970. Ids grow, from process to process too."""

    id: int
    at: float
    kind: EventKind
    level: str
    model: str
    text: str
    facts: Mapping[str, Fact] = {}


class Search(NamedTuple):
    """Which events are wanted: newer than `after`, of that kind and model, with that text."""

    after: int = 0
    kind: str = ""
    model: str = ""
    text: str = ""
    most: int = 1000

    def finds(self, event: Event) -> bool:
        """Whether this is one of them."""
        return (
            event.id > self.after
            and self.kind in {"", event.kind}
            and self.model in {"", event.model}
            and self.text.lower() in event.text.lower()
        )

    def among(self, events: Iterable[Event]) -> list[Event]:
        """The latest of them, the oldest first. `events` begins with the latest."""
        found: list[Event] = []
        for event in events:
            if event.id <= self.after or len(found) >= self.most:
                break
            if self.finds(event):
                found.append(event)
        return found[::-1]


class EventBook(logging.Handler):
    """Keeps the latest events from `attach` on until `detach`."""

    def __init__(self, most: int = MOST_EVENTS) -> None:
        super().__init__(logging.INFO)
        self._events: deque[Event] = deque(maxlen=most)
        self._level_before = logging.NOTSET

    def attach(self) -> None:
        """Collect what this process logs; lines below its log's own level too."""
        logger = logging.getLogger(_ROOT)
        self._level_before = logger.level
        if not logger.isEnabledFor(logging.INFO):
            logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def detach(self) -> None:
        """Collect no more."""
        logger = logging.getLogger(_ROOT)
        logger.removeHandler(self)
        logger.setLevel(self._level_before)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line that is an event. Called under the handler's lock, from any thread."""
        found = getattr(record, "event", None)
        if not isinstance(found, Told):
            return
        last = self._events[-1].id if self._events else 0
        number = max(last + 1, int(record.created * _MICROSECONDS))
        text, level = record.getMessage()[:MAX_TEXT], record.levelname.lower()
        at = round(record.created, 3)
        self._events.append(Event(number, at, found.kind, level, found.model, text, found.facts))

    def find(self, search: Search) -> list[Event]:
        """The latest that are wanted, the oldest first."""
        self.acquire()  # other threads may log
        try:
            return search.among(reversed(self._events))
        finally:
            self.release()


def merged(processes: Iterable[Iterable[Event]], most: int) -> list[Event]:
    """The events of several processes in the order of their times; what all tell is told once."""
    events = sorted((event for told in processes for event in told), key=lambda event: event.id)
    seen: dict[tuple[str, str], int] = {}
    found: list[Event] = []
    for event in events:
        key = event.kind, event.text
        if key in seen and event.id - seen[key] < _ALIKE_WITHIN:
            continue
        seen[key] = event.id
        found.append(event)
    return found[-most:]
