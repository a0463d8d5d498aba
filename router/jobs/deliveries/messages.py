"""What is told of a job that has ended, as Standard Webhooks words it: type, timestamp, data."""

from datetime import UTC, datetime

import msgspec

from router.domain.errors import NotFoundError
from router.jobs.asking import JSON
from router.jobs.batch_records import BATCH_KIND, ENDED, batch_of
from router.jobs.deliveries.poster import Message
from router.jobs.deliveries.records import Delivery
from router.jobs.front import document_of
from router.jobs.lines import embedded
from router.jobs.place import Place
from router.jobs.records import OPEN, Job


async def ended_job(place: Place, delivery: Delivery) -> Job | None:
    """The job that a delivery is about, None while it has not ended. Raises NotFoundError."""
    job = await place.store.get(delivery.id)
    if job is None:
        raise NotFoundError("what it was about has been forgotten: jobs.retention is over")
    return job if job.state not in OPEN else None


async def job_message(place: Place, delivery: Delivery) -> Message | None:
    """What is told of a job: its document, and its answer if that is short."""
    job = await ended_job(place, delivery)
    if job is None:
        return None
    data = document_of(job)
    result = job.result
    if result is not None and result.status and not result.content:
        data["response"] = {"status_code": result.status, "body": embedded(result.body)}
    return signed(place, delivery, f"job.{job.state}", job.ended_at, data)


async def batch_message(place: Place, delivery: Delivery) -> Message | None:
    """What is told of a batch, as OpenAI's webhooks word it: its clients take it apart."""
    document = await place.store.read(BATCH_KIND, delivery.id)
    if document is None:
        raise NotFoundError("what it was about has been forgotten: jobs.retention is over")
    batch = batch_of(document)
    if batch.status not in ENDED:
        return None
    body = msgspec.json.encode(
        {
            "id": delivery.message_id.replace("msg_", "evt_", 1),
            "object": "event",
            "created_at": getattr(batch, f"{batch.status}_at"),
            "type": f"batch.{batch.status}",
            "data": {"id": batch.id},
        }
    )
    return Message([JSON, *signature(place, delivery, body)], body)


def signed(place: Place, delivery: Delivery, kind: str, ended_at: float, data: object) -> Message:
    """A message of Standard Webhooks."""
    timestamp = datetime.fromtimestamp(ended_at, UTC).isoformat().replace("+00:00", "Z")
    body = msgspec.json.encode({"type": kind, "timestamp": timestamp, "data": data})
    return Message([JSON, *signature(place, delivery, body)], body)


def signature(place: Place, delivery: Delivery, body: bytes) -> list[tuple[str, str]]:
    """The headers that sign a message; none where no secret is configured."""
    secrets = place.runtime.current.webhook_secrets
    if secrets is None:
        return []
    return secrets.headers(delivery.message_id, place.wall_clock(), body)
