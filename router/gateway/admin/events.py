"""Questions for events, as the admin port gets them, and its answer."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import msgspec

from router.domain.errors import InvalidRequestError
from router.domain.events import EventKind
from router.telemetry.events import MOST_EVENTS, Event, Search

EVENTS_PATH = "/v1/events"
_USUAL = 1000


class EventsDocument(msgspec.Struct):
    """The answer. `last` is for asking what has happened since."""

    events: Sequence[Event]
    last: int


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    after: int = 0
    limit: int = _USUAL
    kind: EventKind | None = None
    model: str = ""
    text: str = ""


def search_of(query: Mapping[str, str]) -> Search:
    """What a query asks for. Raises InvalidRequestError."""
    try:
        asked = msgspec.convert(dict(query), _Asked, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"the question is not valid: {error}") from error
    if not 0 < asked.limit <= MOST_EVENTS:
        raise InvalidRequestError(f"limit = {asked.limit}, must be in 1..{MOST_EVENTS}")
    return Search(asked.after, asked.kind or "", asked.model, asked.text, asked.limit)


def path_of(search: Search) -> str:
    """The path and query that ask for it."""
    asked = {
        "after": search.after, "limit": search.most, "kind": search.kind, "model": search.model,
        "text": search.text,
    }  # fmt: skip
    return f"{EVENTS_PATH}?{urlencode({name: value for name, value in asked.items() if value})}"


def document(found: Sequence[Event], search: Search) -> EventsDocument:
    """What was found."""
    return EventsDocument(found, found[-1].id if found else search.after)
