"""Settings of tracing: which requests' spans are sent, and where to.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from router.settings.extras import needs_extra
from router.settings.functions import AddedHeader, AddedValue
from router.settings.quantities import DURATION, NUMBER, Quantity
from router.settings.section import Section
from router.settings.values import MAX_LIST_ITEMS, Text, Url


class Tail(StrEnum):
    """What makes a request's trace worth keeping, once it has ended."""

    ERRORS = "errors"
    SLOW = "slow"
    COLD = "cold"
    HEDGED = "hedged"


Collector = Annotated[str, Url(("http", "https"), empty=True)]
ServiceName = Annotated[str, Text(r"[!-~]([ -~]{0,98}[!-~])?", "1..100 characters of ASCII")]


def _can_encode(value: str) -> str:
    module = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
    return needs_extra(module, "otel")(value) if value else value


class TracingSettings(Section):
    """Spans of requests, sent to an OpenTelemetry collector."""

    endpoint: Annotated[Collector, AfterValidator(_can_encode)] = Field(
        default="",
        description="URL that spans are POSTed to (OTLP over HTTP, protobuf), such as"
        " http://collector:4318/v1/traces; empty: none are, and traceparent is passed on as it"
        " came",
    )
    headers: Mapping[AddedHeader, AddedValue] = Field(
        default={}, max_length=MAX_LIST_ITEMS,
        description="headers of those requests; secrets come from the environment: ${NAME}",
    )  # fmt: skip
    service_name: ServiceName = Field(
        default="hybrid-router", description="service.name of the gateway's spans"
    )
    sample: Annotated[float, Quantity(NUMBER, 0.0, 1.0)] = Field(
        default=0.01,
        description="share that is recorded of the traces that begin here; in all others, the"
        " client's word counts",
    )
    tail: Annotated[tuple[Tail, ...], Field(max_length=len(Tail))] = Field(
        default=tuple(Tail),
        description="requests whose spans are sent all the same: failed with a 5xx or in an"
        " attempt, slower than their model's objective, cold starts, hedged ones",
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 60.0)] = Field(
        default=10.0, alias="timeout", description="time that the collector has for one answer"
    )
