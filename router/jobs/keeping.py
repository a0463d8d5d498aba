"""Writes an accepted call down, with the delivery that is to tell what came of it."""

import msgspec

from router.domain.errors import ConflictError
from router.jobs.answers import INLINE_BYTES
from router.jobs.batch_records import Batch
from router.jobs.deliveries.addresses import host_of
from router.jobs.deliveries.records import About, Delivery, first_look
from router.jobs.place import Place
from router.jobs.records import Job


async def kept(place: Place, job: Job, content: bytes) -> Job:
    """The job, written down; an earlier one where it is the same.

    Raises NotDurableError, ConflictError, TooManyJobsError, and InvalidRequestError for a callback
    that may not be made.
    """
    is_new = await ordered(place, job)
    found = None
    try:
        found = await _written(place, job, content)
        if found.spec.fingerprint != job.spec.fingerprint:
            raise ConflictError("another request was sent with the same Idempotency-Key")
    finally:
        is_told = found is not None and found.spec.callback == job.spec.callback
        if is_new and not is_told:
            await place.store.deliveries.remove(job.id)
    return found


async def ordered(place: Place, job: Job) -> bool:
    """Note who is to be told; before the job, for what nobody remembers is never told.

    Returns whether it is new. One without its job is found out when it is looked at.
    """
    url = job.spec.callback
    if not url:
        return False
    about = About.EVENT if job.spec.event else About.JOB
    host = host_of(url, place.settings.deliveries, by_operator=about is About.EVENT)
    look_at = first_look(job.created_at, job.due_at)
    delivery = Delivery(job.id, job.tenant, about, url, host, job.created_at, job.due_at, look_at)
    store, most = place.store, place.settings.max_jobs
    if await store.deliveries.add(delivery, most):
        return True
    earlier = await store.deliveries.get(job.id)
    if earlier is None or not earlier.ended_at or await store.get(job.id) is not None:
        return False
    # Of a job with the same name that has been forgotten, while what was told of it has not yet.
    await store.deliveries.remove(job.id)
    return await store.deliveries.add(delivery, most)


async def ordered_for_batch(place: Place, batch: Batch, tenant: str, url: str) -> None:
    """Note who is to be told that a batch has ended; before the batch, as of a job."""
    if not url:
        return
    host = host_of(url, place.settings.deliveries)
    made_at, due_at = place.wall_clock(), batch.expires_at
    look_at = first_look(made_at, due_at)
    delivery = Delivery(batch.id, tenant, About.BATCH, url, host, made_at, due_at, look_at)
    await place.store.deliveries.add(delivery, place.settings.max_jobs)


async def retried(place: Place, job: Job) -> None:
    """Let a dead letter wait again; what comes of it is told anew, under another message id.

    Raises ConflictError if it is none.
    """
    now = place.wall_clock()
    due_at = now + max(1.0, job.due_at - job.created_at)
    if not await place.store.retry(job.id, due_at):
        raise ConflictError(f"only a dead job can be tried again: it is {job.state}")
    if job.spec.callback:
        await place.store.deliveries.remove(job.id)
        await ordered(place, msgspec.structs.replace(job, created_at=now, due_at=due_at))


async def _written(place: Place, job: Job, content: bytes) -> Job:
    if len(content) > INLINE_BYTES:
        name = await place.objects.keep(content)
        spec = msgspec.structs.replace(job.spec, body=b"", payload=name, own_payload=True)
        job = msgspec.structs.replace(job, spec=spec)
    found = None
    try:
        (found,) = await place.store.add([job], place.settings.max_jobs, place.settings.max_bytes)
    finally:
        if job.spec.payload and (found is None or found.spec.payload != job.spec.payload):
            await place.objects.remove(job.spec.payload)
    return found
