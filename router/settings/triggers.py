"""Settings of events: who may send them, and which of them call which model.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from router.settings.extras import needs_extra
from router.settings.quantities import COUNT, DURATION, HOUR_S, MIB, SIZE, Quantity
from router.settings.section import Section
from router.settings.template import Template
from router.settings.values import ModelName, OpenAIPath, Text, TextList, Url

TriggerName = Annotated[
    str, Text(r"[A-Za-z0-9._-]{1,100}", "1..100 characters of A-Z a-z 0-9 . _ -")
]
_Attribute = Annotated[str, Text(r".{1,500}", "a text of 1..500 characters")]
_Email = Annotated[
    str, Text(r"[A-Za-z0-9._%+-]{1,100}@[A-Za-z0-9.-]{1,200}", "the email of a service account")
]
_KeyName = Annotated[
    str, Text(r"[A-Za-z0-9._@-]{1,100}", "the name of an API key of 1..100 characters")
]


class Unmatched(StrEnum):
    """What happens to events that no trigger is for."""

    REFUSE = "refuse"
    DROP = "drop"


class EventsSettings(Section):
    """Who may send events to /v1/events, and how much; which call what, `triggers` say."""

    unmatched: Unmatched = Field(
        default=Unmatched.REFUSE,
        description="events that no trigger is for: refuse (422), or drop (2xx, and counted)",
    )
    max_body: Annotated[int, Quantity(SIZE, 1024, 64 * MIB)] = Field(
        default=MIB, description="longest request with events; longer ones are answered 413"
    )
    max_events: Annotated[int, Quantity(COUNT, 1, 10_000)] = Field(
        default=100, description="most events in one request"
    )
    key_parameter: Annotated[
        str,
        Text(r"|[A-Za-z0-9_-]{1,50}", "a name of 1..50 characters of A-Z a-z 0-9 _ -, or empty"),
    ] = Field(
        default="",
        description="query parameter of /v1/events that may carry the API key, for senders that"
        " cannot send headers (Event Grid); empty: none",
    )
    google_audience: Annotated[
        str,
        Text(r"|[!-~]{1,500}", "the audience of the push subscription's tokens, or empty"),
        AfterValidator(
            lambda value: needs_extra("google.auth.jwt", "google")(value) if value else value
        ),
    ] = Field(
        default="",
        description="audience of the OIDC tokens of Pub/Sub push; empty: no such tokens are taken",
    )
    google_accounts: Annotated[Mapping[_Email, _KeyName], Field(max_length=100)] = Field(
        default={},
        description="service accounts whose tokens are taken, each with the name of the API key"
        " whose rights it has",
    )
    answer_source: _Attribute = Field(
        default="/hybrid-router", description="source of the events that answers are"
    )
    answer_type: _Attribute = Field(
        default="hybrid-router.answer",
        description="type of the events that answers are; .failed is added where there is none",
    )


class TriggerSettings(Section):
    """Events that call a model; the first trigger that matches decides."""

    name: TriggerName = Field(description="shown with the answer; unique")
    type: Annotated[tuple[str, ...], TextList()] = Field(
        default=(), description="type of the events, exact or glob, or a list; absent: any"
    )
    source: Annotated[tuple[str, ...], TextList()] = Field(
        default=(), description="source of the events, exact or glob, or a list; absent: any"
    )
    subject: Annotated[tuple[str, ...], TextList()] = Field(
        default=(), description="subject of the events, exact or glob, or a list; absent: any"
    )
    model: ModelName = Field(description="name of the model that is called")
    endpoint: OpenAIPath | None = Field(
        default=None,
        description="path of OpenAI's API that is called; absent: OIP's infer of the model",
    )
    input: Template | None = Field(
        default=None, description="body of the request; absent: the event's data as it is"
    )
    window_s: Annotated[float, Quantity(DURATION, 0.1, 30 * 24 * HOUR_S)] = Field(
        default=30.0,
        alias="window",
        description="time in which the model is to answer; without a sink the sender waits for it",
    )
    sink: Annotated[str, Url(("https", "http"), empty=True)] = Field(
        default="",
        description="URL that the answer is posted to, as an event; empty: it is the response",
    )
