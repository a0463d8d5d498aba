"""The data port's paths about jobs, and requests whose clients prefer to be answered later.

A caller sees the jobs of its own tenant; those of others do not exist for it.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from secrets import token_hex
from typing import Protocol

import msgspec
from aiohttp.http_parser import RawRequestMessage

from router.domain.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
)
from router.domain.ports import BackendResponse
from router.gateway.access import admit, model_for
from router.gateway.body import Body
from router.gateway.cors import cors_headers
from router.gateway.exchange import Exchange
from router.gateway.intake import Intent, read_intent
from router.gateway.protocols.base import Asked, Target, require
from router.gateway.protocols.openai import OPENAI
from router.gateway.protocols.registry import protocol_of
from router.jobs.answers import given
from router.jobs.asking import JSON, Asking, answer_of, asking_of, list_of, path_of, tenant_of
from router.jobs.calls import fingerprint, kept_headers, wants_later
from router.jobs.deliveries.addresses import CALLBACK_HEADER, callback_of
from router.jobs.keeping import kept, retried
from router.jobs.place import Place
from router.jobs.records import OPEN, Job, Spec, State, lane_of, plain
from router.jobs.runner import Runner
from router.policy.schedule import earliest_end
from router.runtime import Runtime

_MAX_KEY_CHARS = 255
_MAX_LISTED = 1000
_ID_BYTES = 16


Room = Callable[[Asking], Awaitable[BackendResponse]]
CheckWindow = Callable[[str, float, int, float], None]
"""Model, when so many more of its jobs are due, and now. Raises InvalidRequestError."""


class EventsRoom(Protocol):
    """Who has the requests that are events."""

    def takes(self, message: RawRequestMessage, path: str) -> bool:
        """Whether a request is the business of `answer`."""
        ...

    async def answer(
        self, message: RawRequestMessage, body: Body, exchange: Exchange, runtime: Runtime
    ) -> BackendResponse:
        """The answer to a request. Raises RouterError."""
        ...


class Front:
    """Answers what is about jobs; `rooms` are further paths, by their first segment after /v1."""

    def __init__(self, place: Place, runner: Runner, rooms: Mapping[str, Room]) -> None:
        self._place = place
        self._runner = runner
        self._rooms: dict[str, Room] = {"jobs": self._of_jobs, **rooms}
        self.events: EventsRoom | None = None

    def takes(self, message: RawRequestMessage) -> bool:
        """Whether a request may be the business of `answer`."""
        if self.events is not None and self.events.takes(message, path_of(message)):
            return True
        if message.method == "OPTIONS":
            return False  # a browser's question
        if message.method == "POST" and wants_later(message.headers):
            return True
        return self._room_of(message) is not None

    async def answer(
        self, message: RawRequestMessage, body: Body, exchange: Exchange, runtime: Runtime
    ) -> BackendResponse | None:
        """The answer, None for a request that is one for now all the same. Raises RouterError."""
        server, headers = runtime.settings.server, message.headers
        exchange.cors = cors_headers(server, message.method, headers)
        if self.events is not None and self.events.takes(message, path_of(message)):
            return await self.events.answer(message, body, exchange, runtime)
        room = self._room_of(message)
        if room is None:
            exchange.protocol = protocol_of(path_of(message), message.headers, runtime.openai_paths)
            return await self._accepted(message, body, exchange, runtime)
        exchange.protocol = OPENAI
        return await room(asking_of(message, body, runtime))

    def _room_of(self, message: RawRequestMessage) -> Room | None:
        version, _, rest = path_of(message).lstrip("/").partition("/")
        return self._rooms.get(rest.partition("/")[0]) if version == "v1" else None

    # -- calls -----------------------------------------------------------------------------------

    async def _accepted(
        self, message: RawRequestMessage, body: Body, exchange: Exchange, runtime: Runtime
    ) -> BackendResponse | None:
        """Keep a call for later; None if it is no inference."""
        intent = read_intent(
            message.method,
            message.path,
            message.headers,
            runtime,
            exchange.received_at,
            is_ready=True,
        )
        target = intent.target
        if not isinstance(target, Target) or not target.is_inference:
            return None
        exchange.request_id = intent.head.request_id or exchange.request_id
        exchange.key = intent.caller.name if intent.caller is not None else ""
        exchange.record.tenant = intent.tenant or ""
        exchange.model = target.model or ""
        server = runtime.settings.server
        content = await body.read(server.max_body_bytes, server.body_timeout_s)
        exchange.payload_bytes = len(content)
        job = await self._job(intent, target, message, content, runtime)
        exchange.model = job.model
        admit(runtime, intent.caller, exchange.received_at)
        found = await kept(self._place, job, content)
        self._runner.nudge()
        headers = [
            JSON,
            ("location", f"/v1/jobs/{found.id}"),
            ("preference-applied", "respond-async"),
        ]
        return BackendResponse(202, headers, msgspec.json.encode(self._document(found)))

    async def _job(
        self,
        intent: Intent,
        target: Target,
        message: RawRequestMessage,
        content: bytes,
        runtime: Runtime,
    ) -> Job:
        if not content:
            raise InvalidRequestError("the request has no body; send an inference request")
        asked = Asked(target.model or "")
        if target.model is None:
            asked = await target.protocol.asked(content, intent.head.headers)
        model = model_for(runtime, intent.caller, asked.model)
        if not target.is_for(model.name):
            raise NotFoundError(f"model {model.name!r} has no such path: see its openai_paths")
        if not model.settings.idempotent:
            raise InvalidRequestError(
                f"model {model.name} is not idempotent, and a job may run more than once"
            )
        callback = callback_of(
            message.headers.get(CALLBACK_HEADER), self._place.settings.deliveries
        )
        now, window_s = self._place.wall_clock(), self._place.settings.window_s
        if intent.head.deadline_ms is not None:
            window_s = intent.head.deadline_ms / 1e3
        self.check_window(model.name, now + window_s, 1, now)
        tenant = tenant_of(intent.caller)
        spec = Spec(
            key=intent.caller.name if intent.caller is not None else "",
            target=plain(message.path),
            headers=kept_headers(message.headers.items()),
            body=content,
            length=len(content),
            fingerprint=fingerprint(message.path + callback, content),
            callback=callback,
        )
        lane = lane_of(model.name, tenant, "", window_s)
        return Job(_id_of(message.headers, tenant), lane, tenant, now, now + window_s, spec)

    def check_window(self, model: str, due_at: float, jobs: int, now: float) -> None:
        """Refuse what cannot be done in time, and say what could. Raises InvalidRequestError."""
        room = self._runner.room(model)
        lanes = [lane for lane in self._runner.lanes if lane.model == model]
        ends_at = earliest_end(lanes, due_at, jobs, room, now)
        if ends_at > due_at:
            raise InvalidRequestError(
                f"this cannot be done within {due_at - now:.0f} s: the earliest window is"
                f" {ends_at - now + 1:.0f} s"
            )

    # -- paths -----------------------------------------------------------------------------------

    async def _of_jobs(self, asking: Asking) -> BackendResponse:
        match asking.method, asking.segments[2:]:
            case "GET", []:
                return await self._listed(asking)
            case _, []:
                require(asking.method, "GET")
            case "GET", [job_id]:
                return await self._told(await self._own(asking, job_id))
            case "DELETE", [job_id]:
                return await self._cancelled(asking, job_id)
            case _, [_]:
                require(asking.method, "GET", "DELETE")
            case _, [job_id, "result"]:
                require(asking.method, "GET")
                return await self._result(asking, job_id)
            case _, [job_id, "retry"]:
                require(asking.method, "POST")
                return await self._retried(asking, job_id)
            case _:
                pass
        raise NotFoundError("this path is not part of the API")

    async def _own(self, asking: Asking, job_id: str) -> Job:
        job = await self._place.store.get(job_id)
        if job is None or job.tenant != asking.tenant:
            raise NotFoundError(f"there is no job {job_id[:80]!r}")
        return job

    async def _told(self, job: Job) -> BackendResponse:
        document = self._document(job)
        if job.spec.callback:
            delivery = await self._place.store.deliveries.get(job.id)
            document["delivery"] = delivery.told() if delivery is not None else None
        reply = answer_of(document)
        if job.state is State.DONE:
            there = ("location", f"/v1/jobs/{job.id}/result")
            return replace(reply, status=303, headers=[*reply.headers, there])
        if job.state in OPEN:
            return replace(reply, headers=[*reply.headers, ("retry-after", "1")])
        return reply

    async def _listed(self, asking: Asking) -> BackendResponse:
        states = _states(asking.text("status"))
        limit = asking.number("limit", _MAX_LISTED, 20)
        jobs = await self._place.store.listed(
            asking.tenant, states=states, after=asking.text("after"), limit=limit + 1
        )
        return answer_of(list_of([self._document(job) for job in jobs], limit))

    async def _cancelled(self, asking: Asking, job_id: str) -> BackendResponse:
        job = await self._own(asking, job_id)
        now = self._place.wall_clock()
        await self._place.store.drop_open(State.CANCELLED, now, job_id=job.id)
        if job.spec.callback:
            self._runner.endings.tell(job.id)
        return answer_of(self._document(await self._own(asking, job_id)))

    async def _result(self, asking: Asking, job_id: str) -> BackendResponse:
        job = await self._own(asking, job_id)
        if job.result is None or not job.result.status:
            raise ConflictError(f"the job has no answer: it is {job.state}")
        return await given(job, self._place.objects)

    async def _retried(self, asking: Asking, job_id: str) -> BackendResponse:
        job = await self._own(asking, job_id)
        await retried(self._place, job)
        self._runner.nudge()
        return answer_of(self._document(await self._own(asking, job_id)))

    # -- what is told of a job ---------------------------------------------------------------------

    def _document(self, job: Job) -> dict[str, object]:
        """What clients are told of a job, with what is expected of it while it waits."""
        document = document_of(job)
        outlook = self._runner.outlooks.get(job.lane) if job.state is State.QUEUED else None
        return document if outlook is None else {**document, **outlook.of_one().told()}


def document_of(job: Job) -> dict[str, object]:
    """What clients are told of a job."""
    document: dict[str, object] = {
        "id": job.id,
        "object": "job",
        "status": job.state,
        "model": job.model,
        "created_at": int(job.created_at),
        "due_at": int(job.due_at),
        "attempts": job.attempt,
        "cost_usd": job.cost_usd,
    }
    if job.batch:
        document["batch_id"], document["line"] = job.batch, job.line
    if job.ended_at:
        document["ended_at"] = int(job.ended_at)
    if job.result is not None and job.result.status:
        document["result"] = f"/v1/jobs/{job.id}/result"
        document["status_code"] = job.result.status
    if job.result is not None and job.result.cause:
        document["error"] = {"message": job.result.cause}
    return document


def _states(text: str) -> list[State]:
    try:
        return [State(name) for name in text.split(",") if name]
    except ValueError:
        raise InvalidRequestError(
            f"status = {text[:80]!r}, must be of {', '.join(State)}"
        ) from None


def _id_of(headers: Mapping[str, str], tenant: str) -> str:
    key = headers.get("idempotency-key")
    if key is None:
        return f"job_{token_hex(_ID_BYTES)}"
    if not 0 < len(key) <= _MAX_KEY_CHARS:
        raise InvalidRequestError(f"Idempotency-Key must have 1..{_MAX_KEY_CHARS} characters")
    named = f"{tenant}\0{key}".encode("utf-8", "surrogateescape")
    return f"job_{hashlib.sha256(named).hexdigest()[: 2 * _ID_BYTES]}"
