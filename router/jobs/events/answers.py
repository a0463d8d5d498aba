"""Answers to events: as the response to a sender, in a batch, or on their way to a sink."""

import base64
from dataclasses import replace

import msgspec

from router.domain.errors import (
    ConflictError,
    DeadlineExceededError,
    RouterError,
    UpstreamBrokenError,
)
from router.domain.ports import BackendResponse
from router.jobs.answers import given
from router.jobs.asking import JSON
from router.jobs.deliveries.messages import ended_job, signature
from router.jobs.deliveries.poster import Message
from router.jobs.deliveries.records import Delivery
from router.jobs.events.event import BATCH, is_json
from router.jobs.events.triggers import answer_attributes, as_headers
from router.jobs.front import document_of
from router.jobs.place import Place
from router.jobs.records import Job, State

MAX_DATA_BYTES = 256 * 1024
"""A longer answer is not in the event: `dataref` (an extension of CloudEvents) says where it is."""


async def response_of(job: Job, place: Place) -> BackendResponse:
    """The response to an event: an event, or how its call has failed. Raises RouterError."""
    failure = failure_of(job)
    if failure is not None:
        raise failure
    answer = await given(job, place.objects)
    if answer.status < 400:
        settings = place.runtime.current.settings.events
        told = as_headers(answer_attributes(job, settings))
        answer = replace(answer, headers=[*answer.headers, *told])
    return answer


def failure_of(job: Job) -> RouterError | None:
    """The error for a job that has ended without an answer; None for one that has one."""
    if job.result is not None and job.result.status:
        return None
    cause = job.result.cause if job.result is not None else f"the call was {job.state}"
    if job.state is State.EXPIRED:
        return DeadlineExceededError(cause)
    return ConflictError(cause) if job.state is State.CANCELLED else UpstreamBrokenError(cause)


async def batch_of(jobs: list[Job], place: Place) -> BackendResponse:
    """The answers to a batch of events, each an event; also those that have failed."""
    events = [await _structured(job, place) for job in jobs]
    return BackendResponse(200, [("content-type", BATCH)], msgspec.json.encode(events))


async def sink_message(place: Place, delivery: Delivery) -> Message | None:
    """What is posted to a sink: the answer as an event in binary mode."""
    job = await ended_job(place, delivery)
    if job is None:
        return None
    attributes = answer_attributes(job, place.runtime.current.settings.events)
    media, body = await _data(job, place, attributes)
    headers = [("content-type", media)] if media else []
    return Message([*headers, *as_headers(attributes), *signature(place, delivery, body)], body)


async def _structured(job: Job, place: Place) -> dict[str, object]:
    attributes = answer_attributes(job, place.runtime.current.settings.events)
    media, body = await _data(job, place, attributes)
    event: dict[str, object] = dict(attributes)
    if not body:
        return event
    event["datacontenttype"] = media
    if media.partition(";")[0].strip() == JSON[1] and is_json(body):
        event["data"] = msgspec.Raw(body)
    else:
        event["data_base64"] = base64.b64encode(body).decode()
    return event


async def _data(job: Job, place: Place, attributes: dict[str, str]) -> tuple[str, bytes]:
    """The media type and bytes of an answer; what cannot be in an event is referred to."""
    result = job.result
    if result is None or not result.status:
        return JSON[1], msgspec.json.encode(document_of(job))
    body = result.body
    if result.content:
        body = await place.objects.read(result.content, 0, MAX_DATA_BYTES + 1)
    if len(body) > MAX_DATA_BYTES:
        attributes["dataref"] = f"/v1/jobs/{job.id}/result"
        return "", b""
    media = {name.lower(): value for name, value in result.headers}.get("content-type", JSON[1])
    return media, body
