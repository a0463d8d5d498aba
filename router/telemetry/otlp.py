"""Kept traces as an OTLP message (https://opentelemetry.io/docs/specs/otlp/), protobuf.

Needs the extra `otel`: imported only where spans are sent. Names what spans are called and which
attributes they have: those of OpenTelemetry's conventions where there are any, else `router.*`.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from router.telemetry.logs import MAX_TEXT_LENGTH
from router.telemetry.trace import FAILED, Asked, Span, Step, Value
from router.telemetry.tracer import EndedTrace
from router.turns import Steps

_SCOPE = "hybrid-router"
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200


class Sender(NamedTuple):
    """Whose spans these are: `service.name`, `service.version` and `service.instance.id`."""

    name: str
    version: str
    instance: str


def encoding(
    traces: Iterable[EndedTrace], sender: Sender, offset_s: float
) -> Steps[tuple[bytes, int]]:
    """The message, and how many spans it has.

    `offset_s` added to the times of the spans gives seconds since 1970.
    """
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.extend(
        _attributes(
            ("service.name", sender.name),
            ("service.version", sender.version),
            ("service.instance.id", sender.instance),
        )
    )
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = _SCOPE, sender.version
    for ended in traces:
        for span in _spans(ended, offset_s):
            scope.spans.append(span)
        yield
    return request.SerializeToString(), len(scope.spans)


def rejected(answer: bytes) -> tuple[int, str]:
    """How many spans the collector says it has not taken, and why."""
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:  # it has taken them, and says something that is none of our business
        return 0, ""
    return int(partial.rejected_spans), str(partial.error_message)


def _spans(ended: EndedTrace, offset_s: float) -> Iterator[trace_pb2.Span]:
    trace_id, own_id = bytes.fromhex(ended.own.trace_id), bytes.fromhex(ended.own.parent_id)
    flags = ended.own.flags & 0xFF | _HAS_IS_REMOTE
    yield _request_span(ended, trace_id, own_id, offset_s)
    for number, step in enumerate(ended.spans, 1):
        span = trace_pb2.Span(
            trace_id=trace_id,
            span_id=bytes.fromhex(step.span_id) if step.span_id else _sibling(own_id, number),
            parent_span_id=bytes.fromhex(step.parent_id) if step.parent_id else own_id,
            flags=flags,
            name=_name(step, ended.asked, ended.record.model),
            kind=_kind(step),
            start_time_unix_nano=_nanos(step.start + offset_s),
            end_time_unix_nano=_nanos(max(step.start, step.end) + offset_s),
            attributes=_attributes(*step.attributes),
        )
        if step.step is Step.ATTEMPT and ended.asked.operation:
            span.attributes.extend(_attributes(*_gen_ai(ended, step)))
        if step.error:
            _fail(span, step.error)
        yield span


def _request_span(
    ended: EndedTrace, trace_id: bytes, own_id: bytes, offset_s: float
) -> trace_pb2.Span:
    record, asked = ended.record, ended.asked
    is_remote = _IS_REMOTE if ended.parent is not None else 0
    span = trace_pb2.Span(
        trace_id=trace_id,
        span_id=own_id,
        parent_span_id=b"" if ended.parent is None else bytes.fromhex(ended.parent.parent_id),
        flags=ended.own.flags & 0xFF | _HAS_IS_REMOTE | is_remote,
        name=f"{asked.method} {asked.route}".strip(),
        kind=trace_pb2.Span.SPAN_KIND_SERVER,
        start_time_unix_nano=_nanos(ended.start + offset_s),
        end_time_unix_nano=_nanos(ended.end + offset_s),
        attributes=_attributes(*_of_request(ended)),
    )
    if record.status >= FAILED:
        _fail(span, record.error or str(record.status))
    return span


def _of_request(ended: EndedTrace) -> Iterator[tuple[str, Value]]:
    record, asked = ended.record, ended.asked
    facts: dict[str, Value | None] = {
        "http.request.method": asked.method,
        "http.route": asked.route,
        "http.response.status_code": record.status,
        "http.request.body.size": record.payload_bytes,
        **{f"router.{name}": getattr(record, name) for name in _OF_RECORD},
        "router.kept": ended.kept.value,
    }
    return ((name, value) for name, value in facts.items() if value is not None)


_OF_RECORD = (
    "request_id", "protocol", "model", "version", "asked_model", "tenant", "backend", "reason",
    "rule", "endpoint", "attempts", "outcome", "cold_start", "cost_usd", "deadline_ms",
)  # fmt: skip
"""Fields of the access log that a request's span has too, as `router.NAME`."""


def _gen_ai(ended: EndedTrace, step: Span) -> Iterator[tuple[str, Value]]:
    """What OpenTelemetry's conventions for generative AI say of a call of a model."""
    record = ended.record
    yield "gen_ai.operation.name", ended.asked.operation
    yield "gen_ai.request.model", record.asked_model or record.model
    if not step.error and record.input_tokens is not None:
        yield "gen_ai.usage.input_tokens", record.input_tokens
        yield "gen_ai.usage.output_tokens", record.output_tokens or 0


def _name(span: Span, asked: Asked, model: str) -> str:
    if span.step is Step.ATTEMPT:
        return f"{asked.operation} {model}" if asked.operation else f"attempt {model}"
    return span.step.value


def _kind(span: Span) -> trace_pb2.Span.SpanKind.ValueType:
    is_attempt = span.step is Step.ATTEMPT
    return trace_pb2.Span.SPAN_KIND_CLIENT if is_attempt else trace_pb2.Span.SPAN_KIND_INTERNAL


def _fail(span: trace_pb2.Span, error: str) -> None:
    span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    span.attributes.extend(_attributes(("error.type", error)))


def _sibling(own_id: bytes, number: int) -> bytes:
    """The id of a span that nobody was told: another one for each number."""
    return ((int.from_bytes(own_id) + number) % 2**64 or 1).to_bytes(8)


def _attributes(*facts: tuple[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in facts]


def _value(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case _:
            return AnyValue(string_value=_text(value))


def _text(value: str) -> str:
    """Text that clients chose, as it may be sent: cut like in the access log, and always UTF-8."""
    return value[:MAX_TEXT_LENGTH].encode("utf-8", "backslashreplace").decode()


def _nanos(at_s: float) -> int:
    return int(at_s * 1e9)
