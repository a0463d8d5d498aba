"""What came of a call: collected, kept, and given to whoever asks for it."""

from collections.abc import Sequence

from router.domain.errors import NotFoundError, RouterError
from router.domain.ports import BackendResponse
from router.domain.request import Protocol
from router.gateway.relay import is_relayed
from router.gateway.responses import INTERNAL_ERROR, error_answer
from router.jobs.objects import Objects
from router.jobs.records import Job, Result, as_it_came, plain

INLINE_BYTES = 16 * 1024
"""A longer body is an object of its own."""
_NOT_KEPT = frozenset({"connection", "content-length", "date", "transfer-encoding"})


async def collected(response: BackendResponse, objects: Objects, request_id: str) -> Result:
    """All of a backend's answer. Raises AttemptError and NotDurableError."""
    headers = _kept(response.headers)
    if response.rest is None and len(response.body) <= INLINE_BYTES:
        return Result(response.status, headers, response.body, request_id=request_id)
    async with objects.writing() as new:
        await new.write(response.body)
        if response.rest is not None:
            async for part in response.rest:
                await new.write(part)
        content, length = await new.keep(), new.size_bytes
    return Result(response.status, headers, content=content, request_id=request_id, length=length)


def refused(error: RouterError, protocol: Protocol, request_id: str) -> Result:
    """The gateway's own answer, as its client would have got it at once."""
    answer = error_answer(error, protocol)
    return Result(answer.status, _kept(answer.headers), answer.body, request_id=request_id)


async def given(job: Job, objects: Objects) -> BackendResponse:
    """The answer of a job that is done, as the backend gave it. Raises NotFoundError."""
    result = job.result
    if result is None or not result.status:
        raise NotFoundError(f"the job has no answer: it is {job.state}")
    headers = [(as_it_came(name), as_it_came(value)) for name, value in result.headers]
    if not result.content:
        return BackendResponse(result.status, headers, result.body)
    parts = objects.parts(result.content)
    first = await anext(parts, b"")
    return BackendResponse(result.status, headers, first, parts)


def cause_of(error: Exception) -> str:
    """Why an attempt failed, in words that a client may see."""
    return str(error) if isinstance(error, RouterError) else INTERNAL_ERROR


def contents_of(jobs: Sequence[Job]) -> list[str]:
    """The objects that belong to jobs alone."""
    answers = [job.result.content for job in jobs if job.result is not None]
    payloads = [job.spec.payload for job in jobs if job.spec.own_payload]
    return [name for name in (*answers, *payloads) if name]


def _kept(headers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (plain(name), plain(value))
        for name, value in headers
        if (is_relayed(name) and name.lower() not in _NOT_KEPT) or name == "x-router-error"
    )
