"""From an event to the call that it triggers, and from what came of that to an event again."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from urllib.parse import quote

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from router.domain.errors import InvalidRequestError, UnfitEventError
from router.gateway.access import model_for
from router.gateway.body import Body
from router.gateway.intake import resolved_intent
from router.gateway.protocols.base import Target
from router.jobs.asking import tenant_of
from router.jobs.events.event import Event
from router.jobs.records import Job, Result, Spec, lane_of, plain
from router.runtime import Runtime
from router.settings.keys import ApiKey
from router.settings.template import Path
from router.settings.triggers import EventsSettings, TriggerSettings

_ID_CHARS = 32
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""What the HTTP binding (3.1.3.2) leaves as it is in a header."""


def trigger_for(triggers: Sequence[TriggerSettings], event: Event) -> TriggerSettings | None:
    """The first trigger that an event matches."""
    for trigger in triggers:
        conditions = (("type", trigger.type), ("source", trigger.source),
                      ("subject", trigger.subject))  # fmt: skip
        if all(_matches(globs, event.attributes.get(name, "")) for name, globs in conditions):
            return trigger
    return None


def _matches(globs: Sequence[str], value: str) -> bool:
    return not globs or any(fnmatchcase(value, glob) for glob in globs)


def job_id(event: Event, tenant: str) -> str:
    """The same for each copy of an event: source and id name it (CloudEvents, 3.1)."""
    named = "\0".join(("event", tenant, event.source, event.id))
    return f"job_{hashlib.sha256(named.encode('utf-8', 'surrogatepass')).hexdigest()[:_ID_CHARS]}"


async def job_of(
    event: Event, trigger: TriggerSettings, runtime: Runtime, caller: ApiKey | None, now: float
) -> tuple[Job, bytes]:
    """The call that an event triggers, with its body. Raises RouterError."""
    model = model_for(runtime, caller, trigger.model)
    if not model.settings.idempotent:
        raise InvalidRequestError(f"model {model.name} is not idempotent, and takes no jobs")
    body, media = body_of(event, trigger)
    Body.check_size(len(body), runtime.settings.server.max_body_bytes)
    endpoint = trigger.endpoint or f"/v2/models/{trigger.model}/infer"
    headers = CIMultiDictProxy(CIMultiDict({"content-type": media}))
    intent = resolved_intent(
        ("POST", endpoint), headers, runtime, 0.0, caller=lambda _: caller, is_ready=True
    )
    target = intent.target
    if not isinstance(target, Target) or not target.is_inference:
        raise InvalidRequestError(f"trigger {trigger.name}: its endpoint is none of inference")
    named = target.model or (await target.protocol.asked(body, intent.head.headers)).model
    if named != trigger.model:
        raise UnfitEventError(f"the body names another model than trigger {trigger.name} does")
    tenant = tenant_of(caller)
    spec = Spec(
        key=caller.name if caller is not None else "",
        target=plain(endpoint),
        headers=(("content-type", media),),
        body=body,
        length=len(body),
        callback=trigger.sink,
        event={
            "id": event.id, "source": event.source, "trigger": trigger.name,
            "subject": event.attributes.get("subject", ""),
        },
    )  # fmt: skip
    lane = lane_of(model.name, tenant, "", trigger.window_s)
    return Job(job_id(event, tenant), lane, tenant, now, now + trigger.window_s, spec), body


def body_of(event: Event, trigger: TriggerSettings) -> tuple[bytes, str]:
    """The body that a trigger makes of an event, and its media type. Raises UnfitEventError."""
    if trigger.input is None:
        if not event.content:
            raise UnfitEventError(f"the event has no data, which is the input of {trigger.name}")
        return event.content, event.media or "application/octet-stream"
    data: list[object] = []  # read once, however often it is referred to

    def look(path: Path) -> object:
        if path == ("data_base64",):
            return event.base64()
        if path[0] != "data":
            found = event.attributes.get(path[0]) if len(path) == 1 else None
            if found is None:
                raise LookupError(f"it has no attribute {'.'.join(path)}")
            return found
        if not data:
            data.append(event.data())
        return _within(data[0], path)

    try:
        document = trigger.input.filled(look)
    except LookupError as error:
        reason = str(error.args[0])[:200]
        raise UnfitEventError(f"the event does not fit trigger {trigger.name}: {reason}") from None
    if trigger.endpoint is not None and isinstance(document, dict):
        document = {"model": trigger.model, **document}
    return msgspec.json.encode(document), "application/json"


def _within(value: object, path: Path) -> object:
    for part in path[1:]:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part[:9]) < len(value):
            value = value[int(part[:9])]
        else:
            raise LookupError(f"it has no {'.'.join(path)}")
    return value


def answer_attributes(job: Job, settings: EventsSettings) -> dict[str, str]:
    """The attributes of the event that an answer is, but for its media type."""
    result = job.result or Result()
    is_answer = 0 < result.status < 400
    when = datetime.fromtimestamp(job.ended_at, UTC).isoformat().replace("+00:00", "Z")
    attributes = {
        "specversion": "1.0",
        "id": job.id,
        "source": settings.answer_source,
        "type": settings.answer_type if is_answer else f"{settings.answer_type}.failed",
        "time": when,
        "subject": job.spec.event.get("subject", ""),
        "causeid": job.spec.event.get("id", ""),
        "causesource": job.spec.event.get("source", ""),
        "trigger": job.spec.event.get("trigger", ""),
    }
    return {name: value for name, value in attributes.items() if value}


def as_headers(attributes: dict[str, str]) -> list[tuple[str, str]]:
    """Attributes as the headers of an event in binary mode."""
    return [(f"ce-{name}", quote(value, safe=_SAFE)) for name, value in attributes.items()]
