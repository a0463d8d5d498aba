"""The events of platforms in their own shapes, as CloudEvents.

| sender | shape | where it is described |
|---|---|---|
| EventBridge | an object with `detail-type` | docs.aws.amazon.com, eventbridge, "event structure" |
| S3 | `Records` of `aws:s3` | cloudevents/spec, adapters/aws-s3.md |
| SQS, by EventBridge Pipes | messages of `aws:sqs`, alone or in a list, or as `Records` | Pipes |
| Pub/Sub push | `message` and `subscription` | cloud.google.com/pubsub/docs/push |
| Event Grid | a list, and header `aeg-event-type` | learn.microsoft.com, event-grid/event-schema |

What an SQS message carries is looked into once: notifications of S3, and events of EventBridge.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from router.domain.errors import InvalidRequestError
from router.jobs.events.event import (
    BATCH,
    STRUCTURED,
    Event,
    batch,
    binary,
    decoded,
    event,
    is_json,
    items,
    of_base64,
    structured,
)

EVENT_GRID = "aeg-event-type"
_VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
_JSON = "application/json"
_GCS = "google.cloud.storage.object.v1."
_GCS_TYPES = {
    "OBJECT_FINALIZE": "finalized",
    "OBJECT_DELETE": "deleted",
    "OBJECT_ARCHIVE": "archived",
    "OBJECT_METADATA_UPDATE": "metadataUpdated",
}
_SNIFFED = frozenset({"", _JSON, "application/octet-stream", "text/plain"})
"""Media types under which platforms send their JSON."""


class Arrived(NamedTuple):
    """What a request brought.

    `reads_answers` says that its sender takes an event as the response. `validation` is the code
    that an Event Grid subscription wants back.
    """

    events: list[Event]
    reads_answers: bool = False
    is_batch: bool = False
    validation: str = ""


def arrived(headers: Mapping[str, str], body: bytes, most: int) -> Arrived:
    """The events of a request. Raises InvalidRequestError."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = headers.get(EVENT_GRID, "")
    reads = not kind  # Event Grid sends CloudEvents too, and waits for no answer
    if media == BATCH:
        return Arrived(batch(body, most), reads, is_batch=True)
    if media == STRUCTURED:
        return Arrived([structured(body)], reads)
    if media.startswith("application/cloudevents"):
        raise InvalidRequestError(f"{media[:80]} is not supported; send {STRUCTURED}")
    if "ce-specversion" in headers:
        return Arrived([binary(headers, body)], reads)
    if kind == "SubscriptionValidation":
        return Arrived([], validation=_validation(body, most))
    if media not in _SNIFFED:
        raise InvalidRequestError(
            "the request has no event: it needs ce- headers, or the media type of one"
        )
    if kind:
        return Arrived([_event_grid(one) for one in items(body, most)], is_batch=True)
    found = list(_sniffed(body, most))
    if len(found) > most:
        raise InvalidRequestError(f"a request may have {most} events, this one has {len(found)}")
    return Arrived(found, is_batch=len(found) != 1)


def _sniffed(body: bytes, most: int) -> Iterator[Event]:
    parts = items(body, most) if body.lstrip().startswith(b"[") else [msgspec.Raw(body)]
    for part in parts:
        fields = decoded(part, dict[str, msgspec.Raw])
        if "Records" in fields:
            for record in items(fields["Records"], most):
                yield from _of_aws(decoded(record, dict[str, msgspec.Raw]))
        elif "message" in fields and "subscription" in fields:
            yield _pub_sub(part)
        else:
            yield from _of_aws(fields)


# -- AWS ------------------------------------------------------------------------------------------


def _of_aws(fields: dict[str, msgspec.Raw]) -> Iterator[Event]:
    if "detail-type" in fields and "source" in fields:
        yield _event_bridge(fields)
        return
    origin = _field(fields, "eventSource") or _field(fields, "EventSource")
    if origin == "aws:s3":
        yield _s3(fields)
    elif origin == "aws:sqs" or ("messageId" in fields and "body" in fields):
        yield from _sqs(fields)
    else:
        raise InvalidRequestError(
            "the body is no event that is known: a CloudEvent, or one of EventBridge, S3, SQS,"
            " Pub/Sub or Event Grid"
        )


def _event_bridge(fields: dict[str, msgspec.Raw]) -> Event:
    detail = bytes(fields.get("detail", msgspec.Raw(b"{}")))
    attributes = {
        "id": _field(fields, "id"),
        "source": _field(fields, "source"),
        "type": _field(fields, "detail-type"),
        "time": _field(fields, "time"),
        "account": _field(fields, "account"),
        "region": _field(fields, "region"),
        "subject": _subject_of_detail(detail) or _first(fields.get("resources")),
    }
    return _made(attributes, detail)


def _subject_of_detail(detail: bytes) -> str:
    """The key of the object that an event of S3 is about."""
    value = decoded(detail, Any)
    found = value.get("object") if isinstance(value, dict) else None
    key = found.get("key") if isinstance(found, dict) else None
    return key if isinstance(key, str) else ""


def _s3(fields: dict[str, msgspec.Raw]) -> Event:
    told = decoded(fields.get("s3", msgspec.Raw(b"{}")), dict[str, msgspec.Raw])
    bucket = decoded(told.get("bucket", msgspec.Raw(b"{}")), dict[str, msgspec.Raw])
    thing = decoded(told.get("object", msgspec.Raw(b"{}")), dict[str, msgspec.Raw])
    ids = decoded(fields.get("responseElements", msgspec.Raw(b"{}")), dict[str, msgspec.Raw])
    origin, region = "aws:s3", _field(fields, "awsRegion")
    key, sequence = _field(thing, "key"), _field(thing, "sequencer")
    request, host = _field(ids, "x-amz-request-id"), _field(ids, "x-amz-id-2")
    # One request (a DeleteObjects) has a notification for each of its objects.
    attributes = {
        "id": ".".join(part for part in (request, host, sequence) if part),
        "source": f"{origin}.{region}.{_field(bucket, 'name')}",
        "type": f"com.amazonaws.s3.{_field(fields, 'eventName').removeprefix('s3:')}",
        "subject": key,
        "time": _field(fields, "eventTime"),
        "region": region,
    }
    return _made(attributes, msgspec.json.encode(told))


def _sqs(fields: dict[str, msgspec.Raw]) -> Iterator[Event]:
    body = _field(fields, "body").encode()
    inner = _inner(body)
    if inner is not None:
        yield from inner
        return
    attributes = {
        "id": _field(fields, "messageId"),
        "source": _field(fields, "eventSourceARN") or "aws:sqs",
        "type": "aws.sqs.message",
        "region": _field(fields, "awsRegion"),
    }
    yield _made(attributes, body, _JSON if is_json(body) else "text/plain")


def _inner(body: bytes) -> list[Event] | None:
    """The events of S3 or EventBridge that an SQS message carries; None if it carries others."""
    try:
        fields = decoded(body, dict[str, msgspec.Raw])
    except InvalidRequestError:
        return None
    if "detail-type" in fields and "source" in fields and "id" in fields:
        return [_event_bridge(fields)]
    if "Records" not in fields:
        return None
    records = [
        decoded(one, dict[str, msgspec.Raw])
        for one in decoded(fields["Records"], list[msgspec.Raw])
    ]
    if not records or any(_field(one, "eventSource") != "aws:s3" for one in records):
        return None
    return [_s3(one) for one in records]


# -- Google ---------------------------------------------------------------------------------------


class _PubSubMessage(msgspec.Struct):
    data: str = ""
    attributes: dict[str, str] = {}
    message_id: str = msgspec.field(default="", name="messageId")
    publish_time: str = msgspec.field(default="", name="publishTime")
    ordering_key: str = msgspec.field(default="", name="orderingKey")


class _PubSub(msgspec.Struct):
    message: _PubSubMessage
    subscription: str


def _pub_sub(body: bytes | msgspec.Raw) -> Event:
    pushed = decoded(body, _PubSub)
    message, told = pushed.message, pushed.message.attributes
    content = of_base64(message.data, "message.data")
    media = told.get("ce-datacontenttype") or told.get("content-type") or ""
    media = media or (_JSON if is_json(content) else "application/octet-stream")
    attributes = {
        "id": message.message_id,
        "source": f"//pubsub.googleapis.com/{pushed.subscription}",
        "type": "google.cloud.pubsub.topic.v1.messagePublished",
        "time": message.publish_time,
    }
    if "ce-id" in told:  # a CloudEvent in the Pub/Sub binding
        known = {name[3:]: value for name, value in told.items() if name.startswith("ce-")}
        attributes = {**known, "specversion": "", "datacontenttype": ""}
    elif told.get("eventType") in _GCS_TYPES and "bucketId" in told:
        attributes["type"] = _GCS + _GCS_TYPES[told["eventType"]]
        attributes["source"] = f"//storage.googleapis.com/projects/_/buckets/{told['bucketId']}"
        attributes["subject"] = f"objects/{told.get('objectId', '')}"
    return _made(attributes, content, media)


# -- Azure ----------------------------------------------------------------------------------------


class _Grid(msgspec.Struct):
    id: str
    subject: str
    event_type: str = msgspec.field(name="eventType")
    topic: str = ""
    event_time: str = msgspec.field(default="", name="eventTime")
    data: msgspec.Raw = msgspec.Raw(b"null")


def _event_grid(body: msgspec.Raw) -> Event:
    given = decoded(body, _Grid)
    attributes = {
        "id": given.id,
        "source": given.topic or "azure.eventgrid",
        "type": given.event_type,
        "subject": given.subject,
        "time": given.event_time,
    }
    return _made(attributes, bytes(given.data))


def _validation(body: bytes, most: int) -> str:
    for one in items(body, most):
        given = decoded(one, _Grid)
        if given.event_type == _VALIDATION:
            code = decoded(given.data, dict[str, Any]).get("validationCode")
            if isinstance(code, str) and len(code) <= 200:
                return code
    raise InvalidRequestError("the validation of the subscription has no validationCode")


# -- all ------------------------------------------------------------------------------------------


def _made(attributes: Mapping[str, str], content: bytes, media: str = _JSON) -> Event:
    return event({name: value for name, value in attributes.items() if value}, content, media)


def _field(fields: Mapping[str, msgspec.Raw], name: str) -> str:
    """A text, empty if there is none or it is another thing."""
    value = decoded(fields[name], Any) if name in fields else ""
    return value if isinstance(value, str) else ""


def _first(raw: msgspec.Raw | None) -> str:
    value = decoded(raw, Any) if raw is not None else None
    return value[0] if isinstance(value, list) and value and isinstance(value[0], str) else ""
